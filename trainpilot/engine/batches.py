"""From the table of samples to tensors: which images a step sees, and every random choice made for them.

Reading is done ahead by threads, not worker processes (a container's /dev/shm is often 64 MB). A batch is a pure
function of (seed, step, its place in the step), so reading ahead, resuming and the number of processes change nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from trainpilot.config.schema import Captions, RunConfig
from trainpilot.datasets import captions, images
from trainpilot.datasets.table import Sample, Table
from trainpilot.engine.encode import read_pixels
from trainpilot.engine.encoded import Encoded
from trainpilot.families.protocol import Conditioning
from trainpilot.randomness import draw_seed, stream

AHEAD = 4  # batches read before they are needed


@dataclass
class Batch:
    """One forward pass. B images of one size; tensors are on the CPU until the step moves them."""

    place: int  # which batch of the step this is, over all processes
    slots: list[int]  # sample slots of the step, over all processes
    of: int  # samples in the whole step
    moments: Tensor | None  # [B,2C,h,w] from the cache, or None: encode `pixels`
    pixels: Tensor | None  # [B,3,H,W] in -1..1
    conditioning: Conditioning | None  # from the cache, or None: encode `captions`
    captions: list[str]
    sizes: Tensor  # [B,6] original h,w; crop top,left; target h,w
    weights: Tensor  # [B] prior weight of regularisation images, else 1
    masks: Tensor | None  # [B,1,H,W] in 0..1
    level_draws: Tensor  # [B] uniform in 0..1
    noise_seeds: list[int]
    latent_seeds: list[int]

    def to(self, device: torch.device) -> Batch:
        """The same batch on the device, copied without waiting where memory is pinned."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=True)

        if device.type == "cpu":
            return self
        moved = Batch(**self.__dict__)
        for name in ("moments", "pixels", "sizes", "weights", "masks", "level_draws"):
            setattr(moved, name, move(getattr(self, name)))
        if self.conditioning is not None:
            moved.conditioning = {key: value.to(device, non_blocking=True) for key, value in self.conditioning.items()}
        return moved

    def split(self, pieces: int) -> list[Batch]:
        """The batch in so many parts, or fewer where it has fewer images; their losses add up to its loss.

        Only multi-resolution noise tells the difference: it is scaled by the deviation over a forward pass.
        """
        count = len(self.slots)
        if pieces == 1 or count == 1:
            return [self]
        size = -(-count // pieces)
        found = []
        for start in range(0, count, size):
            rows = slice(start, start + size)
            given: dict[str, Any] = {
                name: value[rows] if isinstance(value, (Tensor, list)) else value for name, value in vars(self).items()
            }
            if self.conditioning is not None:
                given["conditioning"] = {name: value[rows] for name, value in self.conditioning.items()}
            found.append(Batch(**given))
        return found


class Batches:
    """The batches of a run, by optimizer step.

    encoded holds what was cached (latents by sample, conditioning by caption); what it does not hold is read from the
    pictures, or left as captions for the step to encode.
    """

    def __init__(
        self, config: RunConfig, table: Table, encoded: Encoded, *, steps: int, rank: int = 0, world: int = 1
    ) -> None:
        self.config, self.table, self.encoded, self.steps = config, table, encoded, steps
        self.rank, self.world = rank, world
        self._per_step = config.training.gradient_accumulation * world
        self.steps_per_epoch = math.ceil(table.batches_per_epoch(config.training.batch_size) / self._per_step)
        self._epoch = lru_cache(maxsize=2)(self._epoch_batches)
        self._pin = torch.cuda.is_available()
        self._drawn = [_draws(dataset.captions) for dataset in config.datasets]

    def _epoch_batches(self, epoch: int) -> list[list[int]]:
        return self.table.batches(epoch, self.config.run.seed, self.config.training.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 0, that `step` (from 0) belongs to."""
        return step // self.steps_per_epoch

    def layout(self, step: int) -> list[tuple[int, list[int], int, int]]:
        """This process's batches of a step: (place, sample indices, first slot, samples in the step)."""
        everything = self._epoch(self.epoch_of(step))
        first = step % self.steps_per_epoch * self._per_step
        group = everything[first : first + self._per_step]
        starts = [0, *accumulate(len(indices) for indices in group)]
        return [(place, group[place], starts[place], starts[-1]) for place in range(self.rank, len(group), self.world)]

    def read(self, step: int, place: int, indices: list[int], first: int, of: int) -> Batch:
        """Make one batch: all draws, then the cached tensors or the pictures."""
        seed = self.config.run.seed
        slots = list(range(first, first + len(indices)))
        samples = [self.table.samples[index] for index in indices]
        flips = [self._flips(sample, step, slot) for sample, slot in zip(samples, slots, strict=True)]
        crops = [self._crop(sample, step, slot) for sample, slot in zip(samples, slots, strict=True)]
        texts = [self._caption(sample, step, slot) for sample, slot in zip(samples, slots, strict=True)]
        batch = Batch(
            place=place,
            slots=slots,
            of=of,
            moments=self._moments(samples, flips),
            pixels=None,
            conditioning=self.encoded.conditioning(texts),
            captions=texts,
            sizes=torch.tensor(
                [_told(s, crop, flip) for s, crop, flip in zip(samples, crops, flips, strict=True)], dtype=torch.float32
            ),
            weights=torch.tensor([self.config.loss.prior_weight if s.regularization else 1.0 for s in samples]),
            masks=self._masks(samples, crops, flips),
            level_draws=torch.tensor([float(stream(seed, "level", step, slot).random()) for slot in slots]),
            noise_seeds=[draw_seed(seed, "noise", step, slot) for slot in slots],
            latent_seeds=[draw_seed(seed, "latent", step, slot) for slot in slots],
        )
        if batch.moments is None:
            batch.pixels = torch.stack(
                [read_pixels(s, crop, flip) for s, crop, flip in zip(samples, crops, flips, strict=True)]
            )
        return self._pinned(batch) if self._pin else batch

    def _flips(self, sample: Sample, step: int, slot: int) -> bool:
        return self.config.datasets[sample.dataset].flip and bool(
            stream(self.config.run.seed, "flip", step, slot).random() < 0.5
        )

    def _crop(self, sample: Sample, step: int, slot: int) -> tuple[int, int]:
        if not self.config.datasets[sample.dataset].random_crop:
            return sample.crop
        draws = stream(self.config.run.seed, "crop", step, slot)
        across, down = sample.crop_room
        return int(draws.integers(0, across + 1)), int(draws.integers(0, down + 1))

    def _caption(self, sample: Sample, step: int, slot: int) -> str:
        rules = self.config.datasets[sample.dataset].captions
        if not self._drawn[sample.dataset]:
            return captions.fixed(sample.caption, rules)
        return captions.apply(
            sample.caption,
            rules,
            stream(self.config.run.seed, "caption", step, slot),
            step=step,
            total_steps=self.steps,
            epoch=self.epoch_of(step),
        )

    def _moments(self, samples: list[Sample], flips: list[bool]) -> Tensor | None:
        found = [self.encoded.moments(sample, flip) for sample, flip in zip(samples, flips, strict=True)]
        present = [moments for moments in found if moments is not None]
        return torch.stack(present) if len(present) == len(found) else None

    def _masks(self, samples: list[Sample], crops: list[tuple[int, int]], flips: list[bool]) -> Tensor | None:
        if all(sample.mask is None for sample in samples):
            return None
        masks = []
        for sample, crop, flip in zip(samples, crops, flips, strict=True):
            if sample.mask is None:
                masks.append(torch.ones(1, sample.bucket[1], sample.bucket[0]))
            else:
                masks.append(torch.from_numpy(images.prepare_mask(sample, crop, flip)).float().div(255)[None])
        return torch.stack(masks)

    @staticmethod
    def _pinned(batch: Batch) -> Batch:
        for name in ("moments", "pixels", "sizes", "weights", "masks", "level_draws"):
            tensor = getattr(batch, name)
            if tensor is not None:
                setattr(batch, name, tensor.pin_memory())
        if batch.conditioning is not None:
            batch.conditioning = {key: value.pin_memory() for key, value in batch.conditioning.items()}
        return batch

    def from_step(self, start: int) -> Reading:
        """(step, its batches) from `start` to the end of the run, read ahead."""
        return Reading(self, start)


class Reading:
    """An iterator over (step, its batches) that two threads read ahead of need; to be closed.

    The threads share Python's lock with the loop. They are woken by `ahead`, which the step calls when it is about to
    wait for the backward pass without that lock: woken between two steps, they cost the loop half a millisecond each.
    """

    def __init__(self, batches: Batches, start: int) -> None:
        self._read = batches.read
        self._work = ((step, batches.layout(step)) for step in range(start, batches.steps))
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="batches")
        self._waiting: deque[tuple[int, list[Future[Batch]]]] = deque()

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        return self

    def __next__(self) -> tuple[int, list[Batch]]:
        if not self._waiting:
            self.ahead()
        if not self._waiting:
            raise StopIteration
        step, futures = self._waiting.popleft()
        return step, [future.result() for future in futures]

    def ahead(self) -> None:
        """Have the next batches read, so that AHEAD of them are ready or under way."""
        while sum(len(futures) for _, futures in self._waiting) < AHEAD:
            following = next(self._work, None)
            if following is None:
                return
            step, parts = following
            self._waiting.append((step, [self._pool.submit(self._read, step, *part) for part in parts]))

    def close(self) -> None:
        """Let go of what nobody will ask for."""
        self._pool.shutdown(cancel_futures=True)


def _draws(rules: Captions) -> bool:
    """Whether a caption depends on anything but itself."""
    return bool(captions.is_dynamic(rules)) or rules.dropout_rate > 0 or rules.dropout_every_n_epochs > 0


def _told(sample: Sample, crop: tuple[int, int], flip: bool) -> tuple[float, ...]:
    """Original (h, w), crop (top, left), target (h, w)."""
    original, corner, target = sample.size_conditioning(crop, flip)
    return (*original, *corner, *target)
