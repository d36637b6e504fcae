"""LoRA files computed from others: what they have in common. Used by merging, resizing, extracting and `convert`.

Every result is written beside, read back, and compared with what it should be, so that the error that is told is that
of the file and holds its rounding too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from trainpilot.errors import PilotError
from trainpilot.formats import fusion, kohya, load, lowrank, peft
from trainpilot.formats.identify import Identified, Naming, identify
from trainpilot.formats.lowrank import Product
from trainpilot.formats.names import names
from trainpilot.formats.state import AdapterState, ModuleWeights
from trainpilot.formats.storage import DTYPES

Exact = dict[str, dict[str, Product]]  # component -> module -> the change it should make
_HEADER = {"f64": torch.float32, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# What describes the bytes or the naming of the old file, and is made anew for the new one.
OF_THE_FILE = (
    *("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256", "format"),
    *(kohya.PARTS_KEY, peft.CONFIG_KEY),
)


@dataclass(frozen=True)
class ModuleError:
    """One module: rank now, Frobenius norm of the change it should make, and of the difference from the file's."""

    module: str
    rank: int
    norm: float
    error: float

    @property
    def relative(self) -> float:
        return self.error / self.norm if self.norm else self.error


@dataclass
class Derived:
    """What was written, and how far it is from what it should be."""

    target: Identified
    modules: list[ModuleError]
    notes: list[str] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Frobenius norm of the difference over all modules."""
        return float(sum(m.error**2 for m in self.modules) ** 0.5)

    @property
    def norm(self) -> float:
        return float(sum(m.norm**2 for m in self.modules) ** 0.5)

    @property
    def relative(self) -> float:
        return self.error / self.norm if self.norm else self.error

    @property
    def worst(self) -> ModuleError:
        return max(self.modules, key=lambda module: module.relative)

    def as_dict(self) -> dict[str, Any]:
        return {
            "target": self.target.as_dict(),
            "error": self.error,
            "norm": self.norm,
            "relative_error": self.relative,
            "modules": [asdict(m) | {"relative_error": m.relative} for m in self.modules],
            "notes": self.notes,
        }

    def text(self, each: bool = False) -> str:
        """Several lines for a terminal; each: one more for every module."""
        ranks = self.target.ranks
        spread = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        what = f"{self.target.family} {self.target.kind}, {self.target.naming} naming, {self.target.dtype}"
        lines = [
            f"{self.target.path}",
            f"  what      {what}, {len(self.modules)} modules, {spread}, {self.target.size_bytes / 1e6:.1f} MB",
            f"  error     {self.relative:.3e} of the Frobenius norm ({self.error:.3e} of {self.norm:.3e})",
            f"  worst     {self.worst.relative:.3e} in {self.worst.module}",
        ]
        if each:
            lines += [f"  {m.relative:.3e}  rank {m.rank:<4} {m.module}" for m in self.modules]
        return "\n".join(lines + [f"  note      {note}" for note in self.notes])


def free(target: Path) -> None:
    """PilotError where there is something at `target` already."""
    if target.exists():
        raise PilotError(target, "exists already", "a new file", "Name another one with --out, or move this one away.")


def save_format(dtype: str, files: list[Identified]) -> torch.dtype:
    """The number format asked for; else that of the files, and of several the widest."""
    if dtype and dtype not in DTYPES:
        raise PilotError("--dtype", dtype, ", ".join(DTYPES), "Choose one of these.")
    if dtype:
        return DTYPES[dtype]
    found = {_HEADER.get(file.dtype, torch.float32) for file in files}
    return found.pop() if len(found) == 1 else torch.float32


def only_lora(path: Path, state: AdapterState, remedy: str) -> None:
    """PilotError, by name, for kinds whose change is no product of two thin matrices."""
    for component, modules in state.items():
        kind = kohya.kind(modules)
        if kind != "lora":
            raise PilotError(path, f"{kind} in {component}", "a plain LoRA", remedy)


def matrices(family: str, state: AdapterState) -> dict[str, dict[tuple[str, ...], ModuleWeights]]:
    """The adapter by the matrices that have a rank of their own: component -> modules -> weights.

    Mostly a module each. Modules of one matrix of the original model that share the one down weight, as files of
    trainers that know the original layout have them, are one matrix here: so they stay one in what is written.
    """
    table = names(family)
    found: dict[str, dict[tuple[str, ...], ModuleWeights]] = {}
    for component, modules in state.items():
        done: set[str] = set()
        own = found.setdefault(component, {})
        for module, weights in modules.items():
            if module in done:
                continue
            parts = table.place(component, module).parts
            members = [modules.get(part) for part in parts]
            if len(parts) > 1 and all(members) and fusion.share_down([m for m in members if m is not None]):
                own[parts], _ = fusion.merge(members, [m.tensors[kohya.UP].shape[0] for m in members if m is not None])
                done |= set(parts)
            else:
                own[(module,)] = weights
    return found


def apart(family: str, component: str, modules: tuple[str, ...], whole: ModuleWeights) -> dict[str, ModuleWeights]:
    """The inverse of `matrices` for one of them."""
    if len(modules) == 1:
        return {modules[0]: whole}
    table = names(family)
    rows = [table.rows(module, whole.tensors[kohya.DOWN].shape[1]) for module in modules]
    parts = fusion.separate(whole, rows, "shared", ", ".join(modules))
    return {module: part for module, part in zip(modules, parts, strict=True) if part is not None}


def write(
    target: Path,
    naming: Naming,
    family: str,
    exact: Exact,
    state: AdapterState,
    metadata: Mapping[str, str],
    dtype: torch.dtype,
    notes: list[str],
) -> Derived:
    """Write `state`, read it again and compare it with `exact`."""
    kept = {key: value for key, value in metadata.items() if key not in OF_THE_FILE}
    writer = peft.write if naming == "peft" else kohya.write
    notes = notes + writer(target, family, state, kept, dtype)
    saved = load.read(target, family).state
    errors = []
    for component, modules in exact.items():
        for module, wanted in modules.items():
            own = saved[component][module]
            error = lowrank.distance(wanted, lowrank.product(own))
            errors.append(ModuleError(f"{component}.{module}", own.rank, wanted.norm(), error))
    return Derived(identify(target), errors, notes)


def common_alpha(state: dict[str, dict[tuple[str, ...], Product]]) -> float:
    """One alpha for all modules, the largest rank: some readers lose alphas that differ."""
    return float(max(product.rank for modules in state.values() for product in modules.values()))
