"""Whether a resumed run is exact, for every family with every optimizer: bits of its final tensors that differ.

A run of six steps in one go, and the same one killed within a step, stopped within another, and resumed each time, with
text encoder training, EMA, accumulation, dropout, caption shuffling, flips, crops and sampling on. Compared are the
adapter and the average in full precision and the file that is handed over. On the CPU, in one thread.

    python benchmarks/resume_matrix.py [--family sd15 ...] [--optimizer lion ...] [--write]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from _figures import RESULTS, Figure, finish

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "engine"))


def main(given: list[str] | None = None) -> int:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch
    from interruptions import FAMILIES, OPTIMIZERS, interrupted

    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", action="append", choices=FAMILIES, help="default: all")
    parser.add_argument("--optimizer", action="append", choices=tuple(OPTIMIZERS), help="default: all")
    parser.add_argument("--write", action="store_true", help="write results/resume_matrix.json")
    args = parser.parse_args(given)
    rows: list[dict[str, object]] = []
    inexact = 0
    for family in args.family or FAMILIES:
        for optimizer in args.optimizer or OPTIMIZERS:
            began = time.monotonic()
            found = interrupted(family, optimizer)
            inexact += bool(found.differing)
            rows.append(
                {
                    "family": family,
                    "optimizer": optimizer,
                    "killed in pass": found.killed_in,
                    "resumed from": int(found.resumed_from[0][5:]),
                    "stopped in pass": found.stopped_in,
                    "and from": int(found.resumed_from[1][5:]),
                    "tensors": len(found.compared),
                    "8-bit states": found.eight_bit,
                    "differing": len(found.differing),
                    "seconds": round(time.monotonic() - began, 1),
                }
            )
            print(f"{family} {optimizer}: {len(found.differing)} of {len(found.compared)} tensors differ", flush=True)
    figures = [
        Figure("resume_pairs", len(rows), "pairs"),
        Figure("resume_pairs_that_differ", inexact, "pairs", "<=", 0),
    ]
    return finish("resume_matrix", figures, rows, out=RESULTS / "resume_matrix.json" if args.write else None)


if __name__ == "__main__":
    raise SystemExit(main())
