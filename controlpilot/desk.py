"""What a page or an operation of the API works with: `desk()` gives the settings, folders and machines of the app.

`create_app` makes one Desk and puts it into `app.extensions["pilot"]`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from flask import current_app

from controlpilot.auth import Doorkeeper
from controlpilot.settings import Settings
from controlpilot.telemetry import Telemetry
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

if TYPE_CHECKING:
    from controlpilot.supervisor import Supervisor

log = logging.getLogger(__name__)
GATEWAY = "gateway"


@dataclass
class Desk:
    """clock: unix seconds, and steady: seconds that never jump; tests put their own here. telemetry: its thread is
    started by whoever serves."""

    settings: Settings
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    door: Doorkeeper = field(init=False)
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        self.door = Doorkeeper(self.settings, self.clock, self.steady)
        self.telemetry = Telemetry(self.workspace.root)

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @property
    def secrets(self) -> Path:
        return self.settings.secrets

    @property
    def supervisor(self) -> Supervisor | None:
        """supervisord's client; None on a machine without one."""
        if self.settings.supervisor is None:
            return None
        from controlpilot.supervisor import Supervisor

        return Supervisor(self.settings.supervisor)

    def close_open_services(self) -> None:
        """Make the gateway drop open WebSockets, after somebody logged out; new ones need a login anyway."""
        if self.supervisor is None:
            return
        try:
            self.supervisor.signal(GATEWAY, "HUP")
        except PilotError as error:
            log.warning("open WebSockets of services stay open until they end by themselves: %s", error.message)


def desk() -> Desk:
    """The Desk of the application that answers the present request."""
    return cast(Desk, current_app.extensions["pilot"])
