"""Samplers give what diffusers' pipelines give, from the seed alone, and leave the models as they found them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from miniatures import FAMILIES, load, tiny
from PIL import Image

from trainpilot.config.prompts import Prompt
from trainpilot.engine.sampler import encode, sample, sample_batch, samplers_of, save_png, scheduler
from trainpilot.errors import PilotError
from trainpilot.families.protocol import Parts, TextOptions
from trainpilot.families.registry import adapter

PIPELINES = {
    "sd15": diffusers.StableDiffusionPipeline,
    "sdxl": diffusers.StableDiffusionXLPipeline,
    "flux": diffusers.FluxPipeline,
}
PROMPT = Prompt("a red zorp", negative="blurry", width=16, height=24, seed=7, steps=4, guidance=3.0)
OPTIONS = TextOptions(t5_tokens=32)


@lru_cache(maxsize=3)
def _parts(family: str) -> Parts:
    """Shared by the tests that only sample, which must not change them."""
    return load(family)


@lru_cache(maxsize=3)
def _pipeline(family: str) -> Any:
    pipeline = PIPELINES[family].from_pretrained(tiny(family))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _sample(family: str, prompt: Prompt, **options: object) -> Image.Image:
    parts = _parts(family)
    [(positive, negative)] = encode(adapter(family), parts, [prompt], OPTIONS)
    return sample(adapter(family), parts, prompt, positive, negative, **options)


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


CASES = [(family, name) for family in FAMILIES for name in samplers_of(family)]


@pytest.mark.parametrize(("family", "name"), CASES)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_picture_equals_the_pipelines(family: str, name: str, guidance: float) -> None:
    prompt = replace(PROMPT, sampler=name, guidance=guidance, embedded_guidance=2.5)
    parts, pipeline = _parts(family), _pipeline(family)
    pipeline.scheduler = scheduler(family, parts, name)
    [(positive, negative)] = encode(adapter(family), parts, [prompt], OPTIONS)
    given = {"prompt_embeds": positive["context"]}
    if "pooled" in positive:
        given["pooled_prompt_embeds"] = positive["pooled"]
    if negative is not None:
        given["negative_prompt_embeds"] = negative["context"]
        if "pooled" in negative:
            given["negative_pooled_prompt_embeds"] = negative["pooled"]
    if family == "flux":
        given |= {"guidance_scale": 2.5, "true_cfg_scale": guidance}
    else:
        given["guidance_scale"] = guidance
    expected = pipeline(
        **given, width=16, height=24, num_inference_steps=4, generator=torch.Generator().manual_seed(7)
    ).images[0]
    picture = _sample(family, prompt)
    assert picture.size == (16, 24)
    assert np.abs(_pixels(picture) - _pixels(expected)).max() <= 1


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_picture_is_a_function_of_its_prompt(family: str, name: str) -> None:
    prompt = replace(PROMPT, sampler=name)
    first = _sample(family, prompt)
    torch.manual_seed(99)  # what else is drawn does not matter
    assert _pixels(first).tolist() == _pixels(_sample(family, prompt)).tolist()
    assert _pixels(first).tolist() != _pixels(_sample(family, replace(prompt, seed=8))).tolist()
    assert _pixels(first).std() > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_sampling_leaves_training_alone(family: str) -> None:
    parts = load(family)
    [(positive, negative)] = encode(adapter(family), parts, [PROMPT], OPTIONS)
    parts.denoiser.train()
    frozen = next(iter(parts.denoiser.children())).eval()
    before = torch.get_rng_state()
    sample(adapter(family), parts, PROMPT, positive, negative)
    assert torch.equal(before, torch.get_rng_state())
    assert parts.denoiser.training and not frozen.training and not parts.vae.training


def test_a_stop_ends_it_within_a_step_and_restores_the_mode() -> None:
    parts = load("sd15")
    [(positive, negative)] = encode(adapter("sd15"), parts, [PROMPT], OPTIONS)
    parts.denoiser.train()
    seen = []

    def stop(done: int, of: int) -> None:
        seen.append((done, of))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(adapter("sd15"), parts, PROMPT, positive, negative, on_step=stop)
    assert seen == [(1, 4), (2, 4)]
    assert parts.denoiser.training


def test_negative_prompts_and_guidance_change_the_picture() -> None:
    plain = _pixels(_sample("sd15", PROMPT)).tolist()
    assert plain != _pixels(_sample("sd15", replace(PROMPT, negative="a star"))).tolist()
    assert plain != _pixels(_sample("sd15", replace(PROMPT, guidance=6.0))).tolist()
    assert plain != _pixels(_sample("sd15", replace(PROMPT, guidance=1.0))).tolist()


def test_embedded_guidance_changes_a_flux_picture() -> None:
    prompt = replace(PROMPT, guidance=1.0, embedded_guidance=1.0)
    other = replace(prompt, embedded_guidance=30.0)
    assert _pixels(_sample("flux", prompt)).tolist() != _pixels(_sample("flux", other)).tolist()


def test_guidance_on_flux_is_said_to_be_slow(caplog: pytest.LogCaptureFixture) -> None:
    _sample("flux", PROMPT)
    assert "doubles the time" in caplog.text


def test_sizes_are_rounded_to_what_the_model_makes() -> None:
    assert _sample("flux", replace(PROMPT, width=23, height=17)).size == (20, 16)


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_samplers_are_refused(family: str) -> None:
    other = "flow_euler" if family != "flux" else "euler"
    for name in (other, "dpm"):
        with pytest.raises(PilotError, match=samplers_of(family)[0]):
            scheduler(family, _parts(family), name)


def test_zero_terminal_snr_samples_from_pure_noise() -> None:
    way = scheduler("sd15", _parts("sd15"), "ddim", zero_terminal_snr=True)
    way.set_timesteps(10)
    assert int(way.timesteps[0]) == 999 and float(way.alphas_cumprod[999]) == pytest.approx(0, abs=1e-6)


def test_bf16_arithmetic_gives_nearly_the_same_picture() -> None:
    exact, coarse = _pixels(_sample("sd15", PROMPT)), _pixels(_sample("sd15", PROMPT, dtype=torch.bfloat16))
    assert 0 < np.abs(exact - coarse).mean() < 8


def test_the_png_carries_its_making(tmp_path: Path) -> None:
    prompt = replace(PROMPT, text="ein grüner Zorp")
    path = save_png(_sample("sd15", prompt), tmp_path / "samples" / "step-00000001_p0.png", prompt, "ddim", step="1")
    text = Image.open(path).text
    assert text["prompt"] == "ein grüner Zorp" and text["seed"] == "7" and text["sampler"] == "ddim"
    assert text["step"] == "1" and text["guidance"] == "3"
    assert text["parameters"] == (
        "ein grüner Zorp\nNegative prompt: blurry\nSteps: 4, Sampler: ddim, CFG scale: 3, Seed: 7, Size: 16x24"
    )
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_the_pictures_of_its_prompts(family: str) -> None:
    """Each from its own text and seed; larger matrix products round differently, by a grey level at most or so."""
    prompts = [PROMPT, replace(PROMPT, text="a star", seed=8), replace(PROMPT, negative="a heart", seed=9)]
    parts = _parts(family)
    pairs = encode(adapter(family), parts, prompts, OPTIONS)
    together = sample_batch(adapter(family), parts, prompts, pairs)
    alone = [_sample(family, prompt) for prompt in prompts]
    assert len({picture.tobytes() for picture in together}) == 3
    for one, other in zip(together, alone, strict=True):
        assert np.abs(_pixels(one) - _pixels(other)).max() <= 2


def test_prompts_of_one_batch_agree_in_their_settings() -> None:
    parts = _parts("sd15")
    prompts = [PROMPT, replace(PROMPT, steps=PROMPT.steps + 1)]
    with pytest.raises(ValueError, match="agree"):
        sample_batch(adapter("sd15"), parts, prompts, encode(adapter("sd15"), parts, prompts, OPTIONS))
