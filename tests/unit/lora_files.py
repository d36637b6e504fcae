"""LoRA files as the writers make them, without torch, for the unit tests of metadata, packaging and publishing."""

from __future__ import annotations

from pathlib import Path

from trainpilot.formats.header import compose, hashes

NAME = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
FLUX = "lora_unet_double_blocks_0_img_attn_proj"


def lora(path: Path, metadata: dict[str, str] | None = None, rank: int = 2, name: str = NAME) -> Path:
    """rank x 3 down, 3 x rank up, in fp32; of Stable Diffusion 1.x unless the name or the metadata say otherwise."""
    size = rank * 3 * 4
    entries = {
        f"{name}.lora_down.weight": {"dtype": "F32", "shape": [rank, 3], "data_offsets": [0, size]},
        f"{name}.lora_up.weight": {"dtype": "F32", "shape": [3, rank], "data_offsets": [size, 2 * size]},
    }
    data = bytes(range(48)) * (2 * size // 48)
    given = {"ss_base_model_version": "sd_v1", **(metadata or {})}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compose(entries, given | hashes(entries, given, [data])) + data)
    return path
