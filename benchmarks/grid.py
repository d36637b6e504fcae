"""What a grid costs beside a bare diffusers loop over the same pictures, what a further column costs, and a kill.

6 checkpoints x 6 strengths x 4 prompts x 2 seeds on pilot-tiny: 288 pictures. The bare loop loads the pipeline once and
each checkpoint once, sets its strength, and paints one picture after the other, as the guides' scripts do; it writes
PNGs. The grid goes the way of `trainpilot grid`, album, sheets and all, with an empty cache. Both load their base in
the measured time, on one thread, in turn. Pictures are compared, so that both have really painted the same. The
headline is processor time, since the clock also counts whatever else the machine does; both are shown.

Then the same grid again (all of it is there), with a seventh strength (that column alone is painted), and in a process
that is killed with SIGKILL in the middle and started again: it must paint each missing picture once and no other.

    python benchmarks/grid.py [--steps 4] [--checkpoints 6] [--prompts 4] [--write]
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from _figures import RESULTS, Figure, finish
from PIL import Image

from trainpilot.config.prompts import Prompt
from trainpilot.config.schema import Network
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.probe import choose_device
from trainpilot.evaluate import grids
from trainpilot.evaluate.album import Album
from trainpilot.evaluate.easel import Easel
from trainpilot.evaluate.grids import Grid, Value
from trainpilot.evaluate.painter import Painter
from trainpilot.families.card import card
from trainpilot.families.registry import adapter
from trainpilot.formats import kohya
from trainpilot.models.detect import detect
from trainpilot.workspace import Workspace

BASE = Path(__file__).resolve().parents[1] / "workspace-template" / "models" / "pilot-tiny"
STRENGTHS = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
PROMPTS = (
    "a large red star at the left on a blue background",
    "a small yellow heart in the center on a purple background",
    "a medium green ring at the right on a white background",
    "a large pink cross at the bottom on a black background",
)
SEEDS = (1, 2)
SAMPLER, GUIDANCE = "dpmpp_2m_karras", 5.0


def write_loras(folder: Path, count: int) -> list[Path]:
    """LoRA files of rank 16 with small random weights: what they show does not matter here, only that they differ."""
    known = {"ss_base_model_version": card("sd15").ss_base_model_version}
    found = []
    for number in range(count):
        parts = adapter("sd15").load(BASE, frozenset({"denoiser"}), dtype=torch.float32, device="cpu")
        assert parts.denoiser is not None
        patterns = {"denoiser": card("sd15").patterns("default")}
        trained = Adapter.inject({"denoiser": parts.denoiser}, patterns, Network(rank=16, alpha=16.0), number)
        generator = torch.Generator().manual_seed(number)
        for parameter in trained.parameters():
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator)
        path = folder / f"checkpoint-{number}.safetensors"
        kohya.write(path, "sd15", trained.collect(), known, torch.float32)
        found.append(path)
    return found


def grid(loras: Sequence[Path], strengths: Sequence[float], prompts: Sequence[str], steps: int) -> Grid:
    return Grid(
        "benchmark",
        {
            "lora": [Value(path, path.stem) for path in loras],
            "strength": [Value(strength, f"{strength:g}") for strength in strengths],
            "prompt": [Value(text, text) for text in prompts],
            "seed": [Value(seed, str(seed)) for seed in SEEDS],
        },
        Prompt(width=64, height=64, steps=steps, guidance=GUIDANCE, sampler=SAMPLER),
    )


def clocks() -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    return time.perf_counter(), time.process_time()


def since(began: tuple[float, float]) -> tuple[float, float]:
    now = clocks()
    return now[0] - began[0], now[1] - began[1]


def ours(wanted: Grid, root: Path) -> tuple[tuple[float, float], int, dict[tuple[object, ...], Path]]:
    """(seconds, pictures painted, the files by lora, strength, prompt and seed) of a grid, as the job makes it."""
    began = clocks()
    base, device = detect(BASE), choose_device()
    easel = Easel(base, device)
    painter = Painter(easel, Album(Workspace(root), base, easel.settings, int), int)
    grids.paint(wanted, painter, root / "grid")
    seconds = since(began)
    places = [place for _, rows in wanted.sheets() for row in rows for place in row]
    files = painter.paint([wanted.order(place) for place in places])
    keys = [tuple(place[axis].value for axis in ("lora", "strength", "prompt", "seed")) for place in places]
    return seconds, painter.painted, dict(zip(keys, files, strict=True))


def bare(
    loras: Sequence[Path], prompts: Sequence[str], steps: int, folder: Path
) -> tuple[tuple[float, float], dict[object, Path]]:
    """(seconds, the files) of a plain loop over a diffusers pipeline."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    folder.mkdir()
    began = clocks()
    pipe = StableDiffusionPipeline.from_pretrained(
        BASE, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
    pipe.set_progress_bar_config(disable=True)
    found: dict[object, Path] = {}
    for lora in loras:
        pipe.load_lora_weights(lora, adapter_name="one")
        for strength in STRENGTHS:
            pipe.set_adapters("one", strength)
            for prompt, seed in itertools.product(prompts, SEEDS):
                image = pipe(
                    prompt,
                    num_inference_steps=steps,
                    guidance_scale=GUIDANCE,
                    width=64,
                    height=64,
                    generator=torch.Generator().manual_seed(seed),
                ).images[0]
                path = folder / f"{len(found):04d}.png"
                image.save(path)
                found[lora, strength, prompt, seed] = path
        pipe.unload_lora_weights()
    return since(began), found


def apart(one: Path, other: Path) -> int:
    """The largest difference of any pixel, in levels of 255."""
    a, b = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (one, other))
    return int(np.abs(a - b).max())


def killed(root: Path, loras: Sequence[Path], prompts: Sequence[str], steps: int) -> tuple[int, int, int]:
    """(pictures of a whole grid, there when it was killed, painted by the next start)."""
    command = [sys.executable, __file__, "--paint", str(root), "--steps", str(steps), "--prompts", str(len(prompts))]
    command += [str(path) for path in loras]
    child = subprocess.Popen(command, start_new_session=True)
    of = len(loras) * len(STRENGTHS) * len(prompts) * len(SEEDS)
    while len(list((root / "cache" / "pictures").rglob("*.png"))) < of // 2 and child.poll() is None:
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    kept = [path for path in (root / "cache" / "pictures").rglob("*.png") if not path.name.startswith(".")]
    _, painted, _ = ours(grid(loras, STRENGTHS, prompts, steps), root)
    return of, len(kept), painted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4, help="steps of the sampler (default 4)")
    parser.add_argument("--checkpoints", type=int, default=6, metavar="N", help="so many checkpoints (default 6)")
    parser.add_argument("--write", action="store_true", help="write results/grid_cpu.json")
    parser.add_argument("--paint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), metavar="N", help="so many prompts (default 4)")
    parser.add_argument("loras", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("PILOT_DEVICE", "cpu")
    torch.set_num_threads(1)
    if given.paint:
        ours(grid(given.loras, STRENGTHS, PROMPTS[: given.prompts], given.steps), given.paint)
        return 0
    prompts = PROMPTS[: given.prompts]
    with tempfile.TemporaryDirectory(prefix="grid-") as folder:
        root = Path(folder)
        loras = write_loras(root, given.checkpoints)
        whole = grid(loras, STRENGTHS, prompts, given.steps)
        bare_seconds, theirs = bare(loras, prompts, given.steps, root / "bare")
        our_seconds, painted, files = ours(whole, root / "ours")
        again_seconds, again, _ = ours(whole, root / "ours")
        column_seconds, column, _ = ours(grid(loras, (*STRENGTHS, 1.1), prompts, given.steps), root / "ours")
        of, kept, resumed = killed(root / "killed", loras, prompts, given.steps)
        worst = max(apart(files[key], path) for key, path in theirs.items())  # type: ignore[index]
    rows: list[dict[str, object]] = [
        {
            "what": "bare diffusers loop",
            "pictures": len(theirs),
            "seconds": bare_seconds[0],
            "processor_s": bare_seconds[1],
        },
        {"what": "grid, nothing there", "pictures": painted, "seconds": our_seconds[0], "processor_s": our_seconds[1]},
        {"what": "the same again", "pictures": again, "seconds": again_seconds[0], "processor_s": again_seconds[1]},
        {
            "what": "a seventh strength",
            "pictures": column,
            "seconds": column_seconds[0],
            "processor_s": column_seconds[1],
        },
        {"what": f"killed with {kept} of {of} there, started again", "pictures": resumed, "seconds": None},
    ]
    figures = [
        Figure("grid_largest_difference", worst, "levels", "<=", 8),
        Figure("grid_again_painted", again, "pictures", "<=", 0),
        Figure("grid_column_painted_beyond_itself", column - whole.count // len(STRENGTHS), "pictures", "<=", 0),
        Figure("grid_painted_twice_after_a_kill", kept + resumed - of, "pictures", "<=", 0),
        Figure("grid_clock", our_seconds[0] / bare_seconds[0], "x_of_bare_diffusers"),
        Figure("grid_time", our_seconds[1] / bare_seconds[1], "x_of_bare_diffusers", "<=", 1.1),
    ]
    out = RESULTS / "grid_cpu.json" if given.write else None
    return finish("grid", figures, rows, out=out, load=os.getloadavg(), steps=given.steps)


if __name__ == "__main__":
    sys.exit(main())
