"""What was encoded once and is looked up at every draw: latents by picture, conditioning by caption.

A part that changes from draw to draw is not here, and the lookups say so with None. Used by the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from trainpilot.datasets.table import Sample
from trainpilot.engine.cache import Cache
from trainpilot.engine.encode import LatentIndex, TextIndex
from trainpilot.families.protocol import Conditioning

RESIDENT_BYTES = 2 * 10**9  # entries kept in memory, so that a small dataset is read from the disk once


@dataclass
class Encoded:
    """The cached part of a run's inputs. latents or text is None where it has to be encoded while training."""

    cache: Cache
    latents: LatentIndex | None
    text: TextIndex | None
    _resident: dict[object, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    _bytes: int = 0
    _guard: Lock = field(default_factory=Lock, repr=False)

    def moments(self, sample: Sample, flip: bool) -> Tensor | None:
        """[2C,h,w] of a picture, or None."""
        index = self.latents
        if index is None:
            return None
        place = (sample.index, flip)
        found = self._resident.get(place)
        if found is None:
            found = self._keep(place, {"moments": index.read(self.cache, sample.index, flip)})
        return found["moments"]

    def conditioning(self, captions: Sequence[str]) -> Conditioning | None:
        """The captions' conditioning, batched, or None."""
        index = self.text
        if index is None:
            return None
        rows = [
            self._resident.get(caption) or self._keep(caption, index.read(self.cache, caption)) for caption in captions
        ]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def _keep(self, place: object, entry: dict[str, Tensor]) -> dict[str, Tensor]:
        size = sum(tensor.numel() * tensor.element_size() for tensor in entry.values())
        with self._guard:
            if self._bytes + size <= RESIDENT_BYTES:
                self._resident[place] = entry
                self._bytes += size
        return entry
