"""How many pictures a second the doctor reads, beside Pillow decoding the same files and doing nothing else.

Draws 1 Mpx JPEGs of quality 92 and reads them: Pillow alone in one thread, the doctor with one and with two threads,
and the doctor in two processes, which is the alternative to threads. Each is also given in processor time, because
the clock counts whatever else the machine does: two cores that are free read twice what a second of processor time
does. A second check, from the memo, is timed as well. Reads no network, needs no torch.

    python benchmarks/doctor.py [--images 120] [--write]
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.datasets.doctor.reading import read, read_all
from trainpilot.datasets.hashes import Memo

GOAL = 60.0  # pictures a second on two cores
SIDE = 1024
SETTLE = 2.1  # s until the memo believes a file's time stamp


def draw(folder: Path, count: int) -> list[Path]:
    """Pictures with the spectrum of photographs: cut from a few large ones, each at its own place."""
    across, down = np.fft.rfftfreq(SIDE * 2)[None], np.fft.fftfreq(SIDE * 2)[:, None]
    fall = 1 / np.maximum(np.hypot(across, down), 1 / SIDE)
    grounds = []
    for number in range(3):
        rng = np.random.default_rng(number)
        layers = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE * 2, SIDE * 2))) * fall) for _ in range(3)]
        tones = np.stack([layer / layer.std() * 40 + 128 for layer in layers], -1)
        grounds.append(Image.fromarray(np.clip(tones, 0, 255).astype(np.uint8)))
    paths = []
    for number in range(count):
        left, top = np.random.default_rng(number).integers(0, SIDE, 2).tolist()
        paths.append(folder / f"{number:04d}.jpg")
        grounds[number % 3].crop((left, top, left + SIDE, top + SIDE)).save(paths[-1], quality=92)
    return paths


def decoded(paths: list[Path]) -> None:
    """What any program must do at least."""
    for path in paths:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.load()


def in_processes(paths: list[Path]) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(read, paths, chunksize=8))


def measured(work: Callable[[], object], count: int) -> dict[str, float]:
    """Pictures a second by the clock, and milliseconds of processor time each, those of child processes too."""

    def used() -> float:
        every = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(one.ru_utime + one.ru_stime for one in every)

    start, before = time.perf_counter(), used()
    work()
    return {"images_s": count / (time.perf_counter() - start), "processor_ms_each": (used() - before) * 1e3 / count}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=120, help="pictures (default 120)")
    parser.add_argument("--write", action="store_true", help="write results/doctor_cpu.json")
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="doctor-") as name:
        folder = Path(name)
        paths = draw(folder, given.images)
        time.sleep(SETTLE)

        def doctor(memo: str, threads: int) -> None:
            with Memo(folder / memo) as opened:
                read_all(paths, opened, threads=threads)

        cases: dict[str, Callable[[], object]] = {
            "Pillow alone, one thread": partial(decoded, paths),
            "doctor, one thread": partial(doctor, "one.sqlite", 1),
            "doctor, two threads": partial(doctor, "two.sqlite", 2),
            "doctor, two processes": partial(in_processes, paths),
            "doctor again, from the memo": partial(doctor, "two.sqlite", 2),
        }
        for what, work in cases.items():
            rows.append({"what": what, "images": given.images, **measured(work, given.images)})
            print(rows[-1], flush=True)
    two = rows[2]
    # What two free cores would read: this machine may be busy with other things, and says so by its load.
    possible = 2000 / float(str(two["processor_ms_each"]))
    figures = [
        Figure("doctor_by_the_clock", float(str(two["images_s"])), "images/s"),
        Figure("doctor_two_free_cores", possible, "images/s", ">=", GOAL),
    ]
    out = RESULTS / "doctor_cpu.json" if given.write else None
    return finish("doctor", figures, rows, out=out, load=os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
