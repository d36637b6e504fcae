"""Folders and single files give the same parts; what is missing or broken is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from miniatures import EVERYTHING, FAMILIES, load, tiny
from original_names import open_clip, single_file, unet, vae, weights
from safetensors.torch import load_file, save_file
from torch import nn

from trainpilot.config.schema import Noise
from trainpilot.errors import PilotError
from trainpilot.families import clip_text, loading
from trainpilot.families.construction import build_on_meta, configs
from trainpilot.families.protocol import Parts, TextOptions
from trainpilot.families.registry import adapter


def _modules(parts: Parts) -> dict[str, nn.Module]:
    named = {f"text_encoder_{i}": encoder for i, encoder in enumerate(parts.text_encoders)}
    return {"denoiser": parts.denoiser, "vae": parts.vae, **named}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_file_equals_its_folder(family: str, tmp_path: Path) -> None:
    file = single_file(family, tiny(family), tmp_path / "base.safetensors")
    given = adapter(family).load(file, EVERYTHING, dtype=torch.float32, device="cpu")
    expected = load(family)
    for name, module in _modules(expected).items():
        other = _modules(given)[name].state_dict()
        assert module.state_dict().keys() == other.keys()
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, other[key]), f"{name} {key}"
    assert (given.prediction, given.latent_scale, given.latent_shift, given.latent_factor) == (
        expected.prediction,
        expected.latent_scale,
        expected.latent_shift,
        expected.latent_factor,
    )
    options = TextOptions(t5_tokens=16)
    for key, value in adapter(family).encode_text(given, ["a zorp"], options).items():
        torch.testing.assert_close(value, adapter(family).encode_text(expected, ["a zorp"], options)[key])


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_is_wanted_is_loaded_frozen_and_in_its_dtype(family: str) -> None:
    for wanted in ("text", "vae", "denoiser"):
        parts = adapter(family).load(tiny(family), frozenset({wanted}), dtype=torch.bfloat16, device="cpu")
        assert (parts.denoiser is not None, parts.vae is not None, bool(parts.text_encoders)) == (
            wanted == "denoiser",
            wanted == "vae",
            wanted == "text",
        )
        assert len(parts.tokenizers) == len(parts.text_encoders)
        for module in filter(None, [parts.denoiser, parts.vae, *parts.text_encoders]):
            assert not module.training
            for parameter in module.parameters():
                assert parameter.dtype == torch.bfloat16 and not parameter.requires_grad


def test_the_sdxl_vae_is_never_fp16() -> None:
    parts = adapter("sdxl").load(tiny("sdxl"), frozenset({"vae", "denoiser"}), dtype=torch.float16, device="cpu")
    assert next(parts.denoiser.parameters()).dtype == torch.float16
    assert next(parts.vae.parameters()).dtype == torch.float32


def test_fp16_weights_are_found(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd15"), tmp_path / "base")
    for file in folder.glob("*/*.safetensors"):
        save_file({n: t.half() for n, t in load_file(file).items()}, file.with_suffix(".fp16.safetensors"))
        file.unlink()
    parts = adapter("sd15").load(folder, EVERYTHING, dtype=torch.float32, device="cpu")
    assert next(parts.denoiser.parameters()).dtype == torch.float32
    torch.testing.assert_close(next(parts.vae.parameters()), next(load("sd15").vae.parameters()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("given", ["auto", "v_prediction", "epsilon"])
def test_prediction_comes_from_the_scheduler_unless_said(given: str, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd15"), tmp_path / "base")
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    parts = adapter("sd15").load(folder, frozenset(), dtype=torch.float32, device="cpu", prediction=given)
    expected = "v_prediction" if given == "auto" else given
    assert parts.prediction == parts.scheduler_config["prediction_type"] == expected


def test_marks_of_single_files_are_read(tmp_path: Path) -> None:
    file = single_file("sdxl", tiny("sdxl"), tmp_path / "base.safetensors")
    save_file({**load_file(file), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, file)
    parts = adapter("sdxl").load(file, frozenset(), dtype=torch.float32, device="cpu")
    assert parts.prediction == "v_prediction"
    levels = adapter("sdxl").levels(parts, torch.tensor([0.9999]), Noise(timesteps="uniform"), (8, 8))
    assert float(levels.alpha) == 0


@pytest.mark.parametrize("shape", ["folder", "pipeline", "original", "diffusers"])
def test_a_replacement_vae(shape: str, tmp_path: Path) -> None:
    other = adapter("sd15").tiny(tmp_path / "other", seed=9)
    path = {"folder": other / "vae", "pipeline": other}.get(shape, tmp_path / "vae.safetensors")
    if shape == "original":
        save_file({n: t.contiguous() for n, t in vae(weights(other / "vae"), 2).items()}, path)
    if shape == "diffusers":
        save_file(weights(other / "vae"), path)
    parts = adapter("sd15").load(tiny("sd15"), frozenset({"vae"}), dtype=torch.float32, device="cpu", vae=path)
    expected = weights(other / "vae")
    for name, tensor in parts.vae.state_dict().items():
        assert torch.equal(tensor, expected[name])


def test_a_vae_of_another_family_is_refused(tmp_path: Path) -> None:
    config = json.loads((tiny("sd15") / "vae" / "config.json").read_text()) | {"latent_channels": 8}
    from diffusers import AutoencoderKL

    AutoencoderKL.from_config(config).save_pretrained(tmp_path / "vae")
    with pytest.raises(PilotError, match="latent channels"):
        adapter("sd15").load(tiny("sd15"), frozenset({"vae"}), dtype=torch.float32, device="cpu", vae=tmp_path / "vae")


def test_missing_weights_and_missing_parts_are_named(tmp_path: Path) -> None:
    file = single_file("flux", tiny("flux"), tmp_path / "base.safetensors")
    tensors = load_file(file)
    bare = {name: tensor for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")}
    save_file(bare, file)
    with pytest.raises(PilotError, match=r"holds no text_encoder.*base\.parts"):
        adapter("flux").load(file, frozenset({"text"}), dtype=torch.float32, device="cpu")
    shutil.copytree(tiny("flux"), file.with_suffix(".parts"), dirs_exist_ok=True)
    parts = adapter("flux").load(file, EVERYTHING, dtype=torch.float32, device="cpu")
    assert len(parts.text_encoders) == 2
    save_file({n: t for n, t in bare.items() if "img_mlp.2" not in n}, file)
    shutil.rmtree(file.with_suffix(".parts") / "transformer")
    shutil.copytree(tiny("flux") / "transformer", file.with_suffix(".parts") / "transformer")
    (file.with_suffix(".parts") / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(PilotError, match="weights of FluxTransformer2DModel are missing"):
        adapter("flux").load(file, frozenset({"denoiser"}), dtype=torch.float32, device="cpu")


def test_a_single_file_without_tokenizer_says_where_to_put_one(tmp_path: Path) -> None:
    file = single_file("sd15", tiny("sd15"), tmp_path / "base.safetensors")
    shutil.rmtree(file.with_suffix(".parts") / "tokenizer")
    with pytest.raises(PilotError, match="holds no tokenizer"):
        adapter("sd15").load(file, frozenset({"text"}), dtype=torch.float32, device="cpu")


def test_a_folder_without_vocabulary_is_not_read_with_an_empty_one(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("flux"), tmp_path / "base")
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(PilotError, match="no vocabulary"):
        adapter("flux").load(folder, frozenset({"text"}), dtype=torch.float32, device="cpu")


def test_a_truncated_component_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd15"), tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(PilotError, match="cannot be loaded"):
        adapter("sd15").load(folder, frozenset({"denoiser"}), dtype=torch.float32, device="cpu")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("sd15"), tmp_path / "base")
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), folder / "unet" / "diffusion_pytorch_model.bin")
    file.unlink()
    with pytest.raises(PilotError, match="no weights"):
        adapter("sd15").load(folder, frozenset({"denoiser"}), dtype=torch.float32, device="cpu")


def test_sd2s_open_clip_leaves_its_last_layer_out(tmp_path: Path) -> None:
    """SD 2.x reads the layer before the last of 24: its 23-layer encoder is the first 23 of the file."""
    tensors = weights(tiny("sdxl") / "text_encoder_2")
    config = json.loads((tiny("sdxl") / "text_encoder_2" / "config.json").read_text())
    named = clip_text.open_clip_names(open_clip(tensors, 3), config | {"num_hidden_layers": 2})
    assert {name.split(".")[2] for name in named if name.startswith("encoder.layers.")} == {"0", "1"}
    key = "encoder.layers.1.self_attn.k_proj.weight"
    assert torch.equal(named[key], tensors[f"text_model.{key}"])


@pytest.mark.parametrize(("family", "variant"), [("sd15", None), ("sd15", "2"), ("sdxl", None)])
def test_every_name_of_the_full_size_original_unet_is_understood(family: str, variant: str | None) -> None:
    from trainpilot.families.unet import from_ldm

    component = configs(family, variant)["unet"]
    expected = build_on_meta(component).state_dict()
    given = from_ldm(unet(dict(expected)), {"layers_per_block": 2, **component["config"]})
    assert {name: tensor.shape for name, tensor in given.items()} == {n: t.shape for n, t in expected.items()}


def test_transformers_own_fp32_parts_are_kept_from_a_file() -> None:
    """T5's output projections overflow fp16; transformers keeps them in fp32, and so does a single file."""
    parts = adapter("flux").load(tiny("flux"), frozenset({"text"}), dtype=torch.float16, device="cpu")
    t5 = parts.text_encoders[1]
    config = json.loads((tiny("flux") / "text_encoder_2" / "config.json").read_text())
    again = loading.assemble(
        type(t5), config, dict(load("flux").text_encoders[1].state_dict()), torch.float16, Path("t5")
    )
    assert {n: p.dtype for n, p in again.named_parameters()} == {n: p.dtype for n, p in t5.named_parameters()}
    assert torch.float32 in {p.dtype for p in again.parameters()}
