"""Files that are no whole picture: empty, cut short, broken, of another kind, or too large to decode."""

from __future__ import annotations

from collections.abc import Iterator

from trainpilot.datasets.doctor.case import Case
from trainpilot.datasets.doctor.findings import Finding, Fix, about

TITLE = "whole pictures"
POINTS = 60.0
WHY = "A picture that cannot be decoded is left out of the training, and its caption with it."
_FIX = Fix("move them to the trash, with their captions", "damaged")
_KINDS = {
    "truncated": ("1 picture is cut short", "{} pictures are cut short: an upload or a download broke off"),
    "empty": ("1 file is empty", "{} files are empty"),
    "corrupt": ("1 picture is broken", "{} pictures are broken"),
    "unknown": ("1 file is no picture", "{} files are no JPEG, PNG, WebP or BMP pictures, whatever their names say"),
    "bomb": ("1 picture has too many pixels to decode safely", "{} pictures have too many pixels to decode safely"),
    "large": ("1 file is too large for a picture", "{} files are too large for pictures"),
    "unreadable": ("1 file cannot be read", "{} files cannot be read: check their owner and permissions"),
}


def look(case: Case) -> Iterator[Finding]:
    for fault, (one, many) in _KINDS.items():
        where = [(p.name, p.facts.problem) for p in case.pictures if p.facts.fault == fault]
        yield from about(where, len(case.pictures), one, many, "error", None if fault == "unreadable" else _FIX)
