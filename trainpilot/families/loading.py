"""Loads the components of a base model from a diffusers folder or a single file, without the network.

Shared by the families' `load`. A single file holds no configuration and no tokenizer: the family's `configs.json`
has the first; what else the file lacks is taken from a folder beside it, `<name>.parts/`, in diffusers layout.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainpilot.errors import PilotError
from trainpilot.families.construction import Configs, class_of, instance

log = logging.getLogger(__name__)
Tensors = dict[str, Tensor]
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class Original:
    """Where a component's weights are in a single file.

    prefixes: of the tensors' names, the first that occurs is taken. convert(tensors without the prefix,
    configuration) -> diffusers' or transformers' names.
    """

    prefixes: tuple[str, ...]
    convert: Callable[[Tensors, dict[str, Any]], Tensors]


class Source:
    """A base model on disk, whose components are loaded by diffusers' folder names.

    shipped: the configurations to use for a single file. originals: component -> where it is in a single file.
    """

    def __init__(self, path: Path, shipped: Configs, originals: Mapping[str, Original]) -> None:
        self.path = path
        self.is_file = path.is_file()
        self.folder = path.with_suffix(".parts") if self.is_file else path
        self._shipped = shipped
        self._originals = originals

    def config(self, name: str) -> dict[str, Any]:
        """A component's configuration; the scheduler's too."""
        file = self.folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
        if file.is_file():
            return json.loads(file.read_text(encoding="utf-8"))
        if self.is_file:
            return dict(self._shipped[name]["config"])
        raise PilotError(file, "is missing", "a complete diffusers folder", "Fetch the model again.")

    def has_tensor(self, name: str) -> bool:
        """Whether a single file holds a tensor of that name; some files are marked by one."""
        from safetensors import safe_open

        with readable(self.path), safe_open(self.path, framework="pt") as file:
            return name in set(file.keys())

    def module(self, name: str, dtype: torch.dtype, device: torch.device | str) -> nn.Module:
        """A component: frozen, in evaluation mode, in `dtype`, on `device`."""
        with readable(self.path):
            if (self.folder / name).is_dir() and has_weights(self.folder / name):
                loaded = from_folder(self.folder / name, self._class(name), dtype)
            elif self.is_file:
                loaded = self._from_file(name, dtype)
            else:
                allowed = "a component folder with .safetensors weights"
                raise PilotError(self.folder / name, "no weights there", allowed, "Fetch the model again.")
        return loaded.to(device).eval().requires_grad_(False)

    def tokenizer(self, name: str) -> Any:
        """A tokenizer: the model's own, or for a single file the one of the family's repository."""
        from transformers.utils import cached_file

        # transformers makes up an empty vocabulary where it finds none, so it is looked for first
        kind = self._class(name)
        own = self.folder / name
        if any((own / file).is_file() for file in VOCABULARIES):
            return kind.from_pretrained(own, local_files_only=True)
        if not self.is_file:
            raise PilotError(own, "no vocabulary there", ", ".join(VOCABULARIES), "Fetch the model again.")
        known = self._shipped[name]
        repository, inner = known["repository"], known.get("subfolder", "")
        quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        if not any(cached_file(repository, file, subfolder=inner, **quiet) for file in VOCABULARIES):
            raise PilotError(
                self.path,
                f"holds no tokenizer, and that of {repository} is not at hand",
                f"a folder {own}, or the repository in the Hugging Face cache",
                f"Copy the folder {name} of a diffusers version of this model to {own}.",
            )
        log.info("%s holds no tokenizer; that of %s is used", self.path.name, repository)
        return kind.from_pretrained(repository, subfolder=inner)

    def _class(self, name: str) -> Any:
        index = self.folder / "model_index.json"
        if not self.is_file and index.is_file():
            package, attribute = json.loads(index.read_text(encoding="utf-8"))[name]
            return class_of(f"{package}.{attribute}")
        return class_of(self._shipped[name]["class"])

    def _from_file(self, name: str, dtype: torch.dtype) -> nn.Module:
        original = self._originals[name]
        tensors = read_tensors(self.path, original.prefixes)
        if not tensors:
            raise PilotError(
                self.path,
                f"holds no {name}",
                f"a file with {' or '.join(repr(p) for p in original.prefixes)}, or a folder {self.folder / name}",
                f"Copy the folder {name} of a diffusers version of this model to {self.folder / name}.",
            )
        config = self.config(name)
        return assemble(self._class(name), config, original.convert(tensors, config), dtype, self.path)


def read_tensors(path: Path, prefixes: tuple[str, ...]) -> Tensors:
    """The tensors of a .safetensors file under the first prefix that occurs, without that prefix."""
    from safetensors import safe_open

    with safe_open(path, framework="pt", device="cpu") as file:
        names = list(file.keys())
        prefix = next((p for p in prefixes if any(n.startswith(p) for n in names)), None)
        if prefix is None:
            return {}
        return {n.removeprefix(prefix): file.get_tensor(n) for n in names if n.startswith(prefix)}


def assemble(kind: Any, config: dict[str, Any], tensors: Tensors, dtype: torch.dtype, path: Path) -> nn.Module:
    """An empty module of `kind` filled with tensors of its own names; every parameter must be there."""
    from accelerate import init_empty_weights

    config = {key: value for key, value in config.items() if not key.startswith("_")}
    with init_empty_weights(include_buffers=False):
        module: Any = instance(kind, config)
    exact = tuple(getattr(kind, "_keep_in_fp32_modules", None) or ()) if dtype is torch.float16 else ()
    kept = {
        name: tensor.to(torch.float32 if any(part in name.split(".") for part in exact) else dtype)
        for name, tensor in tensors.items()
    }
    with _shapes_agree(path, kind):
        module.load_state_dict(kept, strict=False, assign=True)
    if hasattr(module, "tie_weights"):
        module.tie_weights()
    absent = [name for name, parameter in module.named_parameters() if parameter.is_meta]
    if absent:
        raise PilotError(
            path,
            f"{len(absent)} weights of {kind.__name__} are missing, {absent[0]} first",
            "a complete model of this family",
            "Fetch the file again, or name its family with model.family.",
        )
    return module


@contextmanager
def _shapes_agree(path: Path, kind: Any) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        allowed = f"the shapes of {kind.__name__} in {path.with_suffix('.parts').name}/ or of the full-size model"
        raise PilotError(path, str(error).splitlines()[-1].strip(), allowed, "Use a base of this family.") from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn a library's complaint about a broken or pickled file into a PilotError."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, KeyError) as error:
        raise PilotError(
            path, f"cannot be loaded: {error}", "complete .safetensors weights", "Fetch the model again."
        ) from error


def has_weights(folder: Path) -> bool:
    """Whether a component's folder holds safetensors weights (or only the configuration for a single file)."""
    return any(folder.glob("*.safetensors"))


def from_folder(folder: Path, kind: Any, dtype: torch.dtype) -> nn.Module:
    """A component from its diffusers folder; half-size weights (`*.fp16.safetensors`) are used where only they are."""
    names = [p.name for p in folder.glob("*.safetensors")]
    variant = "fp16" if names and all(".fp16" in n for n in names) else None
    if variant:
        log.info("%s has fp16 weights only; they are widened to %s", folder, dtype)
    silence_progress_bars()
    # the two libraries name the option differently
    option = "dtype" if hasattr(kind, "config_class") else "torch_dtype"
    return kind.from_pretrained(folder, variant=variant, use_safetensors=True, local_files_only=True, **{option: dtype})


def silence_progress_bars() -> None:
    """A run shows one progress bar, its own: the libraries' would be written into its log, one for each component."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.disable_progress_bar()
    of_transformers.disable_progress_bar()


def vae_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> torch.dtype:
    """The VAE's number format: fp32 instead of fp16 where its activations overflow (`force_upcast`)."""
    if dtype is torch.float16 and config.get("force_upcast", True):
        log.info("the VAE runs in fp32: its activations overflow fp16")
        return torch.float32
    return dtype
