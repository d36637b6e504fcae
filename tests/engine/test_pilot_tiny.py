"""The shipped pilot-tiny draws what captions say, its VAE carries the demo character, its CLIP tells pictures apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from scripts.pilot_tiny import clip, demo_data, generate, measure, scenes, vae, zorp
from scripts.pilot_tiny.pictures import as_tensor

MODELS = Path(__file__).parents[2] / "workspace-template" / "models"
TINY, CLIP = MODELS / "pilot-tiny", MODELS / "pilot-tiny-clip"
TOKENIZER = CLIPTokenizer.from_pretrained(TINY / "tokenizer")


LEARNT = {"colour": 0.85, "background": 0.85, "position": 0.85, "shape": 0.5}
"""Bounds well below the card's figures for 200 scenes; chance is 0.13, 0.1, 0.11 and 0.13."""
READ = {"colour": 0.9, "background": 0.9, "position": 0.4, "shape": 0.25}
"""The same of the CLIP, on real drawings."""


def test_it_draws_what_captions_say() -> None:
    """24 scenes, measured by the pixels and by the CLIP."""
    wanted = measure.measured_scenes(24, seed="test of pilot-tiny")
    pictures = generate.pictures(TINY, wanted, seed=1000)
    pixels, fits = measure.accuracy(pictures, wanted), clip.accuracy(CLIP, pictures, wanted)
    assert {name: pixels[name] for name, least in LEARNT.items() if pixels[name] < least} == {}
    assert {name: fits[name] for name in ("colour", "background") if fits[name] < LEARNT[name] - 0.2} == {}


def test_the_clip_reads_real_drawings() -> None:
    wanted = measure.measured_scenes(40, seed="test of the CLIP")
    fits = clip.accuracy(CLIP, [scenes.draw(scene) for scene in wanted], wanted)
    assert {name: fits[name] for name, least in READ.items() if fits[name] < least} == {}


def test_the_vae_carries_the_demo_character() -> None:
    model = AutoencoderKL.from_pretrained(TINY / "vae", torch_dtype=torch.float32)
    quality = vae.psnr(model, as_tensor([zorp.draw(one) for one in demo_data.trained()]))
    assert np.mean(quality) >= vae.GATE_DB


def test_latents_have_the_size_the_u_net_was_trained_on() -> None:
    """scaling_factor brings the world's latents to DEVIATION, measured anew on other scenes."""
    model = AutoencoderKL.from_pretrained(TINY / "vae", torch_dtype=torch.float32)
    pictures = as_tensor([scenes.draw(scene) for scene in measure.measured_scenes(64, seed="latents")])
    with torch.no_grad():
        latents = model.encode(pictures).latent_dist.mode() * model.config.scaling_factor
    assert float(latents.std()) == pytest.approx(vae.DEVIATION, rel=0.1)


def test_it_is_a_plain_stable_diffusion_folder() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(TINY, local_files_only=True)
    assert pipeline.safety_checker is None
    assert pipeline.unet.config.cross_attention_dim == pipeline.text_encoder.config.hidden_size
    assert pipeline.text_encoder.config.eos_token_id == pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer.model_max_length == pipeline.text_encoder.config.max_position_embeddings == 77
    betas = (pipeline.scheduler.config.beta_schedule, pipeline.scheduler.config.prediction_type)
    assert betas == ("scaled_linear", "v_prediction")


def test_all_models_together_are_small() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 20_000_000


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_prompt_can_be_typed(text: str) -> None:
    """Bytes stand behind every token: what comes back differs in case and spaces at most, as with CLIP's own."""
    text = text.replace("<|", "")
    ids = TOKENIZER(text).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.eos_token_id not in ids[1:-1]
    normal = TOKENIZER.backend_tokenizer.normalizer.normalize_str(text)
    back = TOKENIZER.decode(ids, skip_special_tokens=True)
    assert re.sub(r"\s", "", back) == re.sub(r"\s", "", normal)


def test_the_worlds_words_are_single_tokens() -> None:
    for word in (*scenes.SHAPES, *scenes.BACKGROUNDS, *scenes.SIZES, "background", "left", "right", "top", "bottom"):
        assert len(TOKENIZER(word).input_ids) == 3, word
    assert len(TOKENIZER("zorp").input_ids) > 3
