"""Pictures and prompts as unit vectors, for the metrics that compare them. Everything is float32 numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainpilot.evaluate.embeddings import Embedder, Kind
from trainpilot.evaluate.interval import Reading
from trainpilot.evaluate.metrics import Bench, Measured, Picture

Vectors = NDArray[np.float32]


def seen(embedder: Embedder, pictures: Sequence[Picture]) -> Vectors:
    """[n, width]."""
    return embedder.pictures([(picture.key, picture.image) for picture in pictures])


def meant(embedder: Embedder, bench: Bench) -> Vectors:
    """[prompts, width]: what each prompt's picture should show, in words."""
    return bench.once(("texts", embedder.kind), lambda: embedder.texts([asked.means for asked in bench.asked]))


def likeness(kind: Kind, pictures: list[Picture], bench: Bench) -> Measured:
    """How far each picture of the group likeness is on the way from the base's pictures to the dataset's.

    With b the mean vector of the base's pictures of the same prompts without the trigger, d that of the dataset and
    w = d - b, a picture x is at (x - b).w / w.w: 0 where the base's lie on average, 1 where the dataset's do. What
    differs between two pictures but not between base and dataset (place, light, background) has no part in it.
    """
    embedder = bench.embedders.get(kind)

    def ends() -> tuple[Vectors, Vectors]:
        base = seen(embedder, bench.painted_by_base("likeness")).mean(0)
        return base, seen(embedder, bench.dataset).mean(0) - base

    base, way = bench.once(("way", kind), ends)
    chosen = bench.of(pictures, "likeness")
    shares = (seen(embedder, chosen) - base) @ way / max(float(way @ way), 1e-12)
    return readings(chosen, shares)


def readings(pictures: Sequence[Picture], values: Sequence[float] | NDArray[np.floating]) -> Measured:
    """One reading for each picture."""
    return Measured([Reading(one.prompt, one.seed, float(value)) for one, value in zip(pictures, values, strict=True)])
