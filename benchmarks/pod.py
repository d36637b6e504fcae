"""The pod's figures: seconds from `docker run` to a healthy panel, seconds of `docker stop` while it trains, sizes.

    python benchmarks/pod.py IMAGE [--boots 5] [--stops 10] [--out FILE]

Needs an engine (scripts/container/engine.sh), root (nsenter) and an image; starts and removes containers of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "container"))

from _figures import Figure, default_out, finish
from pods import TINY, Pod, docker, until  # type: ignore[import-not-found]  # of the container tests

MOST_BYTES = 6.5e9  # of the image core
BOOT_SECONDS, STOP_SECONDS = 5.0, 10.0


def boot(image: str) -> float:
    """Seconds from `docker run` to the first healthy answer, with no network: asked inside the container's own."""
    pod = Pod(image, ["--network", "none"])
    try:
        began = time.monotonic()
        pod.start()
        process = str(pod.inspect()["State"]["Pid"])
        ask = ["nsenter", "-t", process, "-n", "curl", "-sf", "--max-time", "2", "http://127.0.0.1:7878/healthz"]
        until(60, "a healthy panel", lambda: subprocess.run(ask, capture_output=True).returncode == 0, every=0.02)
        return time.monotonic() - began
    finally:
        pod.__exit__()


def stops(image: str, count: int) -> list[dict[str, Any]]:
    """`docker stop` while a run trains, and whether the next start goes on with it; the same run each time."""
    rows = []
    pod = Pod(image)
    try:
        pod.start().healthy()
        more = ("--set", "training.steps=1000000", "--set", "saving.every_steps=50", "--set", "saving.keep=2")
        pod.run("trainpilot", *TINY, *more, "--name", "endless", detach=True)
        for number in range(count):
            start = pod.steps("endless")
            until(180, "training", lambda start=start: pod.steps("endless") > start + 3, every=0.5)
            before = pod.steps("endless")
            seconds = pod.stop()
            pod.again().healthy()
            until(
                180,
                "the run going on",
                lambda number=number: len(pod.events("endless", "start")) > number + 1,
                every=0.5,
            )
            resumed = pod.events("endless", "start")[-1]["from_step"]
            rows.append({"stop": number + 1, "seconds": round(seconds, 2), "step": before, "resumed_at": resumed})
            print(rows[-1], flush=True)
    finally:
        pod.__exit__()
    return rows


def layers(image: str) -> list[dict[str, Any]]:
    """Every layer that takes room, largest last command first; bytes as the engine counts them, uncompressed."""
    text = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}\t{{.CreatedBy}}", image).stdout
    rows = [line.split("\t", 1) for line in text.splitlines()]
    return [
        {"megabytes": round(int(size) / 1e6, 1), "made_by": " ".join(made.split())[:110]}
        for size, made in rows
        if int(size) > 100_000
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("--boots", type=int, default=5)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--out", type=Path, default=default_out("pod"))
    args = parser.parse_args()
    size = json.loads(docker("image", "inspect", args.image).stdout)[0]["Size"]
    boots = [boot(args.image) for _ in range(args.boots)]
    print("boots:", ", ".join(f"{one:.2f}" for one in boots), flush=True)
    stopped = stops(args.image, args.stops)
    figures = [
        Figure("boot_median", statistics.median(boots), "s", "<", BOOT_SECONDS),
        Figure("image_size", size / 1e9, "GB", "<=", MOST_BYTES / 1e9),
    ]
    if stopped:
        seconds = [row["seconds"] for row in stopped]
        good = sum(row["seconds"] < STOP_SECONDS and row["resumed_at"] >= row["step"] for row in stopped)
        figures += [
            Figure("stop_p50", statistics.median(seconds), "s"),
            Figure("stop_max", max(seconds), "s", "<", STOP_SECONDS),
            Figure("stops_saved_and_resumed", good, f"of {len(stopped)}", ">=", len(stopped)),
        ]
    return finish("pod", figures, layers(args.image), out=args.out, image=args.image, boots=boots, stops=stopped)


if __name__ == "__main__":
    sys.exit(main())
