"""How Stable Diffusion 1.x and 2.x modules are named in LoRA files: diffusers' names, joined. Strings only."""

from __future__ import annotations

from trainpilot.formats.names import Place
from trainpilot.formats.words import UNET, clip_joined, clip_module, join, split

KOHYA = {"denoiser": "lora_unet", "text_encoder": "lora_te"}
PEFT = {"denoiser": "unet", "text_encoder": "text_encoder"}

# diffusers 0.42 finds a module's alpha for attention and text encoder layers only where all modules have the same one.
ONE_ALPHA = True


def place(component: str, module: str) -> Place:
    """Every module is a matrix of its own."""
    joined = join(module) if component == "denoiser" else clip_joined(module)
    return Place(joined, (module,))


def modules(component: str, joined: str) -> tuple[str, ...]:
    """The one module of a joined name."""
    return (split(joined, UNET) if component == "denoiser" else clip_module(joined, wrapped=False),)


def rows(module: str, width: int) -> int:
    """No matrix of this family is fused."""
    raise KeyError(module)
