"""One prediction equals the plain diffusers call; pictures go through the VAE and back."""

from __future__ import annotations

import diffusers
import pytest
import torch
from miniatures import FAMILIES, load, tiny

from trainpilot.config.schema import Noise
from trainpilot.families.flux.adapter import image_places, pack, unpack
from trainpilot.families.protocol import Parts, TextOptions
from trainpilot.families.registry import adapter

SIZE = (8, 12)  # latents: not square, so that a swap of height and width shows


def _batch(family: str, parts: Parts) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    x_t = torch.randn(2, 4, *SIZE)
    levels = adapter(family).levels(parts, torch.tensor([0.2, 0.7]), Noise(timesteps="uniform"), SIZE)
    sizes = torch.tensor([[64, 48, 3, 5, 16, 24], [16, 24, 0, 0, 16, 24]]).float()
    return x_t, levels, sizes


def test_sd15_prediction() -> None:
    parts = load("sd15")
    x_t, levels, sizes = _batch("sd15", parts)
    conditioning = adapter("sd15").encode_text(parts, ["a zorp", "a star"], TextOptions())
    given = adapter("sd15").predict(parts, x_t, levels, conditioning, sizes, Noise())
    unet = diffusers.UNet2DConditionModel.from_pretrained(tiny("sd15") / "unet")
    expected = unet(x_t, torch.tensor([200, 700]), encoder_hidden_states=conditioning["context"]).sample
    torch.testing.assert_close(given, expected)


def test_sdxl_prediction_is_told_the_sizes() -> None:
    parts = load("sdxl")
    x_t, levels, sizes = _batch("sdxl", parts)
    conditioning = adapter("sdxl").encode_text(parts, ["a zorp", "a star"], TextOptions())
    given = adapter("sdxl").predict(parts, x_t, levels, conditioning, sizes, Noise())
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(tiny("sdxl"))
    rows = [((64, 48), (3, 5), (16, 24)), ((16, 24), (0, 0), (16, 24))]
    time_ids = torch.cat([pipeline._get_add_time_ids(*row, torch.float32, 32) for row in rows])
    expected = pipeline.unet(
        x_t,
        torch.tensor([200, 700]),
        encoder_hidden_states=conditioning["context"],
        added_cond_kwargs={"text_embeds": conditioning["pooled"], "time_ids": time_ids},
    ).sample
    torch.testing.assert_close(given, expected)
    moved = adapter("sdxl").predict(parts, x_t, levels, conditioning, sizes + 8, Noise())
    assert (moved - given).abs().max() > 1e-4


def test_flux_prediction_packs_as_the_pipeline_does() -> None:
    parts = load("flux")
    x_t, levels, sizes = _batch("flux", parts)
    height, width = SIZE
    conditioning = adapter("flux").encode_text(parts, ["a zorp", "a star"], TextOptions(t5_tokens=32))
    given = adapter("flux").predict(parts, x_t, levels, conditioning, sizes, Noise(guidance=2.0))
    pipeline = diffusers.FluxPipeline
    tokens = pipeline._pack_latents(x_t, 2, 4, height, width)
    places = pipeline._prepare_latent_image_ids(2, height // 2, width // 2, "cpu", torch.float32)
    transformer = diffusers.FluxTransformer2DModel.from_pretrained(tiny("flux") / "transformer")
    out = transformer(
        hidden_states=tokens,
        timestep=torch.tensor([0.2, 0.7]),
        guidance=torch.tensor([2.0, 2.0]),
        pooled_projections=conditioning["pooled"],
        encoder_hidden_states=conditioning["context"],
        txt_ids=torch.zeros(32, 3),
        img_ids=places,
    ).sample
    torch.testing.assert_close(given, pipeline._unpack_latents(out, height * 8, width * 8, 8))
    torch.testing.assert_close(pack(x_t), tokens)
    torch.testing.assert_close(unpack(tokens, height, width), x_t)
    torch.testing.assert_close(image_places(height, width, torch.device("cpu")), places)
    other = adapter("flux").predict(parts, x_t, levels, conditioning, sizes, Noise(guidance=1.0))
    assert (other - given).abs().max() > 1e-5


def test_schnell_takes_no_guidance() -> None:
    parts = load("flux")
    config = dict(parts.denoiser.config) | {"guidance_embeds": False}
    torch.manual_seed(1)
    parts.denoiser = diffusers.FluxTransformer2DModel.from_config(config)
    x_t, levels, sizes = _batch("flux", parts)
    conditioning = adapter("flux").encode_text(parts, ["a", "b"], TextOptions(t5_tokens=16))
    first, second = (
        adapter("flux").predict(parts, x_t, levels, conditioning, sizes, Noise(guidance=g)) for g in (1.0, 4.0)
    )
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_pictures_to_moments_and_back(family: str) -> None:
    parts = load(family)
    vae = diffusers.AutoencoderKL.from_pretrained(tiny(family) / "vae")
    pixels = torch.rand(2, 3, 16, 32) * 2 - 1
    moments = adapter(family).encode_images(parts, pixels)
    expected = vae.encode(pixels).latent_dist
    torch.testing.assert_close(
        moments, torch.cat([expected.mean, vae.encode(pixels).latent_dist.parameters.chunk(2, 1)[1]], 1)
    )
    assert parts.latent_factor == 16 // moments.shape[2] == 2
    shift, scale = {"sd15": (0, 0.18215), "sdxl": (0, 0.13025), "flux": (0.1159, 0.3611)}[family]
    assert (parts.latent_shift, parts.latent_scale) == (shift, scale)
    latents = (expected.mean - shift) * scale
    decoded = adapter(family).decode_latents(parts, latents)
    torch.testing.assert_close(decoded, vae.decode(expected.mean).sample.clamp(-1, 1), atol=1e-4, rtol=1e-4)


def test_autocast_does_not_reach_the_vae() -> None:
    parts = load("sdxl")
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    plain = adapter("sdxl").encode_images(parts, pixels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(adapter("sdxl").encode_images(parts, pixels), plain, rtol=0, atol=0)
