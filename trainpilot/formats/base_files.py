"""The weight files of a base model, and which rows of which tensor are a module's: for both layouts, by file.

A diffusers folder names its modules itself. In a single file the original names are found by sending numbered rows
through the family's own reader (`families`' `originals`), so that reading and changing a file can never disagree:
fused query, key and value, halves that changed places, other names. Used by merging into a base and by extracting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainpilot.families.construction import configs
from trainpilot.families.loading import Original, Source
from trainpilot.families.registry import adapter
from trainpilot.formats.names import names
from trainpilot.formats.rewrite import read_tensor
from trainpilot.models.detect import Base
from trainpilot.models.safetensors_header import Header, read_header

_WRAPPER = "text_model."  # a level of CLIP's names that comes and goes with the version of transformers


@dataclass(frozen=True)
class Owner:
    """Whose rows of a tensor these are. rows: indices in the module's own order; None: all of them, in order."""

    component: str
    module: str
    rows: Tensor | None

    def take(self, tensor: Tensor) -> Tensor:
        """The module's weight."""
        return tensor if self.rows is None else tensor[self.rows]

    def put(self, tensor: Tensor, weight: Tensor) -> None:
        """Write the module's weight back into the tensor, in place."""
        if self.rows is None:
            tensor.copy_(weight)
        else:
            tensor[self.rows] = weight


@dataclass(frozen=True)
class WeightFile:
    """One file. owners: of each tensor that holds weights of modules, by the tensor's name in the file."""

    path: Path
    header: Header
    owners: dict[str, list[Owner]]


def bare(component: str, module: str) -> tuple[str, str]:
    """A module by a name that does not depend on the version of transformers."""
    return component, module.removeprefix(_WRAPPER) if component != "denoiser" else module


def weight_files(base: Base) -> list[WeightFile]:
    """All weight files of the parts that a LoRA can change, half-precision variants too. Only headers are read."""
    folders = names(base.family).PEFT
    if base.path.is_dir():
        return list(_in_folders(base.path, folders))
    own = _single_file(base, folders)
    beside = base.path.with_suffix(".parts")
    return [own, *_in_folders(beside, folders)] if beside.is_dir() else [own]


def _in_folders(root: Path, folders: Mapping[str, str]) -> Iterator[WeightFile]:
    for component, folder in folders.items():
        for path in sorted((root / folder).glob("*.safetensors")):
            header = read_header(path)
            owners = {
                name: [Owner(*bare(component, name.removesuffix(".weight")), None)]
                for name, entry in header.tensors.items()
                if name.endswith(".weight") and len(entry.shape) in (2, 4)
            }
            yield WeightFile(path, header, owners)


def _single_file(base: Base, folders: Mapping[str, str]) -> WeightFile:
    header = read_header(base.path)
    originals = adapter(base.family).originals(base.variant)
    source = Source(base.path, configs(base.family, base.variant), originals)
    owners: dict[str, list[Owner]] = {}
    for component, folder in folders.items():
        for name, owner in _followed(header, component, originals[folder], source.config(folder)):
            owners.setdefault(name, []).append(owner)
    return WeightFile(base.path, header, owners)


def _followed(
    header: Header, component: str, original: Original, config: dict[str, object]
) -> Iterator[tuple[str, Owner]]:
    """(tensor's name, owner): each row of each tensor gets a number, and the reader shows where it ends up."""
    prefix = next((p for p in original.prefixes if any(name.startswith(p) for name in header.tensors)), None)
    if prefix is None:
        return
    starts: list[tuple[int, str]] = []
    numbered: dict[str, Tensor] = {}
    first = 0
    for name, entry in header.tensors.items():
        if name.startswith(prefix):
            height = entry.shape[0] if entry.shape else 1
            ones = [1] * (len(entry.shape) - 1)
            numbered[name.removeprefix(prefix)] = torch.arange(first, first + height).reshape(height, *ones)
            starts.append((first, name))
            first += height
    edges = torch.tensor([start for start, _ in starts])
    for module, numbers in original.convert(numbered, config).items():
        # A matrix that is stored transposed has no rows of its own; no adapter of ours sits on one.
        if not module.endswith(".weight") or numbers.dim() not in (2, 4) or numbers.numel() != len(numbers):
            continue
        start, name = starts[int(torch.searchsorted(edges, numbers.reshape(-1)[0], right=True)) - 1]
        rows = numbers.reshape(-1) - start
        whole = torch.equal(rows, torch.arange(header.tensors[name].shape[0]))
        yield name, Owner(*bare(component, module.removesuffix(".weight")), None if whole else rows)


class Weights:
    """Reading a base model's module weights one at a time; of several variants of a file the plain one."""

    def __init__(self, base: Base) -> None:
        self._places: dict[tuple[str, str], tuple[WeightFile, str, Owner]] = {}
        # As the loaders choose: a folder beside a single file first, "model.safetensors" before "model.fp16...".
        for file in sorted(weight_files(base), key=lambda file: (file.path == base.path, len(file.path.name))):
            for name, owners in file.owners.items():
                for owner in owners:
                    self._places.setdefault((owner.component, owner.module), (file, name, owner))

    def modules(self) -> list[tuple[str, str]]:
        """(component, module) of all that can be read, by the names of `bare`."""
        return list(self._places)

    def read(self, component: str, module: str) -> Tensor:
        """A module's weight in its own dtype. KeyError for one that is not there."""
        file, name, owner = self._places[component, module]
        return owner.take(read_tensor(file.path, file.header, name))
