#!/usr/bin/env python3
"""Compare a LoRA of yours with the base model and with other LoRAs: pictures, CLIP scores, plots, one HTML report.

    python training/comparative_analysis.py [RUN] [OTHER.safetensors ...] [options of `trainpilot evaluate`]

Without a run the newest finished one is taken. This is `trainpilot evaluate RUN --against OTHER ...`; what is measured,
and how, is in the project's docs/EVAL_PROTOCOL.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parents[1]


def newest_run() -> str:
    """The run whose result was written last."""
    results = [path for path in WORKSPACE.glob("outputs/*/*.safetensors") if path.stem == path.parent.name]
    if not results:
        sys.exit("There is no finished run in outputs/ yet. Train one: trainpilot train --help")
    return max(results, key=lambda path: path.stat().st_mtime).stem


def main() -> int:
    from trainpilot.cli import main as trainpilot

    words = sys.argv[1:]
    first_option = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    plain, options = words[:first_option], words[first_option:]
    others = [word for word in plain if word.endswith(".safetensors")]
    runs = [word for word in plain if word not in others]
    against = ["--against", *others] if others else []
    return trainpilot(
        ["evaluate", runs[0] if runs else newest_run(), *against, *options, "--workspace", str(WORKSPACE)]
    )


if __name__ == "__main__":
    sys.exit(main())
