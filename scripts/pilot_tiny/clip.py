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

VALUES = {
    "shape": scenes.SHAPES,
    "colour": tuple(scenes.PALETTE),
    "size": tuple(scenes.SIZES),
    "position": tuple(scenes.POSITIONS),
    "background": tuple(scenes.BACKGROUNDS),
}
"""The words of each attribute of a scene."""


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


class Heads(torch.nn.Module):
    """One linear classifier for each attribute, on both sides' projections; they go when training ends.

    The contrast of whole captions alone taught colours and backgrounds in 470 steps, and shapes and places not at all:
    a batch of 128 rarely needs them to tell two scenes apart. Heads ask for each attribute by name.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.text = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(of)) for name, of in VALUES.items()})
        self.picture = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(of)) for name, of in VALUES.items()})

    def loss(self, text: torch.Tensor, picture: torch.Tensor, drawn: list[scenes.Scene]) -> torch.Tensor:
        """Mean cross-entropy of every attribute on both sides; text (of whole captions) and picture are [B, width]."""
        losses = []
        for name, values in VALUES.items():
            wanted = torch.tensor([values.index(_value(scene, name)) for scene in drawn])
            losses += [
                functional.cross_entropy(side[name](state.float()), wanted)
                for side, state in ((self.text, text), (self.picture, picture))
            ]
        return torch.stack(losses).mean()


def _value(scene: scenes.Scene, attribute: str) -> str:
    value = scene.background if attribute == "background" else getattr(scene.parts[0], attribute)
    return str(value)


def _drawn(random: Random) -> list[scenes.Scene]:
    """A batch of scenes: half of them neighbours, which differ from another one in the batch by one attribute."""
    drawn = []
    for _ in range(BATCH // 2):
        scene = scenes.random_scene(random)
        part = scene.parts[0]
        attribute = random.choice(list(VALUES))
        if attribute == "background":
            free = [name for name in scenes.BACKGROUNDS if name not in (scene.background, part.colour)]
            other = scenes.Scene(scene.parts, random.choice(free))
        else:
            taken = (getattr(part, attribute), scene.background if attribute == "colour" else "")
            named = {name: getattr(part, name) for name in ("shape", "colour", "size", "position")}
            named[attribute] = random.choice([value for value in VALUES[attribute] if value not in taken])
            other = scenes.Scene((scenes.place(random, **named),), scene.background)
        drawn += [scene, other]
    return drawn


def train(work: Path, minutes: float) -> None:
    """Trains for `minutes` in all (a restart goes on from the last checkpoint) and writes `work/clip`."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    model = build(tokenizer)
    heads = Heads(model.config.projection_dim)
    print(f"clip: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    parts = torch.nn.ModuleList([model, heads])
    optimizer = torch.optim.AdamW(parts.parameters(), lr=RATE, weight_decay=0.05)
    step, spent = 0, 0.0
    checkpoint = work / "clip-training.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        parts.load_state_dict(state["parts"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
        print(f"goes on from step {step}", flush=True)
    began = time.monotonic() - spent
    while (done := (time.monotonic() - began) / (60 * minutes)) < 1.0:
        random = Random(f"clip {step}")
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 100) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        drawn = _drawn(random)
        full = [scenes.full_caption(one) for one in drawn]
        texts = [
            one if random.random() < 0.5 else scenes.caption(scene, random, 0.0)
            for one, scene in zip(full, drawn, strict=True)
        ]
        # Captions are short: computing 40 positions gives the same as 77, because attention is causal.
        ids, full_ids = tokens(tokenizer, texts, 40), tokens(tokenizer, full, 40)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(input_ids=ids, pixel_values=as_tensor([scenes.draw(one) for one in drawn]))
            named = model.get_text_features(input_ids=full_ids).pooler_output
        logits = output.logits_per_text.float()
        # Two scenes with one caption are both right: equal shares among equal captions.
        same = torch.tensor([[float(a == b) for b in texts] for a in texts])
        targets = same / same.sum(1, keepdim=True)
        contrast = (functional.cross_entropy(logits, targets) + functional.cross_entropy(logits.T, targets)) / 2
        attributes = heads.loss(named, output.vision_model_output.pooler_output, drawn)
        optimizer.zero_grad()
        (contrast + attributes).backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        step += 1
        if step % 50 == 0:
            spent = time.monotonic() - began
            print(
                f"clip step {step} contrast {contrast.item():.3f} attributes {attributes.item():.3f} "
                f"{spent / 60:.1f} min",
                flush=True,
            )
        if step % 200 == 0:
            state = {"parts": parts.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent}
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").rename(checkpoint)
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
    choices = [_alternatives(scene) for scene in wanted]
    # Scenes share most of their captions: each is read once.
    place: dict[str, int] = {}
    for one in choices:
        for texts, _ in one.values():
            for text in texts:
                place.setdefault(text, len(place))
    listed = list(place)
    with torch.no_grad():
        read = [
            # 40 positions hold every caption, as in training.
            model.get_text_features(input_ids=tokens(tokenizer, listed[start : start + BATCH], 40)).pooler_output
            for start in range(0, len(listed), BATCH)
        ]
        seen = [
            model.get_image_features(pixel_values=as_tensor(pictures[start : start + BATCH])).pooler_output
            for start in range(0, len(pictures), BATCH)
        ]
        fits = functional.normalize(torch.cat(seen), dim=-1) @ functional.normalize(torch.cat(read), dim=-1).T
    right = dict.fromkeys(measure.ATTRIBUTES, 0)
    for row, one in zip(fits, choices, strict=True):
        for attribute, (texts, answer) in one.items():
            right[attribute] += int(row[[place[text] for text in texts]].argmax()) == answer
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
