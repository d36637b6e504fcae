"""Checkpoints: everything an exact resume needs, written so that a kill at any moment loses nothing committed.

A checkpoint is a folder `step-00000500/`: `training.json` (readable: schema, step, schedules, the optimizer's
structure), `state.safetensors` (adapter, average and optimizer in full precision), the LoRA file itself, and
`COMMITTED`, written last, with the SHA-256 of each of them (`sha256sum -c COMMITTED` reads it too). The folder is made
under another name, synced, then renamed; the old ones go only after.
The random state is not stored because there is none: every draw is a function of the seed and the step.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainpilot.engine.nested import flatten, unflatten
from trainpilot.errors import PilotError, RunFailed

SCHEMA = 2  # 1 had no checksums
MARKER = "COMMITTED"
_TEMPORARY = ".writing-"
_LEAVING = ".leaving-"
_ASIDE = "bad-"


class Damaged(PilotError):
    """A committed checkpoint that cannot be used: unreadable, changed since it was written, or not finite."""


@dataclass
class Snapshot:
    """The state of training after `step` completed updates."""

    step: int
    adapter: dict[str, Tensor]
    average: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    scaler: dict[str, Any]
    rate_factor: float  # lowered by a rollback
    rollbacks: int
    clock: dict[str, float]  # seconds trained so far and the like; no influence on the weights


def folder_name(step: int) -> str:
    return f"step-{step:08d}"


def committed(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. Folders that were being written or removed do not count."""
    found = [path for path in folder.glob("step-*") if (path / MARKER).is_file()]
    return sorted(found, key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(folder: Path, snapshot: Snapshot, write_lora: Callable[[Path], None], *, keep: int) -> Path:
    """Write a checkpoint of `snapshot`, then let the oldest go until `keep` are left (0 keeps all).

    write_lora is given the unfinished folder and puts the LoRA file there. Raises RunFailed where the disk is full,
    with the bytes needed and free; earlier checkpoints are untouched then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    target = folder / folder_name(snapshot.step)
    temporary = folder / f"{_TEMPORARY}{target.name}-{os.getpid()}"
    try:
        temporary.mkdir()
        _write(temporary, snapshot)
        write_lora(temporary)
        written = sorted(temporary.iterdir())
        for path in written:
            _sync(path)
        (temporary / MARKER).write_text("".join(f"{_sum(path)}  {path.name}\n" for path in written))
        _sync(temporary / MARKER)
        _sync(temporary)
        if target.exists():
            # A rolled-back run passes the same step again; the newer state replaces the older one.
            _remove(target)
        temporary.rename(target)
        _sync(folder)
    except BaseException as error:
        free = shutil.disk_usage(folder).free
        shutil.rmtree(temporary, ignore_errors=True)
        if _is_full(error):
            needed = sum(t.numel() * t.element_size() for t in snapshot.adapter.values()) * 4
            raise RunFailed(
                folder,
                f"the disk is full ({free / 1e6:.0f} MB free)",
                f"about {needed / 1e6:.0f} MB for a checkpoint",
                "Free some space, then resume the run: earlier checkpoints are untouched.",
            ) from error
        raise
    if keep:
        # Newer ones are there only where they were passed over: they must not push out what was gone back to.
        for old in [path for path in committed(folder) if _step(path) <= snapshot.step][:-keep]:
            _remove(old)
    return target


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(folder: Path, snapshot: Snapshot) -> None:
    tensors: dict[str, Tensor] = {}
    document = {
        "schema": SCHEMA,
        "step": snapshot.step,
        "rate_factor": snapshot.rate_factor,
        "rollbacks": snapshot.rollbacks,
        "clock": snapshot.clock,
        "optimizer": flatten(snapshot.optimizer, tensors, "optimizer"),
        "schedule": flatten(snapshot.schedule, tensors, "schedule"),
        "scaler": flatten(snapshot.scaler, tensors, "scaler"),
    }
    flat = {f"adapter/{name}": tensor for name, tensor in snapshot.adapter.items()}
    flat |= {f"average/{name}": tensor for name, tensor in (snapshot.average or {}).items()}
    # Clones: safetensors refuses views that share memory, which fused optimizers may keep.
    flat |= {name: tensor.clone() for name, tensor in tensors.items()}
    save_file({name: tensor.contiguous() for name, tensor in flat.items()}, folder / "state.safetensors")
    (folder / "training.json").write_text(json.dumps(document, indent=1) + "\n")


def _is_full(error: BaseException) -> bool:
    # safetensors tells the system's error number only in its text: "... (os error 28)".
    return any(
        getattr(error, "errno", None) == number or f"(os error {number})" in str(error)
        for number in (errno.ENOSPC, errno.EDQUOT)
    )


def _remove(path: Path) -> None:
    """Take a checkpoint away: first out of sight in one step, then from the disk."""
    leaving = path.with_name(f"{_LEAVING}{path.name}-{os.getpid()}")
    path.rename(leaving)
    shutil.rmtree(leaving)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half written or half removed."""
    for path in folder.iterdir():
        if path.name.startswith((_TEMPORARY, _LEAVING)):
            shutil.rmtree(path)


def load(path: Path, device: torch.device | str = "cpu") -> Snapshot:
    """Read a checkpoint. Raises Damaged where it cannot be used, PilotError where it is of a newer schema."""
    try:
        document = json.loads((path / "training.json").read_text())
        if document["schema"] > SCHEMA:
            raise PilotError(
                path,
                f"schema {document['schema']}",
                f"schema {SCHEMA} or older",
                "Update trainpilot to a newer version.",
            )
        if document["schema"] > 1:
            _compare_sums(path)
        tensors = load_file(path / "state.safetensors", device=str(device))
        _require_finite(tensors)
        return _snapshot(document, tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Damaged(
            path,
            f"cannot be used ({type(error).__name__}: {error})",
            "a complete checkpoint",
            "Resume from an earlier one, or restore it.",
        ) from error


def _compare_sums(folder: Path) -> None:
    """Raise ValueError where a file is not the one that was committed."""
    lines = (folder / MARKER).read_text().splitlines()
    if not lines:
        raise ValueError(f"{MARKER} is empty")
    for line in lines:
        expected, _, name = line.partition("  ")
        if _sum(folder / name) != expected:
            raise ValueError(f"{name} does not have the checksum that it was written with")


def _require_finite(tensors: dict[str, Tensor]) -> None:
    """Raise ValueError where a number is none: going on from it would only end in the same."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ValueError(f"{name} holds NaN or infinity")


def _snapshot(document: dict[str, Any], tensors: dict[str, Tensor]) -> Snapshot:
    average = {n.removeprefix("average/"): t for n, t in tensors.items() if n.startswith("average/")}
    return Snapshot(
        step=document["step"],
        adapter={n.removeprefix("adapter/"): t for n, t in tensors.items() if n.startswith("adapter/")},
        average=average or None,
        optimizer=unflatten(document["optimizer"], tensors),
        schedule=unflatten(document["schedule"], tensors),
        scaler=unflatten(document["scaler"], tensors),
        rate_factor=document["rate_factor"],
        rollbacks=document["rollbacks"],
        clock=document["clock"],
    )


def newest(
    folder: Path, device: torch.device | str = "cpu", *, before: int | None = None
) -> tuple[Snapshot, Path, list[str]] | None:
    """The newest committed checkpoint that can be used, and notes on newer ones that could not; None without any.

    before: only those of fewer steps are taken, because the state after so many is known to be bad. Raises PilotError
    where there are checkpoints and none can be used, or where one is of a newer schema: beginning again would end by
    replacing them.
    """
    notes: list[str] = []
    for path in reversed(committed(folder) if folder.is_dir() else []):
        if before is not None and _step(path) >= before:
            notes.append(f"checkpoint {path.name} was passed over: training from step {before} on went wrong")
            continue
        try:
            return load(path, device), path, notes
        except Damaged as error:
            notes.append(f"checkpoint {path.name} was passed over: {error.given}")
    if notes:
        raise PilotError(
            folder,
            "; ".join(notes),
            "one checkpoint that can be used",
            "Restore one, or move this folder away and resume: the run then begins again.",
        )
    return None


def set_aside(folder: Path, after: int) -> list[Path]:
    """Take the checkpoints of more than `after` steps out of the run's course, under names that tell; returns those.

    For a run that went back: resuming from one of them would lead to where it went wrong.
    """
    found = []
    for path in committed(folder):
        if _step(path) > after:
            aside = path.with_name(f"{_ASIDE}{path.name}")
            if aside.exists():
                _remove(aside)
            found.append(path.rename(aside))
    _sync(folder)
    return found
