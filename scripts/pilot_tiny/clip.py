"""Stage `clip`: a tiny CLIP on the same scenes, so that text-image scores and image features are real offline."""

import math
import time
from pathlib import Path
from random import Random

import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from . import measure, scenes
from .pictures import as_tensor
from .tokenizer import CONTEXT

BATCH = 128
RATE = 1e-3
MEAN = STD = (0.5, 0.5, 0.5)


def build(tokenizer: CLIPTokenizer) -> CLIPModel:
    """The untrained model: 64x64 pictures in patches of 8, both sides 96 wide."""
    return CLIPModel(
        CLIPConfig(
            projection_dim=64,
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 96,
                "intermediate_size": 384,
                "num_hidden_layers": 3,
                "num_attention_heads": 4,
                "max_position_embeddings": CONTEXT,
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config={
                "hidden_size": 96,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "image_size": scenes.SIDE,
                "patch_size": 8,
            },
        )
    )


def tokens(tokenizer: CLIPTokenizer, texts: list[str], length: int = CONTEXT) -> torch.Tensor:
    """Token ids [B, length]."""
    return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def train(work: Path, minutes: float) -> None:
    """Trains for `minutes` and writes `work/clip`."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = build(tokenizer)
    print(f"clip: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    began, step = time.monotonic(), 0
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        random = Random(f"clip {step}")
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        drawn = [scenes.random_scene(random) for _ in range(BATCH)]
        texts = [
            scenes.full_caption(one) if random.random() < 0.5 else scenes.caption(one, random, 0.0) for one in drawn
        ]
        # Captions are short: computing 32 positions gives the same as 77, because attention is causal.
        ids = tokens(tokenizer, texts, 32)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids=ids, pixel_values=as_tensor([scenes.draw(one) for one in drawn]))
        logits = output.logits_per_text.float()
        # Two scenes with one caption are both right: equal shares among equal captions.
        same = torch.tensor([[float(a == b) for b in texts] for a in texts])
        targets = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        step += 1
        if step % 50 == 0:
            print(f"clip step {step} loss {loss.item():.3f} {(time.monotonic() - began) / 60:.1f} min", flush=True)
    export(work / "clip", model, tokenizer)


def export(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write the model as fp16 safetensors with its tokenizer and picture settings."""
    model.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    side = {"height": scenes.SIDE, "width": scenes.SIDE}
    CLIPImageProcessorPil(
        size=side, crop_size=side, do_center_crop=False, image_mean=list(MEAN), image_std=list(STD)
    ).save_pretrained(folder)


def accuracy(folder: Path, pictures: list[Image.Image], wanted: list[scenes.Scene]) -> dict[str, float]:
    """Share of one-part scenes for which the right word of an attribute scores best, by attribute and as "all"."""
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    right = dict.fromkeys(measure.ATTRIBUTES, 0)
    with torch.no_grad():
        for picture, scene in zip(pictures, wanted, strict=True):
            for attribute, (texts, answer) in _alternatives(scene).items():
                output = model(input_ids=tokens(tokenizer, texts), pixel_values=as_tensor([picture]))
                right[attribute] += int(output.logits_per_image[0].argmax()) == answer
    found = {name: count / len(pictures) for name, count in right.items()}
    return found | {"all": sum(found.values()) / len(found)}


def _alternatives(scene: scenes.Scene) -> dict[str, tuple[list[str], int]]:
    """For each attribute: the full caption with every value of it, and which is right."""
    from dataclasses import replace

    part = scene.parts[0]
    choices = {
        "shape": [(value, replace(scene, parts=(replace(part, shape=value),))) for value in scenes.SHAPES],
        "colour": [(value, replace(scene, parts=(replace(part, colour=value),))) for value in scenes.PALETTE],
        "position": [(value, replace(scene, parts=(replace(part, position=value),))) for value in scenes.POSITIONS],
        "background": [(value, replace(scene, background=value)) for value in scenes.BACKGROUNDS],
    }
    wanted = {"shape": part.shape, "colour": part.colour, "position": part.position, "background": scene.background}
    return {
        name: ([scenes.full_caption(other) for _, other in found], [value for value, _ in found].index(wanted[name]))
        for name, found in choices.items()
    }
