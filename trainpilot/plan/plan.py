"""The plan of a run: every number that is known or estimated before it starts, and why. Made by `make`."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainpilot.errors import PilotError
from trainpilot.plan.caching import CacheSize
from trainpilot.plan.memory import MemoryEstimate
from trainpilot.plan.timing import Device
from trainpilot.plan.tokens import CaptionLengths
from trainpilot.workspace import Workspace

# Free space that is left alone, so that logs and other programs go on.
DISK_RESERVE = 200_000_000


@dataclass(frozen=True)
class Plan:
    """Counts are exact; vram, seconds and cost are estimates. Sizes in bytes, (width, height) in px.

    bucket_counts: pictures an epoch by bucket, repeats counted. checkpoints: steps. seconds and cost are None where
    nothing is known to estimate them from. reasons: automatic decisions; command: makes this very configuration again.
    """

    family: str
    base: str
    device: Device
    images: int
    datasets: list[dict[str, Any]]
    pictures_per_epoch: int
    bucket_counts: dict[tuple[int, int], int]
    batches_per_epoch: int
    steps: int
    epochs: float
    steps_per_epoch: int
    checkpoints: list[int]
    samples: int
    modules: int
    parameters: int
    file_bytes: int
    disk_bytes: int
    cache: CacheSize
    vram: MemoryEstimate | None
    seconds_per_step: float | None
    seconds: float | None
    cost: float | None
    captions: list[CaptionLengths]
    warnings: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    @property
    def cache_bytes(self) -> int:
        return self.cache.bytes

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a bucket is "512x768"."""
        given = asdict(self)
        given["bucket_counts"] = {f"{w}x{h}": count for (w, h), count in self.bucket_counts.items()}
        given["cache_bytes"] = self.cache_bytes
        given["vram"] = self.vram.as_dict() if self.vram else None
        return given

    def text(self, width: int = 100) -> str:
        """A layout for a terminal of `width` columns, without colour codes."""
        from trainpilot.plan.text import render

        return render(self, width)


def check(plan: Plan, workspace: Workspace) -> None:
    """Refuse what cannot end well: PilotError where disk space does not suffice, before anything is written."""
    needs: dict[int, tuple[Path, int]] = {}
    for path, size in ((workspace.outputs, plan.disk_bytes), (workspace.cache, plan.cache_bytes)):
        place = _existing(path)
        device = place.stat().st_dev
        needs[device] = (place, needs.get(device, (place, 0))[1] + size)
    for place, size in needs.values():
        free = shutil.disk_usage(place).free
        if size + DISK_RESERVE > free:
            raise PilotError(
                f"disk of {place}",
                f"{gigabytes(free)} free",
                f"{gigabytes(size + DISK_RESERVE)} for this run (checkpoints {gigabytes(plan.disk_bytes)}, "
                f"cache {gigabytes(plan.cache_bytes)}, reserve {gigabytes(DISK_RESERVE)})",
                "Free space, set saving.keep lower, or point PILOT_CACHE to another disk.",
            )


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())


def gigabytes(size: float) -> str:
    """Bytes for people: 1.2 GB, 34 MB, 5 kB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


def duration(seconds: float) -> str:
    """Seconds for people: 45 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
