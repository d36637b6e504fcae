"""The plan as text for a terminal. Used by `trainpilot plan` and at the start of a run."""

from __future__ import annotations

import io
import shlex
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainpilot.plan.plan import duration, gigabytes

if TYPE_CHECKING:
    from trainpilot.plan.plan import Plan

_PARTS = {
    "base": "base weights",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "ema": "average",
    "activations": "activations",
    "encoders": "encoders kept",
    "context": "runtime",
}


def render(plan: Plan, width: int) -> str:
    """Sections of name and value, then warnings, reasons and the command."""
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, soft_wrap=False)
    for title, rows in _sections(plan):
        console.print(title)
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(min_width=16, no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            table.add_row(f"  {name}", Text(value))
        console.print(table)
    for title, lines in (("Warnings", plan.warnings), ("Why", plan.reasons)):
        if lines:
            console.print(title)
            table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for line in lines:
                table.add_row("  -", Text(line))
            console.print(table)
    text = str(console.file.getvalue())  # type: ignore[attr-defined]
    # The command is one line however long it is, so that it can be copied.
    return "\n".join(line.rstrip() for line in text.splitlines()) + f"\nCommand\n  {shlex.join(plan.command)}\n"


def _sections(plan: Plan) -> list[tuple[str, list[tuple[str, str]]]]:
    buckets = sorted(plan.bucket_counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{w}x{h} {count}" for (w, h), count in buckets[:8]) + (" ..." if len(buckets) > 8 else "")
    data = [
        (f"dataset {n}", f"{d['path']}: {d['images']} images, {d['pictures_per_epoch']} an epoch at {_size(d)}")
        for n, d in enumerate(plan.datasets)
    ]
    data += [
        ("images", f"{plan.images}, {plan.pictures_per_epoch} an epoch with repeats"),
        ("buckets", f"{len(buckets)}: {shown}"),
        ("batches", f"{plan.batches_per_epoch} an epoch"),
    ]
    data += [
        (f"tokens {c.encoder}", f"longest {c.longest}, mean {c.mean:.3g}, limit {c.limit}, longer {c.over}")
        for c in plan.captions
    ]
    run = [
        ("base model", f"{plan.base} ({plan.family})"),
        ("steps", f"{plan.steps}, {plan.steps_per_epoch} an epoch, {plan.epochs:.4g} epochs"),
        ("checkpoints", f"{len(plan.checkpoints)} at step {_few(plan.checkpoints)}"),
        ("samples", str(plan.samples)),
        ("adapter", f"{plan.modules} modules, {plan.parameters:,} numbers, file {gigabytes(plan.file_bytes)}"),
    ]
    needs = [
        ("disk", f"{gigabytes(plan.disk_bytes)} for checkpoints, result and samples"),
        (
            "cache",
            (
                f"{gigabytes(plan.cache_bytes)}: {plan.cache.latent_entries} pictures "
                f"{gigabytes(plan.cache.latent_bytes)}, {plan.cache.text_entries} captions "
                f"{gigabytes(plan.cache.text_bytes)}"
            ),
        ),
    ]
    if plan.vram:
        parts = plan.vram.as_dict()
        listed = ", ".join(f"{label} {gigabytes(parts[name])}" for name, label in _PARTS.items() if parts[name])
        memory = "VRAM" if plan.device.kind == "cuda" else "memory"
        needs.append((memory, f"about {gigabytes(plan.vram.total)}: {listed}"))
    if plan.seconds is not None and plan.seconds_per_step is not None:
        needs.append(("time", f"about {duration(plan.seconds)}, {plan.seconds_per_step:.3g} s a step"))
    if plan.cost is not None:
        needs.append(("cost", f"about {plan.cost:.2f} at the given price"))
    needs.append(("device", f"{plan.device.name}"))
    return [("Data", data), ("Run", run), ("Needs (estimates)", needs)]


def _size(dataset: dict[str, object]) -> str:
    sides = dataset["resolution"]
    return "x".join(map(str, sides)) if isinstance(sides, list) else str(sides)


def _few(steps: list[int]) -> str:
    return ", ".join(map(str, steps)) if len(steps) <= 6 else f"{', '.join(map(str, steps[:3]))} ... {steps[-1]}"
