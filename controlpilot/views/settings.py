"""What a person sets in the panel: the password, tokens, sessions, who is told, the price of an hour.

Preferences are data of the workspace (config/settings.toml); all that is secret is in the secrets folder.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from controlpilot.auth import Doorkeeper
from controlpilot.notices import Notices
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

FILE = "settings.toml"
Event = Literal["done", "failed", "stopped", "nan", "disk", "service"]
EVENTS: dict[Event, str] = {
    "done": "a run is done",
    "failed": "a run failed or was interrupted",
    "stopped": "a run was stopped by a person",
    "nan": "a run's loss stopped being a number",
    "disk": "the disk gets full",
    "service": "a service does not start",
}


class Preferences(BaseModel):
    """Kept in config/settings.toml of the workspace."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    price_per_hour: float | None = Field(
        default=None, ge=0, le=10_000, description="What this machine costs, in dollars"
    )
    idle_minutes: int | None = Field(
        default=None, ge=5, le=1440, description="Minutes without anything going on after which the pod is stopped"
    )
    stop_when_done: bool = Field(default=False, description="Stop the pod when the last run is done or failed")
    tell_when: list[Event] = Field(
        default=["done", "failed", "nan", "disk", "service"], description="What notifications are sent for"
    )


class TokenRow(BaseModel):
    """A token without its value. Times are unix seconds."""

    id: str
    name: str
    created: float
    used: float | None


class NewToken(TokenRow):
    token: str = Field(description="Shown this once; send it as Authorization: Bearer")


class SessionRow(BaseModel):
    """A browser that is logged in. Times are unix seconds."""

    id: str = Field(description="The start of its public name")
    created: float
    seen: float
    agent: str
    address: str
    present: bool = Field(description="The one that asks")


class ChannelRow(BaseModel):
    """A place that is told; its address is never shown again."""

    id: str
    name: str
    kind: str


def preferences(workspace: Workspace) -> Preferences:
    """What is set, else the defaults. PilotError for a file that somebody broke by hand."""
    path = workspace.root / "config" / FILE
    try:
        return Preferences.model_validate(tomllib.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return Preferences()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError) as error:
        raise PilotError(str(path), str(error)[:300], "what the Settings page writes", "Mend or remove it.") from error


def keep(workspace: Workspace, new: Preferences) -> Preferences:
    """Replace what is set."""
    check_writable(workspace)
    path = workspace.root / "config" / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    text = tomli_w.dumps(new.model_dump(exclude_none=True))
    write_beside(path, f"# What was set on the Settings page.\n{text}".encode())
    return new


def change_password(door: Doorkeeper, old: str, new: str) -> None:
    """A new password, for who knows the old one; everybody is logged out. PilotError otherwise."""
    check_password(door, old, "old password")
    door.passwords.set(new, "saved")


def check_password(door: Doorkeeper, given: str, where: str = "password") -> None:
    """PilotError unless this is the panel's password; as throttled as the login."""
    wait = door.password_throttle.take()
    if wait is not None:
        raise TooOften("password", "too many wrong attempts", f"one in {wait} s", f"Wait {wait} s and try again.")
    if not door.passwords.verify(given):
        raise PilotError(where, "not the right one", "the present password", "Try again.")
    door.password_throttle.give_back()


class TooOften(PilotError):
    """The throttle of the login holds here too."""

    http_status = 429


def tokens(door: Doorkeeper) -> list[TokenRow]:
    return [TokenRow(**vars(one)) for one in door.tokens.all()]


def new_token(door: Doorkeeper, name: str) -> NewToken:
    """Make one; its value is in this answer only."""
    token, value = door.tokens.create(name)
    return NewToken(**vars(token), token=value)


def sessions(door: Doorkeeper, present: str) -> list[SessionRow]:
    return [
        SessionRow(
            id=one.digest[:12],
            created=one.created,
            seen=one.seen,
            agent=one.agent,
            address=one.address,
            present=one.digest == present,
        )
        for one in door.sessions.all()
    ]


def channels(notices: Notices) -> Sequence[ChannelRow]:
    return [ChannelRow(**vars(one)) for one in notices.all()]
