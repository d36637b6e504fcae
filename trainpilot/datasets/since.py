"""What changed in a run's data since it was recorded. Used by `trainpilot dataset fingerprint` and `changes`.

A run writes logs/<run>_dataset_hash.txt: the fingerprint of its data, then a line for each picture. The present state
is read with the run's own configuration, so that the same pictures are compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.table import Table, build
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

_ROW = re.compile(r"([0-9a-f]{64})  +(\d+)x  (.*)")
_WHOLE = re.compile(r"([0-9a-f]{64})  whole dataset")


@dataclass(frozen=True)
class Record:
    """The data of a run as it was. pictures: path -> (SHA-256, repeats)."""

    fingerprint: str
    pictures: dict[str, tuple[str, int]]


@dataclass
class Changes:
    """Paths, sorted. moved: new path of the same content by its old one; captions: some caption or mask changed, which
    is known of the whole only."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)
    repeats: dict[str, tuple[int, int]] = field(default_factory=dict)
    captions: bool = False

    @property
    def none(self) -> bool:
        return not (self.added or self.removed or self.replaced or self.moved or self.repeats or self.captions)


def recorded(workspace: Workspace, run: str) -> Record:
    """What a run recorded. PilotError where there is no such record, or it is damaged."""
    path = workspace.logs / f"{run}_dataset_hash.txt"
    try:
        head, *lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        known = sorted(one.name.removesuffix("_dataset_hash.txt") for one in workspace.logs.glob("*_dataset_hash.txt"))
        raise PilotError(
            "run", run, ", ".join(known) or "a run that has begun: none has", "Choose one of these."
        ) from problem
    except ValueError as problem:
        raise PilotError(path, "an empty file", "a record of a run", "Choose another run.") from problem
    whole = _WHOLE.fullmatch(head)
    rows = [_ROW.fullmatch(line) for line in lines if line]
    if whole is None or not all(rows):
        raise PilotError(path, "lines that no run wrote", "a record of a run", "Choose another run.")
    return Record(whole[1], {row[3]: (row[1], int(row[2])) for row in rows if row})


def table_of(path: Path, workspace: Workspace) -> Table:
    """The table of a dataset alone; its `fingerprint()` is what a run with nothing but this dataset records."""
    config = RunConfig.model_validate({"datasets": [{"path": str(path)}], "buckets": {"resolution": 1024, "step": 64}})
    return build(config, workspace)


def compare(before: Record, now: Table) -> Changes:
    """What is different now."""
    present = {str(sample.image): (sample.sha256, sample.repeats) for sample in now.samples}
    gone = sorted(before.pictures.keys() - present.keys())
    new = sorted(present.keys() - before.pictures.keys())
    changes = Changes()
    by_content = {present[path][0]: path for path in new}
    for path in gone:
        target = by_content.pop(before.pictures[path][0], None)
        if target is None:
            changes.removed.append(path)
        else:
            changes.moved[path] = target
            new.remove(target)
    changes.added = new
    for path in sorted(before.pictures.keys() & present.keys()):
        (old, times), (fresh, again) = before.pictures[path], present[path]
        if old != fresh:
            changes.replaced.append(path)
        if times != again:
            changes.repeats[path] = (times, again)
    changes.captions = changes.none and before.fingerprint != now.fingerprint()
    return changes
