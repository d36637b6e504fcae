"""How well and how fast near-duplicates are found.

Draws 1,000 pictures, 100 of them altered copies (cropped by 5% of each side, resized, recompressed, mirrored, brighter
or darker: twenty of each), and 300 that are as alike as pictures of one sitting are: the same place and the same thing,
moved or turned. Precision and recall are of pairs. Then the search alone is timed on 10,000 pictures, and the
comparison of hashes up to 100,000, on random small pictures: their number decides, not what they show. Processor time
stands beside the clock's, which also counts what else the machine does. Reads no network, needs no torch.

    python benchmarks/duplicates.py [--write]
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _figures import RESULTS, Figure, finish
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from trainpilot.datasets import duplicates
from trainpilot.datasets.doctor.reading import read_all
from trainpilot.datasets.hashes import Memo

GOAL = 0.95
GOAL_SECONDS = 60.0  # for 10,000 pictures on two cores, after decoding
SIDE = 384
SITTING = 6  # pictures of one place
KINDS = ("crop", "resize", "recompress", "mirror", "brightness")


def ground(rng: np.random.Generator) -> Image.Image:
    """A cloudy ground with the spectrum of photographs (amplitude falls as 1 / frequency), in a few hues."""
    across, down = np.fft.rfftfreq(SIDE)[None], np.fft.fftfreq(SIDE)[:, None]
    fall = 1 / np.maximum(np.hypot(across, down), 1 / SIDE) ** rng.uniform(1.0, 1.5)
    layers = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * fall) for _ in range(2)]
    shades = rng.uniform(-1, 1, (2, 3)) + np.array([[1.0], [0.0]])
    mixed = sum(layer[..., None] / layer.std() * shade for layer, shade in zip(layers, shades, strict=True))
    return Image.fromarray(np.clip(mixed * 30 + rng.uniform(70, 180, 3), 0, 255).astype(np.uint8))


def scene(place: int, pose: int) -> Image.Image:
    """Picture `pose` of the place `place`: its ground and its thing, the thing where this pose has it."""
    rng = np.random.default_rng((place, 0))
    image = ground(rng)
    sides, hue, size = int(rng.integers(3, 8)), rng.integers(0, 256, 6), float(rng.uniform(0.12, 0.28))
    posed = np.random.default_rng((place, 1, pose))
    left, top = posed.uniform(0.25, 0.75, 2) * SIDE
    draw = ImageDraw.Draw(image)
    turn = float(posed.uniform(0, 360))
    draw.regular_polygon((left, top, size * SIDE), sides, turn, fill=tuple(int(c) for c in hue[:3]))
    draw.regular_polygon((left, top, size * SIDE * 0.5), sides + 1, turn, fill=tuple(int(c) for c in hue[3:]))
    return image


def altered(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """A copy of a picture, altered in one way."""
    width, height = image.size
    if kind == "crop":
        return image.crop((round(width * 0.05), round(height * 0.05), round(width * 0.95), round(height * 0.95)))
    if kind == "resize":
        return image.resize((round(width * rng.uniform(0.4, 0.8)), round(height * rng.uniform(0.4, 0.8))))
    if kind == "recompress":
        kept = io.BytesIO()
        image.save(kept, "JPEG", quality=int(rng.integers(15, 40)))
        return Image.open(kept)
    if kind == "mirror":
        return ImageOps.mirror(image)
    return ImageEnhance.Brightness(image).enhance(float(rng.choice([0.7, 0.8, 1.2, 1.3])))


def draw(folder: Path) -> tuple[list[Path], dict[tuple[int, int], str]]:
    """600 pictures of as many places, 300 of 50 places, 100 altered copies; and the pairs that are copies."""
    plans = [(place, 0) for place in range(600)]
    plans += [(place, pose) for place in range(600, 650) for pose in range(SITTING)]
    copies = {len(plans) + number: (number * 9, KINDS[number % len(KINDS)]) for number in range(100)}
    paths = [folder / f"{number:04d}.jpg" for number in range(len(plans) + len(copies))]

    def one(number: int) -> None:
        origin, kind = copies.get(number, (number, ""))
        image = scene(*plans[origin])
        if kind:
            image = altered(image, kind, np.random.default_rng((number, 2)))
        image.convert("RGB").save(paths[number], quality=90)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(len(paths))))
    return paths, {(origin, number): kind for number, (origin, kind) in copies.items()}


def timed(pictures: np.ndarray) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, and pairs found."""
    start, work = time.perf_counter(), time.process_time()
    found = duplicates.find(pictures)
    return time.perf_counter() - start, time.process_time() - work, len(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/duplicates_cpu.json")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="duplicates-") as name:
        paths, copies = draw(Path(name))
        with Memo.of(Path(name) / "cache") as memo:
            pictures = np.stack([facts.picture for facts in read_all(paths, memo)])
    seconds, work, _ = timed(pictures)
    found = {(pair.first, pair.second) for pair in duplicates.find(pictures)}
    right = found & copies.keys()
    for kind in KINDS:
        of = {pair for pair, how in copies.items() if how == kind}
        rows.append({"pictures": len(paths), "what": f"copies: {kind}", "of": len(of), "found": len(of & found)})
    rows.append({"pictures": len(paths), "what": "pairs that are no copies", "of": 0, "found": len(found - right)})
    rows.append({"pictures": len(paths), "what": "search", "seconds": seconds, "processor_s": work})
    for count in (10_000, 30_000, 100_000):
        many = np.random.default_rng(count).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        if count == 10_000:
            seconds, work, pairs = timed(many)
            rows.append({"pictures": count, "what": "search", "found": pairs, "seconds": seconds, "processor_s": work})
            ten = seconds
        hashes = duplicates.hashes(many)
        start, used = time.perf_counter(), time.process_time()
        close = len(duplicates.close_pairs(hashes))
        rows.append({"pictures": count, "what": "all hashes with all, once", "found": close,
                     "seconds": time.perf_counter() - start, "processor_s": time.process_time() - used})  # fmt: skip
    precision = len(right) / max(1, len(found))
    figures = [
        Figure("duplicates_precision", precision, "share", ">=", GOAL),
        Figure("duplicates_recall", len(right) / len(copies), "share", ">=", GOAL),
        Figure("duplicates_10k_s", ten, "s", "<=", GOAL_SECONDS),
    ]
    out = RESULTS / "duplicates_cpu.json" if given.write else None
    return finish("duplicates", figures, rows, out=out, load=os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
