"""The model cards, with the figures that `measure` wrote: no number in them is typed by hand."""

from pathlib import Path
from typing import Any


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


def _row(name: str, found: dict[str, float]) -> str:
    cells = " | ".join(f"{100 * found[key]:.1f}%" for key in ("shape", "colour", "position", "background", "all"))
    return f"| {name} | {cells} |"


TARGET = 0.9  # share of right attributes that the model is meant to reach


def _standing(found: dict[str, float]) -> str:
    if found["all"] >= TARGET:
        return "It meets its target."
    weak = [key for key in ("shape", "colour", "position", "background") if found[key] < TARGET]
    return f"This is a first version, short of its target of {100 * TARGET:.0f}%: weak in {' and '.join(weak)}."


def write(models: Path, quality: dict[str, Any]) -> None:
    """README.md of both models below `models`."""
    tiny, clip = models / "pilot-tiny", models / "pilot-tiny-clip"
    table = "\n".join(
        [
            "| measure | shape | colour | position | background | mean |",
            "|---|---|---|---|---|---|",
            _row("pixels", quality["pixels"]),
            _row("CLIP", quality["clip"]),
        ]
    )
    (tiny / "README.md").write_text(
        f"""# pilot-tiny

Stable Diffusion 1.5's architecture in miniature ({_size(tiny):.1f} MB in fp16), trained from nothing on drawn 64x64
scenes: "a large red star at the left on a blue background". It exists so that training, sampling, testing and every
file format can be tried for real on a laptop, with no download. Licence: Apache-2.0, like the project.

Made by `python -m scripts.pilot_tiny all`: seeded drawings, no other data. Diffusers layout; any prompt can be typed
(byte-level BPE in CLIP's format), but only shapes, colours, sizes, positions and backgrounds mean something to it.
Its U-Net went on from an earlier version's weights as the recipe got better: about three hours of one core in all.

## Quality
{quality["scenes"]} scenes it had to draw from their full captions ({quality["steps"]} DPM++ 2M Karras steps, guidance
{quality["guidance"]:g}); the share of right attributes, by the pixels (an independent reading of the picture, right on
every real drawing) and by pilot-tiny-clip:

{table}

{_standing(quality["pixels"])}
The VAE gives back the demo pictures, which it never saw, with {quality["vae_demo_db"]:.1f} dB on average.

## Limits
64x64 pixels, flat drawings, eight shapes, one or two at a time. It knows nothing of the world.
"""
    )
    (clip / "README.md").write_text(
        f"""# pilot-tiny-clip

A CLIP of {_size(clip):.1f} MB (fp16, transformers' CLIPModel) on the scenes of pilot-tiny, for text-image scores and
image features without a download. Licence: Apache-2.0. Made by `python -m scripts.pilot_tiny clip`.

Asked which of an attribute's words fits a generated scene best, it agrees with the caption for
{100 * quality["clip"]["all"]:.1f}% (mean over shape, colour, position and background of {quality["scenes"]} scenes);
of the real drawings of these captions, for {100 * quality["clip_on_drawings"]["all"]:.1f}%.
"""
    )
