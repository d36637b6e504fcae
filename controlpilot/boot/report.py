"""The lines of the boot: what was found, what is done about it. Printed at once, and kept for the panel as JSON."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "problem"]
FILE = "boot.json"  # in the run folder


@dataclass(frozen=True)
class Line:
    """level: "ok", "note" (something works in another way) or "problem" (something does not work; text has the
    remedy)."""

    level: Level
    what: str
    text: str


@dataclass
class Report:
    """All lines of one boot, in order."""

    lines: list[Line] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def ok(self, what: str, text: str) -> None:
        self.add("ok", what, text)

    def note(self, what: str, text: str) -> None:
        self.add("note", what, text)

    def problem(self, what: str, text: str) -> None:
        self.add("problem", what, text)

    def add(self, level: Level, what: str, text: str) -> None:
        self.lines.append(Line(level, what, text))
        mark = {"ok": " ", "note": "-", "problem": "!"}[level]
        print(f"boot {time.monotonic() - self.began:5.2f} s {mark} {what:<14} {text}", flush=True)

    def write(self, folder: Path) -> None:
        """Keep the lines where the panel reads them. They hold nothing secret."""
        path = folder / FILE
        value = {"schema": 1, "time": time.time(), "lines": [asdict(line) for line in self.lines]}
        path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
        path.chmod(0o644)
