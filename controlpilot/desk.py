"""What a page or an operation of the API works with: `desk()` gives the settings, folders and machines of the app.

`create_app` makes one Desk and puts it into `app.extensions["pilot"]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from flask import current_app

from controlpilot.settings import Settings
from controlpilot.telemetry import Telemetry
from trainpilot.workspace import Workspace


@dataclass
class Desk:
    """clock: unix seconds; tests put their own here. telemetry: its thread is started by whoever serves."""

    settings: Settings
    clock: Callable[[], float] = time.time
    telemetry: Telemetry = field(init=False)

    def __post_init__(self) -> None:
        self.telemetry = Telemetry(self.workspace.root)

    @property
    def workspace(self) -> Workspace:
        return self.settings.workspace

    @property
    def secrets(self) -> Path:
        return self.settings.secrets


def desk() -> Desk:
    """The Desk of the application that answers the present request."""
    return cast(Desk, current_app.extensions["pilot"])
