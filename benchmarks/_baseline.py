"""The plain loop that a person would write with diffusers and peft: what train_step.py compares the engine with.

It uses the very denoiser and adapter of the engine, so rank, targets, number and memory format, checkpointing and data
are the same by construction. The loop around them is what diffusers' training examples do: noise from the global
stream, torch's default AdamW, and the loss read back at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, FluxPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.optimization import get_scheduler
from torch import Tensor, nn

from trainpilot.engine.batches import Batch
from trainpilot.families.protocol import Parts


class PlainLoop:
    """One optimizer update at a time, for a U-Net or for FLUX's transformer."""

    def __init__(
        self, parts: Parts, parameters: Sequence[nn.Parameter], device: torch.device, autocast: torch.dtype | None
    ) -> None:
        self.parts, self.device, self.autocast = parts, device, autocast
        self.parameters = list(parameters)
        self.denoiser: Any = parts.denoiser
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.01)
        self.schedule = get_scheduler("constant", self.optimizer)
        self.scheduler = None if parts.prediction == "flow" else DDPMScheduler.from_config(parts.scheduler_config)

    def run(self, batch: Batch) -> float:
        """One update; returns the loss, which waits for the device as the examples do."""
        assert batch.moments is not None
        moments = batch.moments.to(self.device)
        latents = DiagonalGaussianDistribution(moments).sample()
        latents = (latents - self.parts.latent_shift) * self.parts.latent_scale
        text = {name: tensor.to(self.device) for name, tensor in (batch.conditioning or {}).items()}
        noise = torch.randn_like(latents)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            if self.scheduler is None:
                prediction, target = self._flow(latents, noise, text)
            else:
                prediction, target = self._diffusion(latents, noise, text, batch.sizes.to(self.device))
        loss = F.mse_loss(prediction.float(), target.float())
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.item()

    def _diffusion(
        self, latents: Tensor, noise: Tensor, text: dict[str, Tensor], sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert self.scheduler is not None
        steps = self.scheduler.config.num_train_timesteps
        times = torch.randint(0, steps, (latents.shape[0],), device=self.device).long()
        noisy = self.scheduler.add_noise(latents, noise, times)
        added = {"text_embeds": text["pooled"], "time_ids": sizes} if "pooled" in text else None
        prediction = self.denoiser(
            noisy, times, encoder_hidden_states=text["context"], added_cond_kwargs=added, return_dict=False
        )[0]
        return prediction, noise

    def _flow(self, latents: Tensor, noise: Tensor, text: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        count, channels, height, width = latents.shape
        sigma = torch.sigmoid(torch.randn(count, device=self.device)).view(-1, 1, 1, 1)
        noisy = (1 - sigma) * latents + sigma * noise
        packed = FluxPipeline._pack_latents(noisy, count, channels, height, width)
        places = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, self.device, latents.dtype)
        tokens = self.denoiser(
            hidden_states=packed,
            timestep=sigma.flatten(),
            guidance=torch.ones(count, device=self.device) if self.denoiser.config.guidance_embeds else None,
            pooled_projections=text["pooled"],
            encoder_hidden_states=text["context"],
            txt_ids=torch.zeros(text["context"].shape[1], 3, device=self.device),
            img_ids=places,
            return_dict=False,
        )[0]
        # The inverse of packing: 2x2 squares of latents were one token each.
        squares = tokens.view(count, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return squares.reshape(latents.shape), noise - latents
