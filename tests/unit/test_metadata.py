"""Metadata of the result: every key of the facts, strings only, the same for the same input."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.samples import Sample
from trainpilot.datasets.table import Table
from trainpilot.families.card import card
from trainpilot.formats.metadata import Progress, build

# The keys that sd-scripts writes (its names, which other tools read), with folder datasets.
SS_TEXT = """
session_id training_started_at training_finished_at output_name learning_rate text_encoder_lr unet_lr
num_train_images num_reg_images num_batches_per_epoch num_epochs gradient_checkpointing gradient_accumulation_steps
max_train_steps lr_warmup_steps lr_scheduler network_module network_dim network_alpha network_dropout network_args
mixed_precision v2 base_model_version clip_skip max_token_length cache_latents seed noise_offset
multires_noise_iterations multires_noise_discount adaptive_noise_scale zero_terminal_snr training_comment optimizer
max_grad_norm caption_dropout_rate caption_dropout_every_n_epochs caption_tag_dropout_rate prior_loss_weight
min_snr_gamma scale_weight_norms ip_noise_gamma debiased_estimation loss_type steps epoch sd_model_name
sd_model_hash new_sd_model_hash vae_name vae_hash new_vae_hash batch_size_per_device total_batch_size resolution
shuffle_caption enable_bucket bucket_no_upscale min_bucket_reso max_bucket_reso keep_tokens dataset_dirs
reg_dataset_dirs tag_frequency bucket_info
"""
SS_KEYS = set(SS_TEXT.split())
PROGRESS = Progress(
    session_id=11,
    started_at=1_700_000_000.5,
    finished_at=1_700_000_600.0,
    step=100,
    steps=200,
    epoch=3,
    epochs=5,
    batches_per_epoch=40,
)
BASE = {"ss_sd_model_name": "tiny", "ss_sd_model_hash": "01234567", "ss_new_sd_model_hash": "f" * 64}


def sample(index: int, caption: str, *, folder: str = "10_zorp", regularization: bool = False) -> Sample:
    return Sample(
        index=index,
        image=Path(f"{index}.png"),
        size=(64, 48),
        bucket=(64, 64),
        resized=(85, 64),
        crop=(10, 0),
        dataset=0,
        repeats=10,
        caption=caption,
        regularization=regularization,
        folder=folder,
    )


@pytest.fixture
def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "datasets": [{"path": "10_zorp", "captions": {"trigger": "zorp", "shuffle": True}}],
            "buckets": {"resolution": 512},
            "network": {"rank": 8, "alpha": 4.0, "conv_rank": 2},
            "saving": {"author": "A. Person", "license": "CC0"},
        }
    )


@pytest.fixture
def table() -> Table:
    return Table([sample(0, "zorp, red"), sample(1, "zorp, blue"), sample(2, "a cat", folder="", regularization=True)])


def made(config: RunConfig, table: Table, family: str = "sd15", prediction: str = "epsilon") -> dict[str, str]:
    return build(config, card(family), table, PROGRESS, BASE, prediction=prediction, name="zorp")


def test_every_key_is_there_and_every_value_is_a_string(config: RunConfig, table: Table) -> None:
    found = made(config, table)
    assert {key.removeprefix("ss_") for key in found if key.startswith("ss_")} == SS_KEYS
    assert all(isinstance(value, str) for value in found.values())
    assert found["ss_vae_hash"] == "None"
    assert found["ss_clip_skip"] == "None"


def test_the_same_input_gives_the_same_metadata(config: RunConfig, table: Table) -> None:
    assert made(config, table) == made(config, table)
    later = dataclasses.replace(PROGRESS, finished_at=PROGRESS.finished_at + 1)
    other = build(config, card("sd15"), table, later, BASE, prediction="epsilon", name="zorp")
    changed = {key for key in other if other[key] != made(config, table)[key]}
    assert changed == {"ss_training_finished_at", "modelspec.date"}


def test_what_the_files_hold_about_the_data(config: RunConfig, table: Table) -> None:
    found = made(config, table)
    assert json.loads(found["ss_tag_frequency"]) == {"10_zorp": {"zorp": 2, "red": 1, "blue": 1}}
    assert json.loads(found["ss_dataset_dirs"]) == {"10_zorp": {"n_repeats": 10, "img_count": 2}}
    # a picture in the dataset's own folder is listed under that folder's name
    assert json.loads(found["ss_reg_dataset_dirs"]) == {"10_zorp": {"n_repeats": 10, "img_count": 1}}
    buckets = json.loads(found["ss_bucket_info"])
    assert buckets["buckets"] == {"0": {"resolution": [64, 64], "count": 30}}
    assert buckets["mean_img_ar_error"] == pytest.approx(64 / 48 - 1)
    assert (found["ss_num_train_images"], found["ss_num_reg_images"]) == ("20", "10")
    assert found["ss_resolution"] == "(512, 512)"


def test_network_arguments_tell_what_dim_and_alpha_do_not(config: RunConfig, table: Table) -> None:
    assert json.loads(made(config, table)["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "1.0"}
    config.network.type = "lokr"
    found = made(config, table)
    assert found["ss_network_module"] == "lycoris.kohya"
    assert json.loads(found["ss_network_args"])["algo"] == "lokr"


@pytest.mark.parametrize(
    ("family", "prediction", "architecture", "version", "said"),
    [
        ("sd15", "epsilon", "stable-diffusion-v1/lora", "sd_v1", "epsilon"),
        ("sdxl", "v_prediction", "stable-diffusion-xl-v1-base/lora", "sdxl_base_v1-0", "v"),
        ("flux", "flow", "flux-1-dev/lora", "flux1", None),
    ],
)
def test_the_model_specification(
    config: RunConfig, table: Table, family: str, prediction: str, architecture: str, version: str, said: str | None
) -> None:
    found = made(config, table, family, prediction)
    assert found["modelspec.sai_model_spec"] == "1.0.1"
    assert found["modelspec.architecture"] == architecture
    assert found["ss_base_model_version"] == version
    assert found.get("modelspec.prediction_type") == said
    assert found["modelspec.title"] == "zorp"
    assert found["modelspec.trigger_phrase"] == "zorp"
    assert found["modelspec.license"] == "CC0"
    assert "modelspec.description" not in found
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", found["modelspec.date"])
