"""Stage `vae`: an AutoencoderKL of 0.2 M parameters, twice down, four latent channels.

Gate: the demo pictures, which it never saw, come back with at least 28 dB on average.

Four times down did not pass the gate in any time at hand (20 dB, the same with 16 channels): two nearest-neighbour
enlargements have to learn every edge inside a 4x4 cell. Twice down passes in five minutes on one core.
"""

import math
import time
from pathlib import Path
from random import Random

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from . import demo_data, scenes, zorp
from .pictures import as_tensor, varied

GATE_DB = 28.0
"""Smallest mean PSNR of the demo pictures with which the U-Net may start."""

BATCH = 8
CUT = 32
"""Training sees cuts of this many pixels a side: a quarter of the work of whole pictures, and nothing is lost in a
network that looks at its neighbourhood only."""

RATE = 3e-3

DEVIATION = 0.4
"""Of the scaled latents. At 1 the mean of 32x32 latents is still readable at the last noise level (0.0047 * 1024 = 5),
so that the U-Net read colours from the noise and never used the caption; at 0.4 it is not (0.8)."""


def build() -> AutoencoderKL:
    """The untrained autoencoder; two levels of 16 and 32 channels.

    One norm group: with eight, groups of two channels wiped out how strong a colour is.
    """
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,
        sample_size=scenes.SIDE,
    )


def psnr(vae: AutoencoderKL, pictures: torch.Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each picture (n, 3, h, w; [-1, 1]) after encoding and decoding."""
    with torch.no_grad():
        back = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
    error = ((back - pictures) / 2).pow(2).mean(dim=(1, 2, 3))
    return (-10 * error.log10()).tolist()


def _livelier_cuts(pictures: torch.Tensor, random: Random) -> torch.Tensor:
    """Of two random cuts of each picture the one with more contrast: (n, 3, CUT, CUT); plain ground teaches little."""

    def cut(picture: torch.Tensor) -> torch.Tensor:
        top, left = (4 * random.randint(0, (scenes.SIDE - CUT) // 4) for _ in range(2))
        return picture[:, top : top + CUT, left : left + CUT]

    def contrast(part: torch.Tensor) -> float:
        return float(part.flatten(1).std(1).sum())

    return torch.stack([max((cut(picture) for _ in range(2)), key=contrast) for picture in pictures])


def train(work: Path, minutes: float) -> None:
    """Trains for `minutes` and writes `work/vae`; says after training whether the gate is passed."""
    torch.manual_seed(0)
    random = Random("vae")
    vae = build()
    print(f"vae: {sum(p.numel() for p in vae.parameters()) / 1e6:.2f} M parameters", flush=True)
    with torch.no_grad():
        # Begin with quiet latents: at a deviation of one the noise drowns the picture for hundreds of steps.
        vae.quant_conv.bias[4:] = -8.0
        vae.quant_conv.weight[4:] *= 0.1
    vae.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=RATE, betas=(0.9, 0.99), weight_decay=0.0)
    demo = as_tensor([zorp.draw(one) for one in demo_data.trained()])
    began, step, done = time.monotonic(), 0, 0.0
    while done < 1.0:
        rate = RATE * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        pictures = _livelier_cuts(as_tensor([varied(random) for _ in range(BATCH)]), random)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        # bf16 took three quarters of fp32's time and ends at the same quality.
        with torch.autocast("cpu", torch.bfloat16):
            back = vae.decode(vae.encode(pictures).latent_dist.sample()).sample.float()
        # No KL term: scaling_factor sets the latents' size, and their own noise began small and stays small.
        loss = functional.mse_loss(back, pictures) + 0.2 * functional.l1_loss(back, pictures)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        step += 1
        done = (time.monotonic() - began) / (60 * minutes)
        if step % 200 == 0:
            quality = psnr(vae, demo)
            seconds = (time.monotonic() - began) / step
            print(
                f"vae step {step} loss {loss.item():.5f} demo {sum(quality) / 16:.2f} dB "
                f"(least {min(quality):.2f}) {seconds:.3f} s/step",
                flush=True,
            )
    # Latents are scaled to DEVIATION over the scenes of the world, as the U-Net expects.
    with torch.no_grad():
        sample = as_tensor([scenes.draw(scenes.random_scene(random)) for _ in range(256)])
        deviation = vae.encode(sample).latent_dist.sample().std().item()
    vae.register_to_config(scaling_factor=round(DEVIATION / deviation, 5))
    vae.save_pretrained(work / "vae")
    quality = psnr(vae, demo)
    print("vae demo dB:", " ".join(f"{value:.2f}" for value in quality), flush=True)
    verdict = "passed" if sum(quality) / 16 >= GATE_DB else "NOT passed"
    print(f"vae gate {verdict}: {sum(quality) / 16:.2f} dB, scaling {vae.config.scaling_factor}", flush=True)


def demo_quality(folder: Path) -> float:
    """Mean PSNR in dB of the demo pictures through a saved autoencoder."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    values = psnr(vae, as_tensor([zorp.draw(one) for one in demo_data.trained()]))
    return sum(values) / len(values)
