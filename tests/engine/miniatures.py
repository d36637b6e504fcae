"""Tiny models for the tests of this folder: written once a session, loaded anew by each test that changes them."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from trainpilot.families.protocol import Parts
from trainpilot.families.registry import adapter

FAMILIES = ("sd15", "sdxl", "flux")
EVERYTHING = frozenset({"text", "vae", "denoiser"})


@lru_cache(maxsize=1)
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="miniatures-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@lru_cache(maxsize=8)
def tiny(family: str) -> Path:
    """The folder of a tiny model; tests leave it as it is."""
    return adapter(family).tiny(_folder() / family)


def load(family: str, dtype: torch.dtype = torch.float32) -> Parts:
    """All parts of a tiny model on the CPU."""
    return adapter(family).load(tiny(family), EVERYTHING, dtype=dtype, device="cpu")
