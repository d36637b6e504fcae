"""LoRA files merged into their base model for good: W + s (W' - W), file by file, tensor by tensor.

Used by `trainpilot merge --base`. The result is what `trainpilot sample` and ComfyUI compute with the LoRA at strength
s. diffusers scales a DoRA inside its norm instead: the two agree at strengths 0 and 1 and, for every other kind of
adapter, at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainpilot.errors import PilotError, RunFailed
from trainpilot.formats import load
from trainpilot.formats.base_files import WeightFile, bare, weight_files
from trainpilot.formats.derived import free
from trainpilot.formats.effect import applied
from trainpilot.formats.hashes import sha256
from trainpilot.formats.rewrite import rewrite
from trainpilot.formats.state import ModuleWeights
from trainpilot.models.detect import Base
from trainpilot.runs.atomic import sync_folder

MERGED = "trainpilot_merged"  # metadata of the changed files: which LoRAs, at which strengths
# What a diffusers folder is made of, as far as it is read; other formats of the same weights would be left unchanged.
_COPIED = (".json", ".txt", ".model", ".md")
_OTHER = "Choose the base model that the LoRA was made for."
# What a file of a model says of its own bytes.
_OF_THE_BYTES = ("modelspec.hash_sha256", "sshs_model_hash", "sshs_legacy_hash")


@dataclass
class Merged:
    """What was written. modules: how many were changed, by component. largest_change: max |W' - W|; rounding: the
    largest difference between an exact new weight and the saved one; lost: modules whose change is everywhere smaller
    than the rounding of the base's number format."""

    target: Path
    files: int = 0
    modules: dict[str, int] = field(default_factory=dict)
    dtypes: list[str] = field(default_factory=list)
    largest_change: float = 0.0
    rounding: float = 0.0
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return self.__dict__ | {"target": str(self.target)}

    def text(self) -> str:
        count = ", ".join(f"{number} in {component}" for component, number in self.modules.items())
        lines = [
            f"{self.target}",
            f"  changed   {count} modules, in {self.files} files; computed in fp32, saved as {', '.join(self.dtypes)}",
            f"  largest   change of a weight {self.largest_change:.3e}",
            f"  rounding  at most {self.rounding:.3e} between an exact new weight and the saved one",
        ]
        if self.lost:
            lines.append(
                f"  lost      the change of {len(self.lost)} modules is below the rounding: {self.lost[0]} ..."
            )
        return "\n".join(lines + [f"  note      {note}" for note in self.notes])


def into_base(
    base: Base,
    loras: Sequence[tuple[Path, float]],
    target: Path,
    check: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> Merged:
    """Write the base with the LoRAs merged in, each at its strength and one after the other, to `target`.

    A folder becomes a folder and a single file a single file (with its `.parts` folder, where it has one); every tensor
    keeps its dtype. LoRA, DoRA, LoHa and LoKr. One tensor is in memory at a time, beside the LoRAs. Raises PilotError
    where a LoRA does not fit the base or `target` exists, RunFailed where the disk is too small.
    """
    free(target)
    if base.path.is_file():
        free(target.with_suffix(".parts"))
    if base.path.is_file() and target.suffix != ".safetensors":
        raise PilotError("--out", target, "a .safetensors file, as the base is one", "Name the file to write.")
    wanted = _wanted(base, loras)
    files = weight_files(base)
    present = {(o.component, o.module) for file in files for owners in file.owners.values() for o in owners}
    absent = [f"{component}.{module}" for component, module in wanted if (component, module) not in present]
    if absent:
        given = f"{len(absent)} modules that the base does not have, {absent[0]} first"
        raise PilotError(loras[0][0], given, "modules of the base", _OTHER)
    _room(base, target)
    result = Merged(target)
    done: set[tuple[str, str]] = set()
    staged = target.with_name(f".{target.name}.writing-{os.getpid()}")
    beside = base.path.with_suffix(".parts") if base.path.is_file() else None
    try:
        staged.mkdir(parents=True)
        main = staged / target.name
        parts = staged / target.with_suffix(".parts").name
        record = _record(loras)
        with torch.no_grad():
            for file in files:
                say(f"{file.path.name}")
                place = _place(file.path, base, beside, main, parts)
                _write(file, place, wanted, record, result, done, check)
        _copy_rest(base.path if base.path.is_dir() else beside, main if base.path.is_dir() else parts, result, check)
        free(target)  # once more: a base takes minutes, and a rename would replace what has come meanwhile
        if parts.exists():
            parts.rename(target.with_suffix(".parts"))
        main.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return result


Wanted = dict[tuple[str, str], list[tuple[ModuleWeights, float]]]


def _wanted(base: Base, loras: Sequence[tuple[Path, float]]) -> Wanted:
    """(component, module) -> its adapters with their strengths, in order, in fp32."""
    wanted: Wanted = {}
    for path, strength in loras:
        content = load.read(path, base.family)
        for component, modules in content.state.items():
            for module, weights in modules.items():
                exact = {leaf: tensor.float() for leaf, tensor in weights.tensors.items()}
                own = ModuleWeights(weights.type, exact, weights.rank, weights.alpha)
                wanted.setdefault(bare(component, module), []).append((own, strength))
    return wanted


def _room(base: Base, target: Path) -> None:
    """RunFailed where the disk cannot hold the result."""
    files = [base.path] if base.path.is_file() else [path for path in base.path.rglob("*") if path.is_file()]
    needed = sum(path.stat().st_size for path in files)
    parent = next(folder for folder in target.absolute().parents if folder.is_dir())
    available = shutil.disk_usage(parent).free
    if available < needed:
        given = f"{available / 1e9:.1f} GB free"
        raise RunFailed(target, given, f"{needed / 1e9:.1f} GB", "Free some space, or write elsewhere.")


def _record(loras: Sequence[tuple[Path, float]]) -> str:
    files = [{"file": path.name, "sha256": sha256(path), "strength": strength} for path, strength in loras]
    return json.dumps(files, sort_keys=True)


def _place(path: Path, base: Base, beside: Path | None, main: Path, parts: Path) -> Path:
    if path == base.path:
        return main
    if beside is not None:
        return parts / path.relative_to(beside)
    return main / path.relative_to(base.path)


def _write(
    file: WeightFile,
    place: Path,
    wanted: Wanted,
    record: str,
    result: Merged,
    done: set[tuple[str, str]],
    check: Callable[[], None],
) -> None:
    changed = {
        name
        for name, owners in file.owners.items()
        if any((owner.component, owner.module) in wanted for owner in owners)
    }

    def change(name: str, tensor: Tensor) -> Tensor:
        # A copy also where it is fp32 already: the old weights are compared with the new ones.
        exact = tensor.to(torch.float64 if tensor.dtype is torch.float64 else torch.float32, copy=True)
        for owner in file.owners[name]:
            key = owner.component, owner.module
            for weights, strength in wanted.get(key, ()):
                before = owner.take(exact)
                owner.put(exact, _merged(before, weights, strength, ".".join(key)))
            if key in wanted and key not in done:
                done.add(key)
                result.modules[owner.component] = result.modules.get(owner.component, 0) + 1
                _measure(owner.take(tensor), owner.take(exact), ".".join(key), result)
        return exact

    metadata = {key: value for key, value in file.header.metadata.items() if key not in _OF_THE_BYTES}
    if changed:
        metadata[MERGED] = record
        result.files += 1
        found = {file.header.tensors[name].dtype.lower() for name in changed}
        result.dtypes = sorted(found | set(result.dtypes))
    rewrite(file.path, place, changed, change, metadata, check)


def _merged(before: Tensor, weights: ModuleWeights, strength: float, name: str) -> Tensor:
    try:
        return before + strength * (applied(before, weights) - before)
    except RuntimeError as error:
        given = f"does not fit a weight of {list(before.shape)}"
        raise PilotError(name, given, "an adapter of this base's size", _OTHER) from error


def _measure(before: Tensor, exact: Tensor, name: str, result: Merged) -> None:
    saved = exact.to(before.dtype)
    if not bool(torch.isfinite(saved).all()):
        given = f"a weight that {before.dtype} cannot hold (largest magnitude {float(exact.abs().max()):.3g})"
        raise PilotError(name, given, "finite weights", "Use a lower strength, or a base in fp32 or bf16.")
    change = float((exact - before).abs().max())
    result.largest_change = max(result.largest_change, change)
    result.rounding = max(result.rounding, float((saved - exact).abs().max()))
    if change and torch.equal(saved, before):
        result.lost.append(name)


def _copy_rest(source: Path | None, target: Path, result: Merged, check: Callable[[], None]) -> None:
    """What is no changed weight file: configurations, tokenizers, the VAE's weights."""
    if source is None or not source.is_dir():
        return
    left = []
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        if place.exists():
            continue
        check()
        if path.suffix in _COPIED or path.suffix == ".safetensors":
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
        elif not path.name.startswith("."):
            left.append(str(path.relative_to(source)))
    if left:
        result.notes.append(f"left out, not read here or unchanged weights in another format: {', '.join(left[:6])}")
