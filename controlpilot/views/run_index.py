"""What the list of runs needs of each run folder, kept so that 2,000 runs cost a look at each folder and no more.

A folder's own mtime changes whenever a file in it is replaced (job.json, meta.json, state.json, run.N.toml), so that
one stat tells whether a row still holds. The index is a cache: `cache/panel/runs.json` may be deleted at any time.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from trainpilot.runs.atomic import read_json, write_beside
from trainpilot.runs.job import Job
from trainpilot.runs.process import Identity
from trainpilot.runs.rundir import configurations
from trainpilot.runs.state import read_state
from trainpilot.workspace import Workspace

log = logging.getLogger(__name__)

SCHEMA = 1
BUDGET = 0.15  # seconds one look spends on rows that are not known yet; the others follow with the next look
SETTLE = 2.0  # seconds after a change in which a second one may carry the same time
SAVE_GAP = 30.0  # seconds between two writes of the cache
_TAIL = 96 << 10  # bytes of the events in which the last step is looked for


@dataclass
class Row:
    """One run as the list shows it. Times are unix seconds; loss is the last one told, averaged where that is told."""

    name: str
    changed: int = 0  # mtime of the folder, nanoseconds; 0: read it again at every look
    status: str = "new"
    reason: str = ""
    process: dict[str, Any] | None = None
    device: str | None = None
    by: str = ""
    attempts: int = 0
    times: dict[str, float] = field(default_factory=dict)
    made: float = 0.0
    profile: str = ""
    family: str = ""
    base: str = ""
    datasets: list[str] = field(default_factory=list)
    rank: int | None = None
    step: int | None = None
    steps: int | None = None
    phase: str = ""
    eta: float | None = None
    loss: float | None = None
    result: bool = False
    title: str = ""
    star: bool = False
    tags: list[str] = field(default_factory=list)

    @property
    def view(self) -> str:
        """The status as it is at this moment: "interrupted" where it says running and no such process lives."""
        return "interrupted" if self.status == "running" and not self.live else self.status

    @property
    def live(self) -> bool:
        """Whether the process that job.json names runs at this moment, on this machine."""
        process = Identity.parse(self.process) if self.status in ("running", "queued") else None
        return process is not None and process.alive()

    @property
    def when(self) -> float:
        """By what the list is sorted: the last thing a person would remember of it."""
        return max([self.made, *self.times.values()])


class RunIndex:
    """Rows of all runs of a workspace; one for each workspace and process."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.path = workspace.cache / "panel" / "runs.json"
        self._rows: dict[str, Row] | None = None
        self._lock = threading.Lock()
        self._saved = float("-inf")
        self._changed = False

    def rows(self, budget: float | None = None) -> tuple[list[Row], int]:
        """All rows known now, and how many folders have not been read for want of time."""
        with self._lock:
            known = self._load() if self._rows is None else self._rows
            rows: dict[str, Row] = {}
            left: list[tuple[int, str]] = []
            for name, changed in _folders(self.workspace):
                row = known.get(name)
                if row is not None and row.changed == changed:
                    rows[name] = row
                else:
                    left.append((changed, name))
            end = time.monotonic() + (BUDGET if budget is None else budget)
            missing = 0
            for changed, name in sorted(left, reverse=True):  # what changed last is what a person looks for
                path = self.workspace.outputs / name
                if not (path / "run.toml").is_file():
                    continue
                if time.monotonic() > end and rows:
                    missing += 1
                    if name in known:
                        rows[name] = known[name]
                    continue
                row = read_row(path)
                settled = row.status in ("done", "failed", "stopped") and time.time() - changed / 1e9 > SETTLE
                row.changed = changed if settled else 0
                rows[name] = row
                self._changed |= settled
            self._changed |= len(rows) < len(known)
            self._rows = rows
            if self._changed and not missing and time.monotonic() - self._saved > SAVE_GAP:
                self._save()
            return list(rows.values()), missing

    def _load(self) -> dict[str, Row]:
        """The cache, or nothing where there is none, or one of another schema, or a damaged one."""
        value = read_json(self.path)
        if value is None or value.get("schema") != SCHEMA or not isinstance(value.get("rows"), list):
            return {}
        names = {one.name for one in fields(Row)}
        try:
            rows = [Row(**{key: part for key, part in row.items() if key in names}) for row in value["rows"]]
        except (TypeError, AttributeError):
            return {}
        return {row.name: row for row in rows}

    def _save(self) -> None:
        self._saved, self._changed = time.monotonic(), False
        rows = [asdict(row) for row in (self._rows or {}).values() if row.changed]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_beside(self.path, json.dumps({"schema": SCHEMA, "rows": rows}).encode(), durable=False)
        except OSError as error:
            log.warning("the index of runs is not kept, a restart reads all run folders again: %s", error)


_INDEXES: dict[Path, RunIndex] = {}
_INDEXES_LOCK = threading.Lock()


def index(workspace: Workspace) -> RunIndex:
    """The index of a workspace; made at the first call."""
    with _INDEXES_LOCK:
        return _INDEXES.setdefault(workspace.root, RunIndex(workspace))


def read_row(path: Path) -> Row:
    """A run folder's row, read from its files. Damaged files leave their part of it empty."""
    row = Row(path.name, made=_made(path))
    job = Job.read(path)
    if job is not None:
        row.status, row.reason, row.device, row.by = job.status, job.reason, job.device, job.by
        row.attempts, row.times = job.attempts, job.times
        row.process = job.process.as_dict() if job.process else None
    _configuration(path, row)
    _progress(path, row)
    about_people(path, row)
    row.result = (path / f"{path.name}.safetensors").is_file()
    return row


def about_people(path: Path, row: Row) -> None:
    """What people added: title, star, tags."""
    meta = read_json(path / "meta.json") or {}
    row.title, row.star = str(meta.get("title") or ""), meta.get("star") is True
    tags = meta.get("tags")
    row.tags = [str(tag) for tag in tags] if isinstance(tags, list) else []


def last_step(path: Path) -> dict[str, Any] | None:
    """The last step event of an events file, from its end; None where there is none within reach."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            data = file.read(_TAIL)
    except FileNotFoundError:
        return None
    for line in reversed(data.split(b"\n")):
        if b'"step"' in line:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and event.get("kind") == "step":
                return event
    return None


def _folders(workspace: Workspace) -> Iterator[tuple[str, int]]:
    """Name and mtime of every folder in outputs/; whether it is a run shows when it is read."""
    try:
        with os.scandir(workspace.outputs) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                    yield entry.name, entry.stat().st_mtime_ns
    except FileNotFoundError:
        return


def _made(path: Path) -> float:
    try:
        return (path / "run.toml").stat().st_mtime
    except OSError:
        return 0.0


def _configuration(path: Path, row: Row) -> None:
    found = configurations(path)
    if not found:
        return
    try:
        # The sources stand at the end, take half of the file, and are not shown here.
        tables = tomllib.loads(found[-1].read_text(encoding="utf-8").partition("\n[sources]")[0])
    except (OSError, ValueError) as error:
        row.reason = row.reason or f"{found[-1].name} cannot be read: {error}"
        return

    def table(name: str) -> dict[str, Any]:
        value = tables.get(name)
        return value if isinstance(value, dict) else {}

    row.profile, row.family = str(tables.get("profile") or ""), str(table("model").get("family") or "")
    row.base = Path(str(table("model").get("base") or "")).name
    datasets = tables.get("datasets")
    if isinstance(datasets, list):
        row.datasets = [Path(str(one.get("path") or "")).name for one in datasets if isinstance(one, dict)]
    rank, steps = table("network").get("rank"), table("training").get("steps")
    row.rank = rank if isinstance(rank, int) else None
    row.steps = steps if isinstance(steps, int) else None


def _progress(path: Path, row: Row) -> None:
    state = read_state(path / "state.json") or {}
    row.phase = str(state.get("phase") or "")
    loss = state.get("loss")
    if row.phase == "train":
        row.step, row.steps = _whole(state.get("step")), _whole(state.get("of")) or row.steps
        eta = state.get("eta")
        row.eta = float(eta) if isinstance(eta, (int, float)) else None
    if row.phase != "train" or not isinstance(loss, (int, float)):
        event = last_step(path / "events.jsonl") or {}
        row.step = _whole(event.get("step")) or row.step
        loss = event.get("loss_avg", event.get("loss"))
    row.loss = float(loss) if isinstance(loss, (int, float)) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
