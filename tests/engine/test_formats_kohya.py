"""Kohya and PEFT files: written, read back exactly, converted both ways, and read by a reader written from scratch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lora_states import delta, lora, same, state
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from trainpilot.errors import PilotError, RunFailed
from trainpilot.families.card import card
from trainpilot.formats import effect, kohya, load, peft, storage
from trainpilot.formats.convert import convert
from trainpilot.formats.identify import identify
from trainpilot.formats.state import DOWN, UP, AdapterState, ModuleWeights

FAMILIES = ("sd15", "sdxl", "flux")
VERSION = {family: card(family).ss_base_model_version for family in FAMILIES}
# One module of every kind a family has, in small; all attention parts have the same width.
SMALL = {
    "sd15": {
        "denoiser": {
            "down_blocks.0.attentions.0.proj_in": [16, 16, 1, 1],
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q": [16, 16],
            "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k": [16, 24],
            "mid_block.resnets.0.conv1": [16, 16, 3, 3],
        },
        "text_encoder": {"encoder.layers.0.self_attn.q_proj": [8, 8], "encoder.layers.0.mlp.fc1": [32, 8]},
    },
    "sdxl": {
        "denoiser": {
            "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q": [16, 16],
            "up_blocks.0.resnets.2.conv_shortcut": [16, 24, 1, 1],
            "up_blocks.0.upsamplers.0.conv": [16, 16, 3, 3],
            "add_embedding.linear_1": [16, 8],
        },
        "text_encoder": {"encoder.layers.0.self_attn.q_proj": [8, 8]},
        "text_encoder_2": {"text_model.encoder.layers.0.self_attn.q_proj": [8, 8]},
    },
    "flux": {
        "denoiser": {
            **{f"transformer_blocks.0.attn.{n}": [16, 16] for n in ("to_q", "to_k", "to_v", "to_out.0")},
            **{f"transformer_blocks.0.attn.add_{n}_proj": [16, 16] for n in "qkv"},
            "transformer_blocks.0.ff.net.0.proj": [64, 16],
            **{f"single_transformer_blocks.1.attn.{n}": [16, 16] for n in ("to_q", "to_k", "to_v")},
            "single_transformer_blocks.1.proj_mlp": [64, 16],
            "norm_out.linear": [32, 16],
        },
        "text_encoder": {"encoder.layers.0.self_attn.q_proj": [8, 8]},
    },
}


def metadata(family: str) -> dict[str, str]:
    return {"ss_base_model_version": VERSION[family]}


# --- a reader that owes nothing to the code under test ----------------------------------------------------------------
SGM = {  # of the modules of SMALL, from the published layout of the XL U-Net
    "down_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q": "input_blocks_5_1_transformer_blocks_0_attn1_to_q",
    "up_blocks.0.resnets.2.conv_shortcut": "output_blocks_2_0_skip_connection",
    "up_blocks.0.upsamplers.0.conv": "output_blocks_2_2_conv",
    "add_embedding.linear_1": "label_emb_0_0",
}
FUSED = {  # original matrix -> modules in row order
    "double_blocks_0_img_attn_qkv": ["transformer_blocks.0.attn." + n for n in ("to_q", "to_k", "to_v")],
    "double_blocks_0_txt_attn_qkv": [f"transformer_blocks.0.attn.add_{n}_proj" for n in "qkv"],
    "double_blocks_0_img_attn_proj": ["transformer_blocks.0.attn.to_out.0"],
    "double_blocks_0_img_mlp_0": ["transformer_blocks.0.ff.net.0.proj"],
    "single_blocks_1_linear1": [
        *("single_transformer_blocks.1.attn." + n for n in ("to_q", "to_k", "to_v")),
        "single_transformer_blocks.1.proj_mlp",
    ],
}


def as_comfyui_reads(file: Path) -> dict[str, Tensor]:
    """name -> change of the original model's weight: alpha / rank * up @ down, a missing alpha meaning scale one."""
    tensors = load_file(file)
    changes = {}
    for key, down in tensors.items():
        if key.endswith(".lora_down.weight"):
            name = key.removesuffix(".lora_down.weight")
            up, alpha = tensors[name + ".lora_up.weight"].float(), tensors.get(name + ".alpha")
            scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
            changes[name] = ((up.flatten(1) @ down.float().flatten(1)) * scale).reshape(up.shape[0], *down.shape[1:])
    return changes


def expected_changes(family: str, given: AdapterState) -> dict[str, Tensor]:
    """The same from the adapter's formula and the original model's layout, written down by hand above."""
    found = {}
    prefix = {"sd15": "lora_te_", "sdxl": "lora_te1_", "flux": "lora_te1_"}[family]
    for name, weights in given.get("text_encoder", {}).items():
        found[prefix + "text_model_" + name.replace(".", "_")] = delta(weights)
    for name, weights in given.get("text_encoder_2", {}).items():
        found["lora_te2_" + name.replace(".", "_")] = delta(weights)
    denoiser = given["denoiser"]
    if family == "flux":
        shapes = SMALL["flux"]["denoiser"]
        for name, parts in FUSED.items():
            if any(part in denoiser for part in parts):
                rows = [delta(denoiser[p]) if p in denoiser else torch.zeros(shapes[p]) for p in parts]
                found["lora_unet_" + name] = torch.cat(rows)
        if "norm_out.linear" in denoiser:
            scale, shift = delta(denoiser["norm_out.linear"]).chunk(2)
            found["lora_unet_final_layer_adaLN_modulation_1"] = torch.cat([shift, scale])
        return found
    for name, weights in denoiser.items():
        found["lora_unet_" + (SGM[name] if family == "sdxl" else name.replace(".", "_"))] = delta(weights)
    return found


@st.composite
def adapters(draw: st.DrawFn, *, regular: bool) -> tuple[str, AdapterState]:
    """A family and LoRAs on a random subset of its modules, with random ranks.

    regular: one alpha for all modules of a U-Net, one scale for all of a transformer, as the engine makes them; else
    every module has a random alpha.
    """
    family = draw(st.sampled_from(FAMILIES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    alphas = st.one_of(st.integers(1, 300).map(float), st.sampled_from([0.1, 0.5, 1.3, 2048.5]))
    common = draw(alphas)
    found: AdapterState = {}
    for component, shapes in SMALL[family].items():
        for name in sorted(draw(st.sets(st.sampled_from(sorted(shapes)), min_size=1))):
            rank = draw(st.integers(1, 5))
            regular_alpha = round(common * rank, 4) if family == "flux" else common
            alpha = regular_alpha if regular else draw(alphas)
            found.setdefault(component, {})[name] = lora(shapes[name], rank, alpha, generator)
    return family, found


@settings(max_examples=60)
@given(given_=adapters(regular=True), dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_both_namings_come_back_bit_for_bit_and_convert_into_one_another(
    tmp_path_factory: pytest.TempPathFactory, given_: tuple[str, AdapterState], dtype: torch.dtype
) -> None:
    family, given = given_
    folder = tmp_path_factory.mktemp("round")
    saved = {
        component: {
            name: ModuleWeights(w.type, {leaf: t.to(dtype) for leaf, t in w.tensors.items()}, w.rank, w.alpha)
            for name, w in modules.items()
        }
        for component, modules in given.items()
    }
    assert kohya.write(folder / "a.safetensors", family, given, metadata(family), dtype) == []
    assert same(load.read(folder / "a.safetensors").state, saved)
    convert(folder / "a.safetensors", folder / "b.safetensors")
    assert identify(folder / "b.safetensors").naming == "peft"
    assert same(load.read(folder / "b.safetensors").state, saved)
    convert(folder / "b.safetensors", folder / "c.safetensors")
    assert (folder / "c.safetensors").read_bytes() == (folder / "a.safetensors").read_bytes()


@settings(max_examples=40)
@given(adapters(regular=False))
def test_an_independent_reader_finds_the_adapters_effect(
    tmp_path_factory: pytest.TempPathFactory, given_: tuple[str, AdapterState]
) -> None:
    family, given = given_
    file = tmp_path_factory.mktemp("effect") / "a.safetensors"
    kohya.write(file, family, given, metadata(family), torch.float32)
    found, wanted = as_comfyui_reads(file), expected_changes(family, given)
    assert found.keys() == wanted.keys()
    for name, change in wanted.items():
        torch.testing.assert_close(found[name], change, rtol=1e-4, atol=1e-6)
    # and our own reader gives the same function, whatever had to be moved between alpha and weights
    again = load.read(file).state
    for component, modules in given.items():
        for name, weights in modules.items():
            torch.testing.assert_close(delta(again[component][name]), delta(weights), rtol=1e-4, atol=1e-6)


def test_differing_alphas_are_evened_out_where_diffusers_would_lose_them(tmp_path: Path) -> None:
    given = state(SMALL["sd15"], rank=4, alpha=2.0)
    given["denoiser"]["mid_block.resnets.0.conv1"].alpha = 6.0
    notes = kohya.write(tmp_path / "a.safetensors", "sd15", given, {}, torch.float32)
    assert len(notes) == 1
    assert "1 modules" in notes[0]
    assert identify(tmp_path / "a.safetensors").alphas == [2.0]


def test_merged_matrices_have_stacked_downs_and_a_block_diagonal_up(tmp_path: Path) -> None:
    given = state(SMALL["flux"], rank=4, alpha=2.0)
    kohya.write(tmp_path / "a.safetensors", "flux", given, metadata("flux"), torch.float32)
    tensors = load_file(tmp_path / "a.safetensors")
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    up = tensors[name + ".lora_up.weight"]
    assert tensors[name + ".lora_down.weight"].shape == (12, 16)
    assert float(tensors[name + ".alpha"]) == 6.0
    for part, module in enumerate(FUSED["double_blocks_0_img_attn_qkv"]):
        block = up[16 * part : 16 * (part + 1)]
        assert torch.equal(block[:, 4 * part : 4 * (part + 1)], given["denoiser"][module].tensors[UP])
        assert int((block != 0).sum()) == 16 * 4
    # Another trainer's file of this kind has no record of ours; equal blocks are recognised by their zeros.
    bare = {key: value for key, value in tensors.items() if key.startswith("lora_unet_double")}
    kept = {c: {n: w for n, w in m.items() if n.startswith("transformer_blocks")} for c, m in given.items()}
    storage.write(tmp_path / "b.safetensors", bare, {})
    assert same(load.read(tmp_path / "b.safetensors").state, {"denoiser": kept["denoiser"]})


def test_a_dense_fused_import_is_the_same_function_and_comes_back_dense(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    name = "lora_unet_single_blocks_1_linear1"
    tensors = {
        f"{name}.lora_down.weight": torch.randn(6, 16, generator=generator),
        f"{name}.lora_up.weight": torch.randn(16 * 3 + 64, 6, generator=generator),
        f"{name}.alpha": torch.tensor(3.0),
    }
    storage.write(tmp_path / "a.safetensors", tensors, {})
    file = load.read(tmp_path / "a.safetensors")
    assert file.family == "flux"
    change = as_comfyui_reads(tmp_path / "a.safetensors")[name]
    parts = [delta(file.state["denoiser"][module]) for module in FUSED["single_blocks_1_linear1"]]
    torch.testing.assert_close(torch.cat(parts), change)
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    convert(tmp_path / "b.safetensors", tmp_path / "c.safetensors")
    again = load_file(tmp_path / "c.safetensors")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_what_cannot_be_merged_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    weights = ModuleWeights(kind, {f"{'hada' if kind == 'loha' else 'lokr'}_w1": torch.ones(4, 4)}, 4, 4.0)
    with pytest.raises(PilotError, match=r"transformer_blocks\.0\.attn\.to_q.*img_attn_qkv"):
        kohya.write(
            tmp_path / "a.safetensors",
            "flux",
            {"denoiser": {"transformer_blocks.0.attn.to_q": weights}},
            {},
            torch.float32,
        )
    assert not list(tmp_path.iterdir())


def test_dora_over_a_whole_matrix_is_merged_and_over_a_part_refused(tmp_path: Path) -> None:
    given = state(SMALL["flux"], dora=True, keep="transformer_blocks")
    kohya.write(tmp_path / "a.safetensors", "flux", given, {}, torch.float32)
    assert load_file(tmp_path / "a.safetensors")["lora_unet_double_blocks_0_img_attn_qkv.dora_scale"].shape == (48, 1)
    assert same(load.read(tmp_path / "a.safetensors").state, given)
    del given["denoiser"]["transformer_blocks.0.attn.to_k"]
    with pytest.raises(PilotError, match=r"dora over double_blocks_0_img_attn_qkv.*to_k"):
        kohya.write(tmp_path / "b.safetensors", "flux", given, {}, torch.float32)


def test_dora_scale_is_one_norm_for_each_output_row(tmp_path: Path) -> None:
    given = state(SMALL["sd15"], dora=True)
    kohya.write(tmp_path / "a.safetensors", "sd15", given, {}, torch.float32)
    tensors = load_file(tmp_path / "a.safetensors")
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.dora_scale"
    assert tensors[key].shape == (16, 1)
    assert tensors["lora_unet_mid_block_resnets_0_conv1.dora_scale"].shape == (16, 1, 1, 1)
    tensors[key] = torch.ones(1, 24)
    storage.write(tmp_path / "b.safetensors", tensors, {})
    with pytest.raises(PilotError, match="each input column"):
        load.read(tmp_path / "b.safetensors")


def test_lycoris_takes_two_whole_factors_at_scale_one(tmp_path: Path) -> None:
    factors = {"lokr_w1": torch.randn(4, 4), "lokr_w2": torch.randn(4, 4)}
    weights = ModuleWeights("lokr", factors, 8, 4.0)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    kohya.write(tmp_path / "a.safetensors", "sd15", {"denoiser": {name: weights}}, metadata("sd15"), torch.float32)
    stored = load_file(tmp_path / "a.safetensors")
    joined = "lora_unet_" + name.replace(".", "_")
    torch.testing.assert_close(
        torch.kron(stored[joined + ".lokr_w1"], stored[joined + ".lokr_w2"]), torch.kron(*factors.values()) * 0.5
    )
    again = load.read(tmp_path / "a.safetensors").state["denoiser"][name]
    assert again.rank == 8
    size = torch.Size([16, 16])
    torch.testing.assert_close(effect.delta(again, size), effect.delta(weights, size))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 70000.0])
def test_nothing_that_is_not_finite_is_ever_saved(tmp_path: Path, value: float) -> None:
    given = state(SMALL["sd15"])
    given["denoiser"]["mid_block.resnets.0.conv1"].tensors[DOWN][0, 0, 0, 0] = value
    with pytest.raises(RunFailed, match="conv1"):
        kohya.write(tmp_path / "a.safetensors", "sd15", given, {}, torch.float16)
    with pytest.raises(RunFailed, match="conv1"):
        peft.write(tmp_path / "b.safetensors", "sd15", given, {}, torch.float16)
    assert not list(tmp_path.iterdir())


def test_the_file_is_deterministic_and_carries_both_hashes(tmp_path: Path) -> None:
    given = state({"denoiser": card("sd15").shapes()["denoiser"]}, rank=4)
    many = {f"ss_key_{i}": str(i) for i in range(50)} | {"modelspec.title": "zörp", **metadata("sd15")}
    kohya.write(tmp_path / "a.safetensors", "sd15", given, many, torch.float16)
    kohya.write(tmp_path / "b.safetensors", "sd15", given, dict(reversed(many.items())), torch.float16)
    content = (tmp_path / "a.safetensors").read_bytes()
    assert content == (tmp_path / "b.safetensors").read_bytes()
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        found = file.metadata()
    start = 8 + int.from_bytes(content[:8], "little")
    assert found["sshs_model_hash"] == hashlib.sha256(content[start:]).hexdigest()
    assert {key: found[key] for key in many} == many
    # the legacy hash is over the file as it would be with the ss_ keys alone
    header = json.loads(content[8:start])
    header["__metadata__"] = {key: value for key, value in sorted(many.items()) if key.startswith("ss_")}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    plain = len(text).to_bytes(8, "little") + text + content[start:]
    assert len(plain) > 0x110000, "the test needs a file that reaches past the hashed window"
    assert found["sshs_legacy_hash"] == hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8]


@pytest.mark.parametrize("family", FAMILIES)
def test_identification_reads_the_header_alone(tmp_path: Path, family: str) -> None:
    given = state(SMALL[family], rank=4, alpha=2.0)
    for write in (kohya.write, peft.write):
        write(tmp_path / "a.safetensors", family, given, metadata(family), torch.bfloat16)
        found = identify(tmp_path / "a.safetensors")
        assert (found.family, found.kind, found.dtype) == (family, "lora", "bf16")
        assert 4 in found.ranks
        assert 2.0 in found.alphas
        assert json.dumps(found.as_dict())


def test_files_of_other_trainers_are_recognised_by_their_widths(tmp_path: Path) -> None:
    for width, family in ((768, "sd15"), (1024, "sd15"), (2048, "sdxl")):
        name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
        tensors = {f"{name}.lora_down.weight": torch.ones(2, width), f"{name}.lora_up.weight": torch.ones(640, 2)}
        storage.write(tmp_path / "a.safetensors", tensors, {})
        file = load.read(tmp_path / "a.safetensors")
        assert file.family == family
        # no alpha means scale one
        assert next(iter(file.state["denoiser"].values())).scale == 1.0


def test_what_is_no_lora_is_named(tmp_path: Path) -> None:
    storage.write(tmp_path / "a.safetensors", {"model.weight": torch.ones(2)}, {})
    with pytest.raises(PilotError, match=r"model\.weight"):
        identify(tmp_path / "a.safetensors")
    broken = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 16)}
    storage.write(tmp_path / "b.safetensors", broken, {})
    with pytest.raises(PilotError, match="img_attn_qkv"):
        load.read(tmp_path / "b.safetensors")
    kohya.write(tmp_path / "c.safetensors", "sd15", state(SMALL["sd15"]), metadata("sd15"), torch.float32)
    whole = (tmp_path / "c.safetensors").read_bytes()
    (tmp_path / "c.safetensors").write_bytes(whole[:-10])
    with pytest.raises(PilotError, match="truncated"):
        load.read(tmp_path / "c.safetensors")


def test_an_edited_record_of_parts_is_refused(tmp_path: Path) -> None:
    given = state(SMALL["flux"], rank=4)
    tensors, further, _ = kohya.encode("flux", given, torch.float32)
    records = json.loads(further[kohya.PARTS_KEY])
    records["lora_unet_double_blocks_0_img_attn_qkv"][0][0] = 7
    storage.write(tmp_path / "a.safetensors", tensors, {kohya.PARTS_KEY: json.dumps(records)})
    with pytest.raises(PilotError, match="rank 15 together"):
        load.read(tmp_path / "a.safetensors")


def test_conversion_never_overwrites(tmp_path: Path) -> None:
    kohya.write(tmp_path / "a.safetensors", "sd15", state(SMALL["sd15"]), metadata("sd15"), torch.float32)
    assert convert(tmp_path / "a.safetensors").target.path == tmp_path / "a.diffusers.safetensors"
    with pytest.raises(PilotError, match="exists already"):
        convert(tmp_path / "a.safetensors")
