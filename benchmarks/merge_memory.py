"""Memory and time of merging a LoRA into a base, by the base's size: one tensor at a time, whatever the whole is.

Writes a single file in the original layout with Stable Diffusion 1.5's own shapes (fp16, zeros) and a LoRA over all of
its attention, merges the two in a fresh process, and compares the memory gained at the peak with the base's size.

    python benchmarks/merge_memory.py [--write]
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
from pathlib import Path

import torch
from _figures import RESULTS, Figure, finish

from trainpilot.families.card import card, select
from trainpilot.formats import kohya
from trainpilot.formats.into_base import into_base
from trainpilot.formats.state import DOWN, UP, ModuleWeights
from trainpilot.models.detect import detect

GOAL = 0.25  # of the base's size: no more than a few copies of its largest tensor in fp32
RANK = 16


def make(folder: Path) -> tuple[Path, Path]:
    """A diffusers folder in full size, its denoiser's shapes those of the card, and a LoRA for it."""
    own = card("sd15")
    shapes = own.shapes()
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"]}
    base = folder / "base"
    places = {"denoiser": "unet/diffusion_pytorch_model", "text_encoder": "text_encoder/model"}
    for component, place in places.items():
        _zeros(base / f"{place}.safetensors", shapes[component])
    _zeros(base / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in": [512, 4, 3, 3]})
    config = {"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768, "block_out_channels": [320] * 4}
    for name, content in (("unet", config), ("vae", {"block_out_channels": [128] * 4}), ("text_encoder", {})):
        (base / name / "config.json").write_text(json.dumps(content))
    (base / "model_index.json").write_text(json.dumps(index))
    lora = folder / "lora.safetensors"
    chosen = select(shapes["denoiser"], own.patterns("default"))
    state = {"denoiser": {name: _weights(shapes["denoiser"][name]) for name in chosen}}
    kohya.write(lora, "sd15", state, {"ss_base_model_version": "sd_v1"}, torch.float16)
    return base, lora


def _weights(shape: list[int]) -> ModuleWeights:
    tensors = {DOWN: torch.randn(RANK, *shape[1:]), UP: torch.randn(shape[0], RANK, *[1] * (len(shape) - 2))}
    return ModuleWeights("lora", tensors, RANK, float(RANK))


def _zeros(path: Path, shapes: dict[str, list[int]]) -> None:
    header: dict[str, object] = {}
    reached = 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[f"{name}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": [reached, reached + size]}
        reached += size
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + reached)


def measure(base: Path, lora: Path, target: Path) -> dict[str, float]:
    """In this process: seconds, and memory gained at the peak in bytes."""
    about = detect(base)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    done = into_base(about, [(lora, 1.0)], target)
    seconds = time.perf_counter() - began
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {
        "modules": sum(done.modules.values()),
        "seconds": seconds,
        "peak_bytes": peak,
        "base_bytes": about.size_bytes,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write results/merge_memory_cpu.json")
    parser.add_argument("--measure", nargs=3, metavar=("BASE", "LORA", "TARGET"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        base, lora, target = map(Path, given.measure)
        print(json.dumps(measure(base, lora, target)))
        return 0
    with tempfile.TemporaryDirectory(prefix="merge-") as folder:
        base, lora = make(Path(folder))
        command = [sys.executable, __file__, "--measure", str(base), str(lora), str(Path(folder) / "merged")]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout
    row = json.loads(told.splitlines()[-1])
    rows = [
        {
            "base_gb": row["base_bytes"] / 1e9,
            "modules": row["modules"],
            "seconds": row["seconds"],
            "peak_mib": row["peak_bytes"] / 2**20,
        }
    ]
    figures = [Figure("merge_peak_share_of_base", row["peak_bytes"] / row["base_bytes"], "of_the_base", "<=", GOAL)]
    out = RESULTS / "merge_memory_cpu.json" if given.write else None
    return finish("merge_memory", figures, rows, out=out, load=os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
