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
    """How alike each picture of the group likeness is to the dataset, part by part.

    Parts are the patches of a vision transformer. How well a picture fits the dataset is the mean over its own parts
    of the cosine with the most similar part of any dataset picture, plus the mean over the dataset's parts of the
    cosine with the most similar one in the picture: the first falls where there is anything strange, the second where
    anything is missing. 0 is what the base's pictures of the same prompts have, without the trigger, 1 what each
    picture of the dataset has against the others; a copy has more.

    One vector for a whole picture would be cheaper, but off the ground that its model knows it is fooled: noise comes
    out nearer to the dataset than a clean picture of the wrong thing.
    """
    embedder = bench.embedders.get(kind)

    def known() -> tuple[NDArray[np.float32], float, float]:
        trained = embedder.parts([one.image for one in bench.dataset])
        base = [fit(parts, trained) for parts in embedder.parts([p.image for p in bench.painted_by_base("likeness")])]
        count = len(trained)
        others = [fit(trained[one], np.delete(trained, one, axis=0)) for one in range(count)] if count > 1 else [2.0]
        return trained, float(np.mean(base)), float(np.mean(others))

    trained, zero, one = bench.once(("parts", kind), known)
    chosen = bench.of(pictures, "likeness")
    fits = [fit(parts, trained) for parts in embedder.parts([picture.image for picture in chosen])]
    return readings(chosen, (np.array(fits) - zero) / max(one - zero, 1e-3))


def fit(parts: NDArray[np.float32], dataset: NDArray[np.float32]) -> float:
    """parts [n, width] of a picture, dataset [pictures, m, width], unit vectors -> at most 2, for a copy."""
    cosines = parts @ dataset.reshape(-1, dataset.shape[-1]).T
    return float(cosines.max(1).mean() + cosines.max(0).mean())


def identity(kind: Kind, pictures: list[Picture], bench: Bench) -> Measured:
    """Likeness by one vector a picture, for models whose vectors are made to be compared (faces): the mean cosine with
    the dataset's, 0 for the base's pictures, 1 for each of the dataset's with the others."""
    embedder = bench.embedders.get(kind)

    def known() -> tuple[Vectors, float, float]:
        trained = seen(embedder, bench.dataset)
        count = len(trained)
        within = (float((trained @ trained.T).sum()) - count) / max(count * (count - 1), 1) if count > 1 else 1.0
        return trained, float((seen(embedder, bench.painted_by_base("likeness")) @ trained.T).mean()), within

    trained, zero, one = bench.once(("identity", kind), known)
    chosen = bench.of(pictures, "likeness")
    return readings(chosen, ((seen(embedder, chosen) @ trained.T).mean(1) - zero) / max(one - zero, 1e-3))


def readings(pictures: Sequence[Picture], values: Sequence[float] | NDArray[np.floating]) -> Measured:
    """One reading for each picture."""
    return Measured([Reading(one.prompt, one.seed, float(value)) for one, value in zip(pictures, values, strict=True)])
