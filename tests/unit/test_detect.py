"""Base models are recognised from headers; what is broken, foreign or dangerous is refused by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from light_bases import flux_folder, sd_folder, single_file, write_safetensors

from trainpilot.errors import PilotError
from trainpilot.models.detect import detect
from trainpilot.models.ondisk import candidates, find_base
from trainpilot.models.safetensors_header import MAX_HEADER, parse_header, read_header
from trainpilot.workspace import Workspace


@pytest.mark.parametrize(
    ("kind", "family", "variant", "prediction"),
    [
        ("sd1", "sd15", "1", "epsilon"),
        ("sd2", "sd15", "2", "v_prediction"),
        ("sdxl", "sdxl", "1", "epsilon"),
        ("dev", "flux", "dev", "flow"),
        ("schnell", "flux", "schnell", "flow"),
    ],
)
def test_single_files_are_told_apart_by_names_and_shapes(
    tmp_path: Path, kind: str, family: str, variant: str, prediction: str
) -> None:
    base = detect(single_file(tmp_path / "m.safetensors", kind))
    assert (base.family, base.variant, base.prediction, base.layout) == (family, variant, prediction, "file")


def test_folders_are_told_apart_by_their_component_classes(tmp_path: Path) -> None:
    sd1 = detect(sd_folder(tmp_path / "sd1"))
    sd2 = detect(sd_folder(tmp_path / "sd2", cross=1024, prediction="v_prediction"))
    sdxl = detect(sd_folder(tmp_path / "sdxl", xl=True))
    dev, schnell = detect(flux_folder(tmp_path / "dev")), detect(flux_folder(tmp_path / "schnell", guidance=False))
    assert [(b.family, b.variant, b.prediction) for b in (sd1, sd2, sdxl, dev, schnell)] == [
        ("sd15", "1", "epsilon"),
        ("sd15", "2", "v_prediction"),
        ("sdxl", "1", "epsilon"),
        ("flux", "dev", "flow"),
        ("flux", "schnell", "flow"),
    ]
    assert all(base.tiny and base.layout == "folder" for base in (sd1, sd2, sdxl, dev, schnell))


def test_a_folder_tells_its_native_size_and_parameters(tmp_path: Path) -> None:
    base = detect(sd_folder(tmp_path / "sd", width=32, cross=32))
    # 16 latents a side, a VAE of three levels (two halvings), a U-Net of two levels (one halving).
    assert (base.resolution, base.latent_factor, base.step) == (64, 4, 8)
    assert base.parameters["denoiser"] == 32 * 4 * 9 + 32 * 128 + 8 * 32 * 32
    assert base.shapes["denoiser"]["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"] == [32, 32]


def test_miniatures_that_diffusers_wrote_are_recognised(tmp_path: Path) -> None:
    registry = pytest.importorskip("trainpilot.families.registry", reason="needs torch")
    for name in ("sd15", "sdxl", "flux"):
        assert detect(registry.adapter(name).tiny(tmp_path / name)).family == name


def test_a_truncated_file_is_named_with_bytes_expected_and_found(tmp_path: Path) -> None:
    path = single_file(tmp_path / "m.safetensors", "sdxl")
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 1000)
    with pytest.raises(PilotError) as caught:
        detect(path)
    assert str(path) in caught.value.where
    assert f"{whole - 1000:,} bytes" in caught.value.given and "1,000 too few" in caught.value.given
    assert f"{whole:,} bytes" in caught.value.allowed


def test_a_truncated_part_of_a_folder_is_named(tmp_path: Path) -> None:
    part = sd_folder(tmp_path / "sd") / "vae" / "diffusion_pytorch_model.safetensors"
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.raises(PilotError, match="truncated"):
        detect(tmp_path / "sd")


@pytest.mark.parametrize("name", ["model.ckpt", "model.PT", "model.bin", "vae.pth"])
def test_pickles_are_refused_unopened(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(PilotError) as caught:
        detect(path)
    assert "pickle" in caught.value.given and ".safetensors" in caught.value.remedy


def test_a_folder_with_pickled_weights_is_refused(tmp_path: Path) -> None:
    folder = sd_folder(tmp_path / "sd")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(PilotError, match="pickle"):
        detect(folder)


def test_a_lora_or_an_unknown_model_is_no_base(tmp_path: Path) -> None:
    lora = write_safetensors(tmp_path / "lora.safetensors", {"lora_unet_x.lora_down.weight": (4, 8)})
    other = write_safetensors(tmp_path / "other.safetensors", {"layers.0.weight": (4, 8)})
    with pytest.raises(PilotError, match="a LoRA file"):
        detect(lora)
    with pytest.raises(PilotError, match="unknown model"):
        detect(other)


def test_a_base_is_found_by_name_and_a_missing_one_lists_what_is_there(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folder = sd_folder(workspace.models / "pilot-tiny")
    sd_folder(workspace.loras / "not-a-base")
    assert find_base(workspace, "pilot-tiny") == folder
    assert list(candidates(workspace)) == [folder]
    with pytest.raises(PilotError) as caught:
        find_base(workspace, "pilot-tyni")
    assert caught.value.remedy == "Did you mean pilot-tiny?"


def test_a_replacement_vae_is_checked_too(tmp_path: Path) -> None:
    vae = write_safetensors(tmp_path / "vae.safetensors", {"encoder.conv_in.weight": (16, 3, 3, 3)})
    assert detect(sd_folder(tmp_path / "sd"), vae).family == "sd15"
    vae.write_bytes(vae.read_bytes()[:-1])
    with pytest.raises(PilotError, match="truncated"):
        detect(tmp_path / "sd", vae)


# ---- the header itself


def _file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": _tensor(0, 8, [2]), "b": _tensor(4, 12, [2])}, 12, "overlaps"),
        ({"a": _tensor(0, 8, [2]), "b": _tensor(12, 16, [1])}, 16, "gap"),
        ({"a": _tensor(0, 8, [3])}, 8, "12 bytes"),
        ({"a": _tensor(8, 0, [2])}, 8, "spans -8"),
        ({"a": _tensor(0, 8, [2**62, 2**62])}, 8, "spans 8"),
        ({"a": _tensor(0, 8, [-2])}, 8, "whole numbers"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}}, 8, "whole numbers"),
        ({"a": _tensor(0, 8, [2], "PICKLE")}, 8, "dtype"),
        ({"a": [1]}, 0, "dtype, shape"),
        ([1, 2], 0, "JSON object"),
        ({"__metadata__": {"a": 1}}, 0, "metadata"),
        ({"a": _tensor(0, 8, [2])}, 20, "after the last tensor"),
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: object, data: int, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(_file(header, bytes(data)))
    with pytest.raises(PilotError, match=message):
        read_header(path)


def test_a_giant_header_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", MAX_HEADER + 1) + b"{}")
    with pytest.raises(PilotError, match="100,000,001"):
        read_header(path)


def test_a_name_that_occurs_twice_is_refused() -> None:
    text = (
        b'{"a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}, "a": {"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    )
    with pytest.raises(PilotError, match="twice"):
        parse_header(Path("x"), text, 1)


@given(st.binary(max_size=400))
def test_any_bytes_give_a_header_or_a_pilot_error(content: bytes) -> None:
    try:
        parse_header(Path("fuzz"), content, 16)
    except PilotError as error:
        assert error.where == "fuzz"


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
_entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "U8", "X"]) | _json_values,
        "shape": st.lists(st.integers(-2, 2**65), max_size=3) | _json_values,
        "data_offsets": st.lists(st.integers(-2, 2**65), min_size=2, max_size=2) | _json_values,
    },
)


@given(st.dictionaries(st.text(max_size=5) | st.just("__metadata__"), _entries | _json_values, max_size=4))
def test_any_json_gives_a_true_header_or_a_pilot_error(header: dict[str, object]) -> None:
    try:
        found = parse_header(Path("fuzz"), json.dumps(header).encode(), 8)
    except PilotError:
        return
    assert sum(entry.end - entry.start for entry in found.tensors.values()) == 8 or not found.tensors
    assert all(0 <= entry.start <= entry.end <= 8 for entry in found.tensors.values())
