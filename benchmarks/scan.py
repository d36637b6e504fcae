"""How long a dataset's first scan takes and what it costs in memory, by number of pictures.

Makes small pictures of many shapes in a temporary folder; for 2,500, 5,000 and 10,000 of them a fresh process scans
(reading and decoding every picture), sorts into buckets, plans an epoch of batches, and scans a second time, as every
later start does. Growth is linear when processor time and memory a picture stay level: processor time, since the clock
also counts whatever else the machine does. The headline is the clock's. Reads no network, needs no torch.

    python benchmarks/scan.py [--images 10000] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.table import build
from trainpilot.workspace import Workspace

GOAL_MS = 2.0  # a picture, first scan of the largest set: 20 s for 10,000 before the first step
GROWTH = 1.5  # most by which a picture may cost more in the largest set than in the smallest
LONGEST, SHORTEST = 320, 128


def draw(root: Path, count: int) -> None:
    """JPEG, PNG and WebP pictures with captions: sides from 128 to 320 px, a smooth ground with a few blocks on it."""
    root.mkdir(parents=True)

    def one(number: int) -> None:
        rng = np.random.default_rng(number)
        width, height = (int(side) for side in rng.integers(SHORTEST, LONGEST + 1, 2))
        ground = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height), 3)
        for _ in range(3):
            left, top = int(rng.integers(width - 32)), int(rng.integers(height - 32))
            ground.paste(tuple(int(c) for c in rng.integers(0, 256, 3)), (left, top, left + 32, top + 32))
        ending = (".jpg", ".jpg", ".png", ".webp")[number % 4]
        ground.save(root / f"{number:06d}{ending}")
        (root / f"{number:06d}.txt").write_text(f"zorp, picture number {number}")

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count)))


def measure(root: Path, workspace: Path, count: int) -> dict[str, float]:
    """In this process: first scan, plan and second scan of `root`; seconds, and memory gained at the peak in bytes."""
    config = RunConfig.model_validate(
        {
            "datasets": [{"path": str(root), "captions": {"shuffle": True}}],
            "buckets": {"resolution": 256, "step": 32, "min_side": 64, "max_side": 512},
        }
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, work = time.perf_counter(), time.process_time()
    table = build(config, Workspace(workspace))
    first, first_cpu = time.perf_counter() - start, time.process_time() - work
    start = time.perf_counter()
    batches = table.batches(0, 42, 4)
    planned = time.perf_counter() - start
    start, work = time.perf_counter(), time.process_time()
    build(config, Workspace(workspace))
    again, again_cpu = time.perf_counter() - start, time.process_time() - work
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if len(table.samples) != count or len(batches) != table.batches_per_epoch(4):
        raise SystemExit(f"{len(table.samples)} of {count} pictures, {len(batches)} batches: the scan is wrong")
    return {
        "first_s": first,
        "first_cpu_s": first_cpu,
        "plan_s": planned,
        "again_s": again,
        "again_cpu_s": again_cpu,
        "peak_bytes": (peak - before) * 1024.0,
    }


def measured_apart(root: Path, workspace: Path, count: int) -> dict[str, float]:
    """`measure` in a process of its own, so that one size's peak memory does not hide another's."""
    command = [sys.executable, __file__, "--measure", str(root), str(workspace), str(count)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="largest number of pictures (default 10000)")
    parser.add_argument("--write", action="store_true", help="write results/scan_cpu.json")
    parser.add_argument("--measure", nargs=3, metavar=("ROOT", "WORKSPACE", "COUNT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        root, workspace, count = given.measure
        print(json.dumps(measure(Path(root), Path(workspace), int(count))))
        return 0
    rows = []
    with tempfile.TemporaryDirectory(prefix="scan-") as folder:
        for count in (given.images // 4, given.images // 2, given.images):
            place = Path(folder) / str(count)
            print(f"drawing {count:,} pictures", flush=True)
            draw(place / "pictures", count)
            time.sleep(2.1)  # the memo believes no file that was written less than two seconds ago
            found = measured_apart(place / "pictures", place / "workspace", count)
            rows.append(
                {
                    "images": count,
                    "first_s": found["first_s"],
                    "first_ms_each": found["first_s"] * 1e3 / count,
                    "first_cpu_ms_each": found["first_cpu_s"] * 1e3 / count,
                    "again_s": found["again_s"],
                    "again_ms_each": found["again_s"] * 1e3 / count,
                    "again_cpu_ms_each": found["again_cpu_s"] * 1e3 / count,
                    "plan_ms": found["plan_s"] * 1e3,
                    "peak_kib_each": found["peak_bytes"] / 1024 / count,
                }
            )
    small, large = rows[0], rows[-1]
    figures = [
        Figure(f"scan_growth_{what}", large[key] / small[key], f"x_from_{small['images']}", "<=", GROWTH)
        for what, key in (("first", "first_cpu_ms_each"), ("again", "again_cpu_ms_each"), ("memory", "peak_kib_each"))
    ]
    size = f"{given.images // 1000}k" if given.images % 1000 == 0 else str(given.images)
    figures.append(Figure(f"scan_{size}_ms_per_image", large["first_ms_each"], "ms", "<=", GOAL_MS))
    return finish("scan", figures, rows, out=RESULTS / "scan_cpu.json" if given.write else None, load=os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
