"""Hashes of models and LoRA files, against the formulas written out."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from trainpilot.errors import PilotError
from trainpilot.formats import hashes


@pytest.fixture
def content() -> bytes:
    return random.Random(7).randbytes(0x110000 + 1000)


def test_both_hashes_of_a_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    assert hashes.sha256(file) == hashlib.sha256(content).hexdigest()
    assert hashes.legacy_hash(file) == hashlib.sha256(content[0x100000:0x110000]).hexdigest()[:8]
    assert hashes.legacy_hash_of(content) == hashes.legacy_hash(file)


def test_a_file_shorter_than_the_window_hashes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "small.safetensors"
    file.write_bytes(b"12345678")
    assert hashes.legacy_hash(file) == hashlib.sha256(b"").hexdigest()[:8]


def test_a_diffusers_folder_is_known_by_its_denoiser(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "my-model"
    (folder / "unet").mkdir(parents=True)
    (folder / "vae").mkdir()
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"half")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"vae")
    found = hashes.base_hashes(folder, folder)
    assert found["ss_sd_model_name"] == "my-model"
    assert found["ss_new_sd_model_hash"] == hashlib.sha256(content).hexdigest()
    assert found["ss_new_vae_hash"] == hashlib.sha256(b"vae").hexdigest()
    assert hashes.base_hashes(folder, None).keys() == {
        *("ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash"),
    }


def test_a_memoised_digest_is_used(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    assert hashes.base_hashes(file, None, lambda path: f"memo of {path.name}")["ss_new_sd_model_hash"] == (
        "memo of model.safetensors"
    )


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(PilotError, match=r"no \.safetensors file"):
        hashes.base_hashes(tmp_path, None)
