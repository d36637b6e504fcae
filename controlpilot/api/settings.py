"""/api/v1/settings, tokens, sessions, notifications and the password."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from controlpilot.api import Resource
from controlpilot.auth.guard import door, who
from controlpilot.desk import desk
from controlpilot.notices import Notices
from controlpilot.views import settings as views

resource = Resource("settings", "Password, tokens, sessions, notifications, the price of an hour, idle minutes")
blueprint = resource.blueprint


class PasswordChange(BaseModel):
    model_config = ConfigDict(extra="forbid")
    old: str = Field(max_length=1024)
    new: str = Field(min_length=8, max_length=1024)


class TokenName(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=60)


class NewChannel(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=60)
    url: str = Field(min_length=1, max_length=2000, description="An Apprise URL; kept 0600 and never shown again")


@resource.get("/settings")
def preferences() -> views.Preferences:
    """What is set."""
    return views.preferences(desk().workspace)


@resource.put("/settings")
def keep(body: views.Preferences) -> views.Preferences:
    """Replace what is set."""
    return views.keep(desk().workspace, body)


@resource.post("/password")
def password(body: PasswordChange) -> None:
    """Set a new password; every session ends, tokens stay."""
    views.change_password(door(), body.old, body.new)
    desk().close_open_services()


@resource.get("/tokens")
def tokens() -> list[views.TokenRow]:
    """Every token, without its value."""
    return views.tokens(door())


@resource.post("/tokens", status=201)
def new_token(body: TokenName) -> views.NewToken:
    """Make a token for a program."""
    return views.new_token(door(), body.name)


@resource.delete("/tokens/<ident>")
def revoke(ident: str) -> None:
    """End a token at once."""
    door().tokens.revoke(ident)


@resource.get("/sessions")
def sessions() -> list[views.SessionRow]:
    """Every browser that is logged in."""
    session = who()
    return views.sessions(door(), session.digest if session else "")


@resource.delete("/sessions")
def end_sessions() -> None:
    """Log out every other browser, and close the services they have open."""
    session = who()
    door().sessions.end_all(session.digest if session else "")
    desk().close_open_services()


@resource.get("/notifications")
def channels() -> list[views.ChannelRow]:
    """Who is told; addresses are never shown."""
    return list(views.channels(Notices(desk().secrets)))


@resource.post("/notifications", status=201)
def add_channel(body: NewChannel) -> views.ChannelRow:
    """Add one by its Apprise URL."""
    return views.ChannelRow(**vars(Notices(desk().secrets).add(body.name, body.url)))


@resource.delete("/notifications/<ident>")
def remove_channel(ident: str) -> None:
    """Forget one."""
    Notices(desk().secrets).remove(ident)


@resource.post("/notifications/<ident>/test", refuses=(409,))
def test_channel(ident: str) -> None:
    """Send it a message now."""
    Notices(desk().secrets).test(ident)
