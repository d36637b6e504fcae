"""How every benchmark prints and keeps what it measured. Used by the scripts of this folder.

The last line for each headline number is `figure NAME VALUE UNIT goal OP VALUE`; the exit status says whether all goals
were met. The result, with device and date, is kept as JSON.
"""

from __future__ import annotations

import datetime
import json
import operator
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
MET, MISSED, NOT_RUN = 0, 1, 3  # exit statuses; a benchmark that could not run has not passed

_HOLDS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Figure:
    """One headline number; without a goal it is only reported."""

    name: str
    value: float
    unit: str
    compare: str | None = None
    goal: float | None = None

    @property
    def met(self) -> bool:
        """Whether the goal is reached; NaN never is."""
        if self.compare is None or self.goal is None:
            return True
        return _HOLDS[self.compare](self.value, self.goal)

    def line(self) -> str:
        goal = "" if self.compare is None else f" goal {self.compare} {self.goal:g}"
        return f"figure {self.name} {self.value:.6g} {self.unit}{goal}"


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as aligned text, columns in the order of their first appearance; floats with four digits."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join(lines)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)


def machine() -> dict[str, Any]:
    """What the figures were measured on: processor or GPU, its driver, torch. Imports torch only where it is there."""
    described: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    try:
        import torch
    except ImportError:
        return described
    described |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        described |= {
            "gpu": properties.name,
            "gpu_gib": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return described


def finish(
    name: str, figures: Sequence[Figure], rows: Sequence[Mapping[str, object]], *, out: Path | None, **details: Any
) -> int:
    """Print the table and the figures, write the result where `out` names a file, and return the exit status."""
    result = {
        "benchmark": name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **details,
        "figures": [asdict(figure) | {"met": figure.met} for figure in figures],
        "rows": list(rows),
    }
    if rows:
        print(table(rows))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside = out.with_name(f".{out.name}.part")
        beside.write_text(json.dumps(result, indent=1) + "\n")
        beside.replace(out)
        print(f"result  {out}")
    for figure in figures:
        print(figure.line())
    return MET if all(figure.met for figure in figures) else MISSED


def default_out(name: str) -> Path:
    """results/NAME-DEVICE-DATE.json: results of several devices and days stand side by side."""
    known = machine()
    device = str(known.get("gpu") or f"cpu-{known['cores']}-cores").lower().replace(" ", "-").replace("/", "-")
    return RESULTS / f"{name}-{device}-{datetime.date.today().isoformat()}.json"
