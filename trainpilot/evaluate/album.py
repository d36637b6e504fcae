"""Painted pictures, kept by what they were made of: asking again for one that exists costs a look at the disk.

The key of a picture is the hash of everything that it depends on: the weights of the base model and of every LoRA, the
prompt and its options, the precision. Grids, evaluations and comparisons share one album, in `cache/pictures`, so that
a column added to a grid costs that column, and what a killed evaluation had painted counts. It may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trainpilot.config.prompts import Prompt
from trainpilot.datasets.hashes import Memo, file_hash
from trainpilot.models.detect import Base
from trainpilot.workspace import Workspace

PAINTER = 1  # raise it when the same order would give another picture
MAKING = "making"  # the PNG text entry that holds everything a picture depends on
_WEIGHTS = (".safetensors", ".json", ".txt", ".model")

Loras = tuple[tuple[Path, float], ...]


@dataclass(frozen=True)
class Order:
    """A picture to paint: a prompt with its seed, and LoRA files at their strengths; none is the base alone."""

    prompt: Prompt
    loras: Loras = ()

    def __post_init__(self) -> None:
        # At strength 0 a LoRA does nothing: both are the same picture.
        object.__setattr__(self, "loras", tuple(one for one in self.loras if one[1] != 0))


class Album:
    """The pictures of one base model, as one precision paints them.

    settings: what else a picture depends on, by name (clip_skip, the VAE, the number format ...).
    """

    def __init__(self, workspace: Workspace, base: Base, settings: dict[str, Any], check: Callable[[], object]) -> None:
        self.folder = workspace.cache / "pictures"
        self._memo = Memo.of(workspace.cache)
        self._check = check
        self._files: dict[Path, str] = {}
        self._shared = {"painter": PAINTER, "base": self.content(base.path), **settings}

    def content(self, path: Path) -> str:
        """SHA-256 of a file, or of the weights, configurations and vocabularies of a model's folder."""
        if path not in self._files:
            self._check()
            if path.is_dir():
                files = sorted(file for file in path.rglob("*") if file.suffix in _WEIGHTS and file.is_file())
                lines = [f"{file.relative_to(path)} {self.content(file)}\n" for file in files]
                self._files[path] = hashlib.sha256("".join(lines).encode()).hexdigest()
            else:
                self._files[path] = file_hash(path, self._memo)
        return self._files[path]

    def making(self, order: Order) -> str:
        """Everything that an order's picture depends on, as JSON in one line."""
        loras = [[self.content(path), strength] for path, strength in order.loras]
        return json.dumps({**self._shared, "loras": loras, **asdict(order.prompt)}, sort_keys=True)

    def place(self, making: str) -> Path:
        key = hashlib.sha256(making.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.png"

    def find(self, making: str) -> Image.Image | None:
        """The picture, where it was painted before. One that cannot be read is no picture: it is painted again."""
        try:
            with Image.open(self.place(making)) as found:
                found.load()
                same = found.text.get(MAKING) == making  # type: ignore[attr-defined]
                return found.convert("RGB") if same else None
        except (OSError, SyntaxError, ValueError):
            return None

    def keep(self, making: str, order: Order, image: Image.Image, lora: str) -> Path:
        """Write a picture, with its prompt and all it was made of in the PNG's text."""
        from trainpilot.engine.sampler import save_png

        return save_png(image, self.place(making), order.prompt, order.prompt.sampler, lora=lora, **{MAKING: making})


def put(source: Path, target: Path) -> None:
    """Another name for a picture, without a second copy where the file system can do that."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        os.link(source, beside)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, beside)
    beside.replace(target)
    beside.unlink(missing_ok=True)  # renaming one name of a file over another of the same leaves both (POSIX)
