"""Pictures from the finished pipeline, several at once, for measuring and looking."""

from pathlib import Path

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from PIL import Image

from . import scenes

STEPS = 20
GUIDANCE = 5.0
_BATCH = 20


def pictures(model: Path, wanted: list[scenes.Scene], seed: int = 0) -> list[Image.Image]:
    """One picture for each scene's full caption; the seed counts up."""
    pipeline = StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32, local_files_only=True)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, use_karras_sigmas=True)
    pipeline.set_progress_bar_config(disable=True)
    found: list[Image.Image] = []
    for start in range(0, len(wanted), _BATCH):
        part = wanted[start : start + _BATCH]
        seeds = [torch.Generator().manual_seed(seed + start + number) for number in range(len(part))]
        found += pipeline(
            [scenes.full_caption(scene) for scene in part],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=scenes.SIDE,
            width=scenes.SIDE,
            generator=seeds,
        ).images
    return found


def sheet(images: list[Image.Image], path: Path, columns: int = 12, scale: int = 2) -> None:
    """A contact sheet."""
    side = scenes.SIDE * scale + 4
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * side, rows * side), (64, 64, 64))
    for number, image in enumerate(images):
        enlarged = image.resize((scenes.SIDE * scale,) * 2, Image.Resampling.NEAREST)
        canvas.paste(enlarged, (number % columns * side + 2, number // columns * side + 2))
    canvas.save(path)
