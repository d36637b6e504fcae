"""Stage `unet`: the U-Net learns to predict v on fresh scenes every step.

The U-Net has Stable Diffusion 1.5's shape in miniature: (32, 64, 96, 128) channels, cross-attention on all levels but
the finest. With it on the two lowest only, places and colours were right and shapes stayed blots: a shape of twenty
pixels is three cells wide there, and its outline was drawn by features that could not ask for its name. The text
encoder is the trained CLIP's text half and stays as it is, as Stable Diffusion's did: trained along, it forgot shapes
and places before the U-Net had learnt to ask for them.
"""

import math
import time
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import AutoencoderKL, DDPMScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from numpy.typing import NDArray
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from . import scenes
from .pictures import as_tensor
from .tokenizer import CONTEXT
from .vae import DEVIATION

BATCH = 24
AHEAD = 6  # batches drawn and encoded by the other process before they are needed
RATE = 1e-3
WARMUP = 100
EMA = 0.998
WIDTH = 96
OUTLINE = 6.0
NOISY = 0.8  # exponent of a uniform draw: a little more of the levels at which the text decides what is where


def build_text_encoder(clip: Path) -> CLIPTextModel:
    """The text half of the trained CLIP: it already tells colours, shapes and positions apart."""
    whole = CLIPModel.from_pretrained(clip, dtype=torch.float32)
    text = CLIPTextModel(whole.config.text_config)
    text.load_state_dict(whole.text_model.state_dict())
    return text.requires_grad_(False).eval()


def build() -> UNet2DConditionModel:
    """The untrained U-Net over 32x32 latents."""
    return UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
        up_block_types=(*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


class Places(torch.nn.Module):
    """Asks the features that query the text for their own place; gone when training ends.

    Convolutions know where they are only from the zeros around the picture. After 2,500 steps shapes had the right size
    and colour, and places followed nothing: "at the left" cannot be obeyed by features that do not know the left.
    """

    SHARE = 0.2  # of the loss

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        blocks = (*unet.down_blocks[1:], unet.mid_block, *unet.up_blocks[:-1])
        self.heads = torch.nn.ModuleList()
        self.features: list[torch.Tensor] = []
        for block in blocks:
            self.heads.append(torch.nn.Conv2d(block.resnets[0].out_channels, 2, 1))
            block.resnets[0].register_forward_hook(lambda _block, _inputs, output: self.features.append(output))

    def loss(self) -> torch.Tensor:
        """Mean squared error of the coordinates, from -1 to 1, of the features since the last call."""
        errors = []
        for head, feature in zip(self.heads, self.features, strict=True):
            lines = [torch.linspace(-1, 1, size) for size in feature.shape[-2:]]
            wanted = torch.stack(torch.meshgrid(*lines, indexing="ij"))
            errors.append((head(feature).float() - wanted).pow(2).mean())
        self.features.clear()
        return torch.stack(errors).mean()


def told_apart(latents: torch.Tensor) -> torch.Tensor:
    """Weights [B,1,h,w], 1 where twins are alike and up to 1 + OUTLINE where they differ most.

    A shape's name decides a few cells of the picture along its outline; their error drowned in that of the ground.
    """
    one, other = latents[::2], latents[1::2]
    apart = (one - other).abs().mean(dim=1, keepdim=True)
    return (1 + OUTLINE * apart / apart.amax(dim=(1, 2, 3), keepdim=True)).repeat_interleave(2, 0)


def scheduler_config() -> dict[str, object]:
    """Stable Diffusion 1.5's noise schedule, with 2.x's prediction of v.

    Where noise hides the picture, noise prediction hardly feels what the text decides (an error of the whole picture
    counts 0.005 at the last step): after 1,250 steps the text was still ignored. v asks for the picture itself there.
    """
    return {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "steps_offset": 1,
    }


def export(
    folder: Path, vae: AutoencoderKL, text: CLIPTextModel, unet: UNet2DConditionModel, tokens: CLIPTokenizer
) -> None:
    """Write the pipeline in diffusers layout, fp16 safetensors."""
    vae.register_to_config(_name_or_path="")  # else the folder it was made in becomes a part of it
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokens,
        unet=unet,
        scheduler=PNDMScheduler(**scheduler_config(), skip_prk_steps=True, set_alpha_to_one=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)


def train(work: Path, minutes: float) -> None:
    """Trains for `minutes` in all (a restart goes on from the last checkpoint) and writes `work/export`."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer")
    text, unet = build_text_encoder(work / "clip"), build()
    places = Places(unet)
    for part, name in ((text, "text encoder"), (unet, "u-net")):
        print(f"{name}: {sum(p.numel() for p in part.parameters()) / 1e6:.2f} M parameters", flush=True)
    weights = list(unet.parameters())
    optimizer = torch.optim.AdamW([*weights, *places.parameters()], lr=RATE, betas=(0.9, 0.99), weight_decay=0.01)
    average = [weight.detach().clone() for weight in weights]
    step, spent = 0, 0.0
    checkpoint = work / "unet-training.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        unet.load_state_dict(state["unet"])
        places.load_state_dict(state["places"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent = [one.detach() for one in state["average"]], state["step"], state["spent"]
        print(f"goes on from step {step}", flush=True)
    alphas = DDPMScheduler(**scheduler_config()).alphas_cumprod
    # Each level counts alike: the target's variance is a + (1 - a) d^2 for latents of deviation d.
    weight = 1 / (alphas + (1 - alphas) * DEVIATION**2)

    def loss_of(latents: torch.Tensor, ids: torch.Tensor, times: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        a = alphas[times].view(-1, 1, 1, 1)
        noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
        with torch.no_grad():
            states = text(ids).last_hidden_state
        predicted = unet(noisy, times, states).sample
        target = a.sqrt() * noise - (1 - a).sqrt() * latents
        error = (predicted.float() - target).pow(2) * told_apart(latents)
        return (error.mean(dim=(1, 2, 3)) * weight[times]).mean()

    def update(latents: torch.Tensor, texts: list[str]) -> tuple[float, float]:
        ids = tokenizer(texts, padding="max_length", max_length=CONTEXT, truncation=True, return_tensors="pt").input_ids
        # Twins share noise and level, so that what differs between their losses is what the shape's name changes.
        times = (1000 * torch.rand(BATCH // 2) ** NOISY).long().repeat_interleave(2)
        noise = torch.randn_like(latents[::2]).repeat_interleave(2, 0)
        # bf16 in the plain memory format took 0.77 s on one core where fp32 took 0.90.
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(latents, ids, times, noise)
            places_loss = places.loss()
        optimizer.zero_grad()
        (loss + Places.SHARE * places_loss).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss.item(), places_loss.item()

    began = time.monotonic() - spent
    shown: list[float] = []
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=_open, initargs=(work,)) as pool:
        waiting = deque(pool.submit(_batch, step + ahead) for ahead in range(AHEAD))
        while (done := (time.monotonic() - began) / (60 * minutes)) < 1.0:
            waiting.append(pool.submit(_batch, step + AHEAD))
            latents, texts = waiting.popleft().result()
            course = min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
            for group in optimizer.param_groups:
                group["lr"] = RATE * course
            loss, place = update(torch.from_numpy(latents).float(), texts)
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(average, weights, 1 - min(EMA, (1 + step) / (10 + step)))
            shown.append(loss)
            if step % 50 == 0:
                minutes_spent = (time.monotonic() - began) / 60
                mean = sum(shown[-50:]) / 50
                print(f"unet step {step} loss {mean:.4f} places {place:.3f} {minutes_spent:.1f} min", flush=True)
            if step % 250 == 0:
                state = {"unet": unet.state_dict(), "places": places.state_dict(), "average": average}
                state |= {"optimizer": optimizer.state_dict()}
                torch.save(state | {"step": step, "spent": time.monotonic() - began}, checkpoint.with_suffix(".new"))
                checkpoint.with_suffix(".new").rename(checkpoint)
                _export_average(work, tokenizer, average)
    _export_average(work, tokenizer, average)


_vae: AutoencoderKL | None = None  # of the process that draws


def _open(work: Path) -> None:
    global _vae
    torch.set_num_threads(1)
    _vae = AutoencoderKL.from_pretrained(work / "vae").requires_grad_(False).eval()


def _batch(step: int) -> tuple[NDArray[np.float16], list[str]]:
    """Fresh scenes of a step: latents [B,4,32,32] and captions; a function of the step.

    They come in twins, alike in wording and in all but the first part's shape, which is what is learnt last.
    """
    assert _vae is not None
    random = Random(f"unet {step}")
    torch.manual_seed(random.getrandbits(62))
    drawn, texts = [], []
    for _ in range(BATCH // 2):
        scene, wording, filler = scenes.random_scene(random), random.getrandbits(62), random.random() < 0.05
        for twin in (scene, scenes.other_shape(scene, random)):
            drawn.append(twin)
            text = scenes.caption(twin, Random(wording))
            texts.append(scenes.with_filler(text, Random(wording)) if text and filler else text)
    with torch.no_grad():
        latents = _vae.encode(as_tensor([scenes.draw(scene) for scene in drawn])).latent_dist.sample()
    return (latents * _vae.config.scaling_factor).half().numpy(), texts


def _export_average(work: Path, tokenizer: CLIPTokenizer, average: list[torch.Tensor]) -> None:
    text, unet = build_text_encoder(work / "clip"), build()
    for weight, mean in zip(unet.parameters(), average, strict=True):
        weight.data.copy_(mean)
    export(work / "export", AutoencoderKL.from_pretrained(work / "vae"), text, unet, tokenizer)
