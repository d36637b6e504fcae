"""Names of modules in files: full-size coverage frozen against the facts, every name there and back, no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.errors import PilotError
from trainpilot.families.card import card, cards, select
from trainpilot.formats.names import names, unmergeable
from trainpilot.formats.words import UNET, join, split

EVERY = [(family, variant) for family in cards() for variant in (None, *card(family).variants)]


def kohya_names(family: str, component: str, modules: list[str]) -> set[str]:
    table = names(family)
    return {f"{table.KOHYA[component]}_{table.place(component, module).name}" for module in modules}


@pytest.mark.parametrize(("family", "variant"), EVERY)
def test_every_module_of_the_full_size_model_has_a_name_that_leads_back(family: str, variant: str | None) -> None:
    table = names(family)
    for component, modules in card(family).shapes(variant).items():
        for module in modules:
            place = table.place(component, module)
            assert module in place.parts
            assert table.modules(component, place.name) == place.parts
        # Different modules never share a name, other than as parts of one matrix.
        places = {table.place(component, module).name: table.place(component, module).parts for module in modules}
        assert sum(len(parts) for parts in places.values()) == len(modules)


@pytest.mark.parametrize(
    ("family", "component", "expected"),
    [
        # 16 transformers: proj_in, proj_out and 10 linears in the one block of each
        ("sd15", "denoiser", 16 * (2 + 10)),
        ("sd15", "text_encoder", 12 * 6),
        # 11 transformers with 70 blocks in all
        ("sdxl", "denoiser", 11 * 2 + 70 * 10),
        ("sdxl", "text_encoder", 12 * 6),
        ("sdxl", "text_encoder_2", 32 * 6),
        # per double block 2 modulations and 8 matrices; per single block 3
        ("flux", "denoiser", 19 * 10 + 38 * 3),
        ("flux", "text_encoder", 12 * 6),
        ("flux", "text_encoder_2", 24 * 7),
    ],
)
def test_kohya_coverage_of_the_full_size_models(family: str, component: str, expected: int) -> None:
    shapes = card(family).shapes()[component]
    preset = card(family).targets["kohya"] if component == "denoiser" else [*card(family).text_targets, "*.layer.*"]
    assert len(kohya_names(family, component, select(shapes, preset))) == expected


@pytest.mark.parametrize(
    ("family", "component", "module", "expected"),
    [
        (
            *("sd15", "denoiser", "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"),
            "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        ),
        (
            *("sd15", "text_encoder", "encoder.layers.0.self_attn.q_proj"),
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
        ),
        (
            *("sd15", "text_encoder", "text_model.encoder.layers.0.mlp.fc1"),
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ),
        ("sdxl", "denoiser", "down_blocks.1.attentions.0.proj_in", "lora_unet_input_blocks_4_1_proj_in"),
        ("sdxl", "denoiser", "down_blocks.0.downsamplers.0.conv", "lora_unet_input_blocks_3_0_op"),
        ("sdxl", "denoiser", "mid_block.resnets.1.conv2", "lora_unet_middle_block_2_out_layers_3"),
        ("sdxl", "denoiser", "up_blocks.1.upsamplers.0.conv", "lora_unet_output_blocks_5_2_conv"),
        ("sdxl", "denoiser", "up_blocks.2.resnets.2.conv_shortcut", "lora_unet_output_blocks_8_0_skip_connection"),
        (
            *("sdxl", "text_encoder_2", "text_model.encoder.layers.31.mlp.fc2"),
            "lora_te2_text_model_encoder_layers_31_mlp_fc2",
        ),
        ("flux", "denoiser", "transformer_blocks.3.attn.add_k_proj", "lora_unet_double_blocks_3_txt_attn_qkv"),
        ("flux", "denoiser", "transformer_blocks.3.norm1_context.linear", "lora_unet_double_blocks_3_txt_mod_lin"),
        ("flux", "denoiser", "single_transformer_blocks.37.proj_mlp", "lora_unet_single_blocks_37_linear1"),
        ("flux", "denoiser", "single_transformer_blocks.0.norm.linear", "lora_unet_single_blocks_0_modulation_lin"),
        (
            *("flux", "text_encoder_2", "encoder.block.0.layer.1.DenseReluDense.wi_0"),
            "lora_te3_encoder_block_0_layer_1_DenseReluDense_wi_0",
        ),
    ],
)
def test_names_as_other_tools_write_them(family: str, component: str, module: str, expected: str) -> None:
    assert kohya_names(family, component, [module]) == {expected}


def test_a_trainer_that_writes_sdxl_with_diffusers_names_is_understood() -> None:
    joined = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    assert names("sdxl").modules("denoiser", joined) == ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",)


@given(st.lists(st.one_of(st.sampled_from(UNET), st.integers(0, 99).map(str), st.sampled_from(["ff", "net", "attn1"]))))
def test_splitting_undoes_joining(words: list[str]) -> None:
    dotted = ".".join(words)
    again = split(join(dotted), UNET)
    # Two words may read as one known word ("proj" and "in" do not occur); what is joined again is always the same.
    assert join(again) == join(dotted)


def test_what_cannot_be_merged_is_named_before_anything_is_spent() -> None:
    block = "transformer_blocks.0.attn"
    query, key, value = f"{block}.to_q", f"{block}.to_k", f"{block}.to_v"
    for kind in ("loha", "lokr"):
        refused = unmergeable("flux", "denoiser", [query, f"{block}.to_out.0"], kind)
        assert list(refused) == [query]
        assert "img_attn_qkv" in refused[query]
    assert list(unmergeable("flux", "denoiser", [query, key], "dora")) == [key, query]
    assert unmergeable("flux", "denoiser", [query, key, value], "dora") == {}
    assert unmergeable("flux", "denoiser", [query], "lora") == {}
    assert unmergeable("sdxl", "denoiser", ["mid_block.resnets.0.conv1"], "lokr") == {}


def test_an_unknown_family_or_module_is_named() -> None:
    with pytest.raises(PilotError, match="nothing_like_it"):
        names("nothing_like_it")
    with pytest.raises(PilotError, match="no_such_module"):
        names("flux").place("denoiser", "no_such_module")


def test_names_and_identification_need_no_torch() -> None:
    code = (
        "import sys, json; import trainpilot.formats.identify, trainpilot.formats.metadata, trainpilot.formats.hashes;"
        "from trainpilot.formats.names import names; [names(f) for f in ('sd15', 'sdxl', 'flux')];"
        "print(json.dumps([m for m in ('torch', 'diffusers', 'transformers', 'peft') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
