"""What a base model is: family, variant, prediction and size, from headers and configuration files alone.

Used by the merge (which family's defaults apply), the plan and `trainpilot models`. A diffusers folder is read by
its component classes; a single file by the names and shapes of its tensors. Pickles are never opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainpilot.errors import PilotError
from trainpilot.models.safetensors_header import Entry, read_header

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pickle")
Shapes = dict[str, dict[str, list[int]]]  # component -> module -> [out, in] or [out, in, k, k]
# A full-size denoiser of the smallest family has 860 M parameters; our miniatures have a few million.
TINY_BELOW = 100_000_000
_DENOISERS = ("unet", "transformer")
_COMPONENTS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True)
class Base:
    """A base model on disk.

    layout: "folder" (diffusers) or "file". prediction: "epsilon", "v_prediction" or "flow". variant: the name in the
    family's card ("1", "2", "dev", "schnell"). size_bytes: of the weights that are loaded. The fields after tiny are
    read from a folder and None or empty for a file: resolution (px, square) the model was made for, latent_factor
    (px per latent side), latent_channels, step (px that a side must be a multiple of), shapes of the modules, and
    parameters and text_widths (of the encoders' states) by component. reason says what the family was recognised by.
    """

    path: Path
    family: str
    layout: str
    prediction: str
    variant: str
    size_bytes: int
    tiny: bool
    reason: str = ""
    resolution: int | None = None
    latent_factor: int | None = None
    latent_channels: int | None = None
    step: int | None = None
    shapes: Shapes = field(default_factory=dict, repr=False, compare=False)
    parameters: dict[str, int] = field(default_factory=dict)
    text_widths: dict[str, int] = field(default_factory=dict)


def detect(path: Path, vae: Path | None = None) -> Base:
    """What the model at a path is. Raises PilotError for a pickle, a truncated or unknown file, a missing piece."""
    if vae is not None:
        check_weights(vae)
    if not path.exists():
        raise PilotError(path, "does not exist", "a diffusers folder or a .safetensors file", "Check the path.")
    if path.is_dir():
        return _folder(path)
    refuse_pickle(path)
    if path.suffix != ".safetensors":
        raise PilotError(
            path, f"a {path.suffix or 'nameless'} file", "a diffusers folder or .safetensors", "Convert it."
        )
    header = read_header(path)
    return _single_file(path, header.tensors, header.metadata)


def refuse_pickle(path: Path) -> None:
    """Refuse a file that runs code when it is opened."""
    if path.suffix.lower() in PICKLES:
        raise PilotError(
            path,
            f"a pickle ({path.suffix}), which can run any code when it is opened",
            ".safetensors, or a diffusers folder with .safetensors files",
            "Take the .safetensors version of the model, or convert it where you trust the file.",
        )


def check_weights(path: Path) -> None:
    """Check every weight file at a path (a folder or a file), as for a replacement VAE."""
    if not path.exists():
        raise PilotError(path, "does not exist", "a diffusers folder or a .safetensors file", "Check the path.")
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        refuse_pickle(file)
        read_header(file)


def _json(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PilotError(path, "is missing", "a complete diffusers folder", "Fetch the model again.") from error
    except (OSError, ValueError) as error:
        raise PilotError(path, f"cannot be read ({error})", "a JSON file", "Fetch the model again.") from error
    if not isinstance(given, dict):
        raise PilotError(path, f"holds a {type(given).__name__}", "a JSON object", "Fetch the model again.")
    return given


# ---- diffusers folders


def _folder(path: Path) -> Base:
    if not (path / "model_index.json").is_file():
        singles = sorted(path.glob("*.safetensors"))
        found = f"a folder without model_index.json{f', with {singles[0].name}' if singles else ''}"
        remedy = f"Name the file itself: {singles[0]}." if singles else "Name the folder that holds model_index.json."
        raise PilotError(path, found, "a diffusers folder or a .safetensors file", remedy)
    index = _json(path / "model_index.json")
    component = next((name for name in _DENOISERS if name in index), None)
    if component is None:
        raise _unknown(path, f"a pipeline {index.get('_class_name')} without unet or transformer")
    config = _json(path / component / "config.json")
    family, variant, reason = _family_of(path, index, config)
    tensors = {"denoiser": _weights(path / component)}
    tensors |= {name: _weights(path / name) for name in (*_COMPONENTS, "vae") if index.get(name, [None])[0]}
    if "vae" not in tensors:
        raise PilotError(path / "vae", "is missing", "a complete diffusers folder", "Fetch the model again.")
    counts = {name: sum(entry.elements for entry in found.values()) for name, found in tensors.items()}
    vae = _json(path / "vae" / "config.json")
    factor = 2 ** (len(vae.get("block_out_channels", [0] * 4)) - 1)
    prediction = "flow" if family == "flux" else _prediction(path)
    flux = family == "flux"
    return Base(
        path=path,
        family=family,
        layout="folder",
        prediction=prediction,
        variant=variant,
        size_bytes=sum(entry.end - entry.start for found in tensors.values() for entry in found.values()),
        tiny=counts["denoiser"] < TINY_BELOW,
        reason=reason,
        resolution=None if flux else int(config.get("sample_size") or 64) * factor,
        latent_factor=factor,
        latent_channels=int(vae.get("latent_channels", 4)),
        # A U-Net halves its input between levels; FLUX packs 2 x 2 latents into a token.
        step=factor * (2 if flux else 2 ** (len(config.get("block_out_channels", [0] * 4)) - 1)),
        shapes={name: _modules(found) for name, found in tensors.items() if name != "vae"},
        parameters=counts,
        text_widths=_text_widths(path, tensors),
    )


def _family_of(path: Path, index: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str, str]:
    kind = str(config.get("_class_name", ""))
    if kind == "FluxTransformer2DModel":
        variant = "dev" if config.get("guidance_embeds") else "schnell"
        return "flux", variant, f"{kind}, guidance_embeds {str(variant == 'dev').lower()}"
    if kind != "UNet2DConditionModel":
        raise _unknown(path, f"a denoiser of class {kind or 'unknown'}")
    if config.get("addition_embed_type") == "text_time":
        return "sdxl", "1", "UNet2DConditionModel with time ids"
    width = config.get("cross_attention_dim")
    # SD 2.x reads OpenCLIP's 1024-wide states; every other width is 1.x or a miniature of it.
    return "sd15", "2" if width == 1024 else "1", f"UNet2DConditionModel, cross-attention {width} wide"


def _prediction(path: Path) -> str:
    file = path / "scheduler" / "scheduler_config.json"
    given = _json(file).get("prediction_type", "epsilon") if file.is_file() else "epsilon"
    if given not in ("epsilon", "v_prediction"):
        raise PilotError(file, f"prediction_type {given}", "epsilon or v_prediction", "Set model.prediction yourself.")
    return str(given)


def _text_widths(path: Path, components: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for name in _COMPONENTS:
        file = path / name / "config.json"
        if name in components and file.is_file():
            given = _json(file)
            width = given.get("hidden_size", given.get("d_model"))
            if isinstance(width, int):
                found[name] = width
    return found


def _weights(folder: Path) -> dict[str, Entry]:
    """Every tensor of a component, over all its shards; the plain file is preferred to .fp16 and other variants."""
    indexes = sorted(folder.glob("*.safetensors.index.json"), key=lambda file: len(file.name))
    if indexes:
        shards = sorted(set(_json(indexes[0]).get("weight_map", {}).values()))
        files = [folder / str(name) for name in shards]
    else:
        files = sorted(folder.glob("*.safetensors"), key=lambda file: (len(file.name), file.name))[:1]
    if not files:
        pickles = [file for file in sorted(folder.glob("*")) if file.suffix in PICKLES]
        if pickles:
            refuse_pickle(pickles[0])
        raise PilotError(folder, "has no .safetensors file", "a complete diffusers folder", "Fetch the model again.")
    tensors: dict[str, Entry] = {}
    for file in files:
        tensors |= read_header(file).tensors
    return tensors


def _modules(tensors: Mapping[str, Entry]) -> dict[str, list[int]]:
    return {
        name.removesuffix(".weight"): list(entry.shape)
        for name, entry in tensors.items()
        if name.endswith(".weight") and len(entry.shape) in (2, 4) and "embedding.weight" not in name
    }


# ---- single files

_SD = "model.diffusion_model."
_CROSS = "attn2.to_k.weight"
_SDXL_TEXT = "conditioner.embedders.1."
_SD2_TEXT = "cond_stage_model.model."


def _single_file(path: Path, tensors: Mapping[str, Entry], metadata: Mapping[str, str]) -> Base:
    if any(name.endswith((".lora_down.weight", ".lora_A.weight", ".hada_w1_a", ".lokr_w1")) for name in tensors):
        raise PilotError(path, "a LoRA file", "a base model", "Name the model that the LoRA was made for.")
    prefix = _SD if any(name.startswith(_SD) for name in tensors) else ""
    if f"{prefix}double_blocks.0.img_attn.qkv.weight" in tensors:
        family, prediction = "flux", "flow"
        variant = "dev" if f"{prefix}guidance_in.in_layer.weight" in tensors else "schnell"
        reason = f"FLUX block names, {'with' if variant == 'dev' else 'without'} guidance_in"
    else:
        family, variant, prediction, reason = _stable_diffusion(path, tensors, metadata, prefix)
    denoiser = sum(
        entry.elements for name, entry in tensors.items() if name.startswith(prefix) and not _other_part(name)
    )
    return Base(
        path=path,
        family=family,
        layout="file",
        prediction=prediction,
        variant=variant,
        size_bytes=sum(entry.end - entry.start for entry in tensors.values()),
        tiny=denoiser < TINY_BELOW,
        reason=reason,
        parameters={"denoiser": denoiser},
    )


def _other_part(name: str) -> bool:
    return name.startswith(("first_stage_model.", "cond_stage_model.", "conditioner.", "vae.", "text_encoders."))


def _stable_diffusion(
    path: Path, tensors: Mapping[str, Entry], metadata: Mapping[str, str], prefix: str
) -> tuple[str, str, str, str]:
    widths = {
        entry.shape[1]
        for name, entry in tensors.items()
        if name.startswith(prefix) and name.endswith(_CROSS) and len(entry.shape) == 2
    }
    if f"{prefix}input_blocks.0.0.weight" not in tensors or not widths:
        first = ", ".join(sorted(tensors)[:3]) or "no tensors"
        raise _unknown(path, f"{len(tensors)} tensors of an unknown model ({first} ...)")
    width = max(widths)
    channels = tensors[f"{prefix}input_blocks.0.0.weight"].shape[1:2]
    if channels and channels[0] in (8, 9):
        raise _unknown(path, f"an inpainting or edit model of {channels[0]} input channels")
    marked_v = "v_pred" in tensors or metadata.get("modelspec.prediction_type") in ("v", "v_prediction")
    if f"{prefix}label_emb.0.0.weight" in tensors:
        if not any(name.startswith(_SDXL_TEXT) for name in tensors) and prefix:
            raise _unknown(path, "SDXL without its second text encoder (a refiner?)")
        return "sdxl", "1", "v_prediction" if marked_v else "epsilon", f"SDXL block names, cross-attention {width} wide"
    if width == 1024 or any(name.startswith(_SD2_TEXT) for name in tensors):
        # The 768 px release predicts v and the 512 px one epsilon; their files differ in nothing but the numbers.
        said = metadata.get("modelspec.prediction_type") == "epsilon"
        return "sd15", "2", "epsilon" if said else "v_prediction", f"SD block names, cross-attention {width} wide"
    return "sd15", "1", "v_prediction" if marked_v else "epsilon", f"SD block names, cross-attention {width} wide"


def _unknown(path: Path, given: str) -> PilotError:
    return PilotError(
        path,
        given,
        "Stable Diffusion 1.x, 2.x, SDXL or FLUX.1 text-to-image models",
        "Choose a base model of a supported family (see `trainpilot families`).",
    )
