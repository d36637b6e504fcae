"""Captions become the conditioning that plain transformers and diffusers give, for one chunk and for several."""

from __future__ import annotations

import diffusers
import pytest
import torch
import transformers
from miniatures import FAMILIES, load, tiny

from trainpilot.errors import PilotError
from trainpilot.families.protocol import TextOptions
from trainpilot.families.registry import adapter

CAPTIONS = ["a red zorp", "", "a small blue star, at the left!"]


@pytest.mark.parametrize("skip", [1, 2, 3])
def test_sd15_reads_the_layer_that_clip_skip_names(skip: int) -> None:
    folder = tiny("sd15")
    given = adapter("sd15").encode_text(load("sd15"), CAPTIONS, TextOptions(clip_skip=skip))["context"]
    encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        output = encoder(ids, output_hidden_states=True)
        expected = encoder.final_layer_norm(output.hidden_states[-skip])
    assert given.shape == (3, 77, 32)
    torch.testing.assert_close(given, expected)
    if skip == 1:
        torch.testing.assert_close(given, output.last_hidden_state)


def test_a_layer_that_clip_does_not_have_is_refused() -> None:
    adapter("sd15").encode_text(load("sd15"), CAPTIONS, TextOptions(clip_skip=3))  # the miniature has three
    with pytest.raises(PilotError, match="1 to 3"):
        adapter("sd15").encode_text(load("sd15"), CAPTIONS, TextOptions(clip_skip=4))


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_conditioning_equals_the_pipelines(family: str) -> None:
    kind = {"sdxl": diffusers.StableDiffusionXLPipeline, "flux": diffusers.FluxPipeline}[family]
    pipeline = kind.from_pretrained(tiny(family))
    given = adapter(family).encode_text(load(family), CAPTIONS, TextOptions(t5_tokens=64))
    with torch.no_grad():
        if family == "sdxl":
            context, _, pooled, _ = pipeline.encode_prompt(CAPTIONS, do_classifier_free_guidance=False)
        else:
            context, pooled, _ = pipeline.encode_prompt(CAPTIONS, None, max_sequence_length=64)
    torch.testing.assert_close(given["context"], context)
    torch.testing.assert_close(given["pooled"], pooled)


@pytest.mark.parametrize("tokens", [150, 225])
@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_long_captions_are_read_in_framed_chunks(family: str, tokens: int) -> None:
    parts = load(family)
    caption = "".join(chr(97 + i % 26) for i in range(100))  # one token a letter, the last with </w>
    tokenizer = parts.tokenizers[0]
    ids = tokenizer(caption, add_special_tokens=False).input_ids
    start, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    chunks = [ids[:75], ids[75:], []][: tokens // 75]
    framed = torch.tensor([[start, *c, end] + [end] * (75 - len(c)) for c in chunks])
    hidden, pooled = [], None
    for encoder in parts.text_encoders:
        output = encoder(framed, output_hidden_states=True)
        layer = output.last_hidden_state if family == "sd15" else output.hidden_states[-2]
        hidden.append(torch.cat([layer[0, :1], *(row[1:-1] for row in layer), layer[-1, -1:]]))
        pooled = getattr(output, "text_embeds", None)
    given = adapter(family).encode_text(parts, [caption, "a zorp"], TextOptions(clip_tokens=tokens))
    assert given["context"].shape[:2] == (2, tokens + 2)
    torch.testing.assert_close(given["context"][0], torch.cat(hidden, dim=-1))
    if pooled is not None:
        torch.testing.assert_close(given["pooled"][0], pooled[0])


def test_what_is_longer_than_the_limit_is_cut() -> None:
    parts = load("sd15")
    long, cut = "x" * 90, "x" * 75  # the last letter of a word is another token: compare with 75 inner ones
    given = adapter("sd15").encode_text(parts, [long], TextOptions())["context"]
    ids = parts.tokenizers[0](long, add_special_tokens=False).input_ids[:75]
    assert len(ids) == len(cut)
    frame = [parts.tokenizers[0].bos_token_id, *ids, parts.tokenizers[0].eos_token_id]
    torch.testing.assert_close(given, parts.text_encoders[0](torch.tensor([frame])).last_hidden_state)


@pytest.mark.parametrize("family", FAMILIES)
def test_encoding_can_be_trained_through(family: str) -> None:
    parts = load(family)
    for encoder in parts.text_encoders:
        encoder.requires_grad_(True)
    given = adapter(family).encode_text(parts, ["a red zorp"], TextOptions(t5_tokens=16))
    sum(value.square().sum() for value in given.values()).backward()
    for encoder in parts.text_encoders:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_captions_change_the_conditioning(family: str) -> None:
    given = adapter(family).encode_text(load(family), ["a red zorp", "a blue zorp"], TextOptions(t5_tokens=16))
    for value in given.values():
        assert (value[0] - value[1]).abs().max() > 1e-2
