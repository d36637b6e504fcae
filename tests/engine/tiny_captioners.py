"""Tiny random captioning models in the published models' own layouts, for the tests of the captioners.

They know nothing, but loading, preparing pictures, generating and decoding are the real thing.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

WORDS = "a cat dog hill red blue on the with of is does image what describe in detail shown paragraph".split()
TAGS = [
    ("general", 9, 807858),
    ("sensitive", 9, 3771700),
    ("1girl", 0, 4225150),
    ("long_hair", 0, 2982517),
    ("^_^", 0, 35012),
    ("outdoors", 0, 300012),
    ("hatsune_miku", 4, 74013),
]
"""As in the published selected_tags.csv: name, category (9 rating, 0 general, 4 character), pictures that have it."""


def blip(folder: Path) -> Path:
    """A BLIP of some thousand weights."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS, "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"), bos_token="[DEC]")
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={**sizes, "vocab_size": len(words), "bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3,
                     "pad_token_id": 0, "encoder_hidden_size": 16, "max_position_embeddings": 96},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        projection_dim=16,
        image_text_hidden_size=16,
    )  # fmt: skip
    torch.manual_seed(1)
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def florence2(folder: Path) -> Path:
    """A Florence-2 of some thousand weights."""
    from transformers import BartTokenizer, Florence2Config, Florence2ForConditionalGeneration, Florence2Processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder.mkdir(parents=True, exist_ok=True)
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    alphabet = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = BartTokenizer(vocab=vocabulary, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.image_token, tokenizer.image_token_id = "<image>", tokenizer.convert_tokens_to_ids("<image>")
    tokenizer.init_kwargs["image_token"] = "<image>"
    config = Florence2Config(
        text_config={"model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1,
                     "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
                     "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "max_position_embeddings": 256},
        vision_config={"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
                       "patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2],
                       "num_groups": [2, 2], "window_size": 4, "projection_dim": 16, "drop_path_rate": 0.0},
        image_token_id=tokenizer.image_token_id,
    )  # fmt: skip
    torch.manual_seed(1)
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    images = CLIPImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False)
    images.image_seq_length = 17  # 4x4 places and their mean
    Florence2Processor(images, tokenizer).save_pretrained(folder)
    return folder


def wd14(folder: Path, batch: int | str = "batch") -> Path:
    """A tagger whose graph is known: each tag's probability is a sigmoid of the picture's mean colour, see `expected`.

    batch: the graph's first dimension; 1 as in older exports.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows([9_999_990 + n, name, category, count] for n, (name, category, count) in enumerate(TAGS))
    nodes = [
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weight"], ["scores"]),
        helper.make_node("Sigmoid", ["scores"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny tagger",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 32, 32, 3])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, len(TAGS)])],
        [numpy_helper.from_array(np.array([1, 2]), "axes"), numpy_helper.from_array(weight(), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    return folder


def weight() -> np.ndarray:
    """float32 [3, tags]: what each colour, blue first, does to each tag."""
    return np.random.default_rng(3).normal(0, 0.02, (3, len(TAGS))).astype(np.float32)


def expected(rgb: tuple[int, int, int]) -> dict[str, float]:
    """The probability of each tag for a square picture of one colour."""
    scores = np.array(rgb[::-1], np.float32) @ weight()
    return {tag[0]: float(p) for tag, p in zip(TAGS, 1 / (1 + np.exp(-scores)), strict=True)}
