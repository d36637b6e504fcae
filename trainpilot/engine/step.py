"""One optimizer update: noise, forward, loss, backward, clip, update. Used by the trainer and by the benchmarks.

Nothing in here waits for the device: what a step measures (loss, gradient norm) stays there until `meter.py` finds it
finished. Random draws are functions of (seed, step, slot), made per sample on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainpilot.config.schema import RunConfig
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.batches import Batch
from trainpilot.engine.encode import encode_images_now
from trainpilot.engine.ladder import Ladder
from trainpilot.engine.losses import per_sample_loss
from trainpilot.engine.noise import generators, make_noise, mix, normal, perturb
from trainpilot.engine.parallel import World
from trainpilot.engine.weights import Average
from trainpilot.families.protocol import Conditioning, Family, Parts, TextOptions
from trainpilot.randomness import draw_seed


@dataclass(frozen=True)
class Arithmetic:
    """Where and in what number format a step computes; autocast is None for plain fp32."""

    device: torch.device
    autocast: torch.dtype | None
    attention: Callable[[], AbstractContextManager[Any]] = nullcontext

    def context(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)


class Step:
    """The parts of an update that stay the same from step to step, and `run`, which makes one."""

    def __init__(
        self,
        config: RunConfig,
        family: Family,
        parts: Parts,
        adapter: Adapter,
        optimizer: Optimizer,
        schedule: Any,
        arithmetic: Arithmetic,
        *,
        text: TextOptions,
        average: Average | None = None,
        world: World | None = None,
        ladder: Ladder | None = None,
    ) -> None:
        """ladder: what gives way where memory runs out; without one the error is raised."""
        self.config, self.family, self.parts = config, family, parts
        self.adapter, self.optimizer, self.schedule = adapter, optimizer, schedule
        self.arithmetic, self.text, self.average = arithmetic, text, average
        self.world, self.ladder = world or World(), ladder
        self.parameters = adapter.parameters()
        # Half precision needs its gradients scaled; bf16 has the range of fp32.
        self.scaler = torch.amp.GradScaler(
            arithmetic.device.type, enabled=arithmetic.autocast == torch.float16 and arithmetic.device.type == "cuda"
        )
        self.rate_factor = 1.0
        self.rates: list[float] = []  # of the optimizer's groups, in the update made last
        self._dropout = config.network.dropout > 0
        self._frozen_text = False

    def run(
        self,
        step: int,
        batches: Sequence[Batch],
        cancelled: Callable[[], bool] = lambda: False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> Tensor | None:
        """Make update number `step` (from 0) and return [loss, gradient norm] on the device, in fp32.

        The loss is the mean over the samples of the whole step, so a partial batch weighs as much as its samples.
        Where `cancelled` turns true between two batches, the step is abandoned, nothing has changed, None is returned.
        meanwhile is called before each backward pass: what it starts in other threads has the host to itself then.
        """
        config = self.config
        self._freeze_text_encoders(step)
        total = self._gradients(step, batches, cancelled, meanwhile)
        if total is None:
            self.optimizer.zero_grad(set_to_none=True)
            return None
        total = self.world.sum_gradients([p for p in self.parameters if p.requires_grad], total)
        self.scaler.unscale_(self.optimizer)
        most = config.optimizer.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.parameters, most if most > 0 else float("inf"))
        if self.rate_factor != 1.0:
            self._scale_rates()
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        if config.network.max_norm is not None:
            self.adapter.limit_norms(config.network.max_norm)
        if self.average is not None:
            self.average.update(step + 1)
        return torch.stack([total.float(), norm.float()])

    def _gradients(
        self, step: int, batches: Sequence[Batch], cancelled: Callable[[], bool], meanwhile: Callable[[], None]
    ) -> Tensor | None:
        """Add up the gradients of the step, and return its loss; None where it was cancelled."""
        while True:
            pieces = self.ladder.pieces if self.ladder else 1
            total = torch.zeros((), device=self.arithmetic.device)
            try:
                for batch in batches:
                    for piece in batch.split(pieces):
                        if self.world.size == 1 and cancelled():
                            return None
                        with self.arithmetic.attention():
                            # Around the backward pass too: checkpointed blocks compute their attention again in it.
                            loss = self.loss(step, piece)
                            meanwhile()
                            self.scaler.scale(loss).backward()
                        total += loss.detach()
                return total
            except torch.OutOfMemoryError:
                # What was added so far is dropped and the step is made anew: its draws are functions of the step.
                self.optimizer.zero_grad(set_to_none=True)
                if self.ladder is None:
                    raise
            self.ladder.climb(max(len(batch.slots) for batch in batches))

    def loss(self, step: int, batch: Batch) -> Tensor:
        """The batch's share of the step's loss: sum of its weighted per-sample losses over the samples of the step."""
        config, family, parts, device = self.config, self.family, self.parts, self.arithmetic.device
        batch = batch.to(device)
        with torch.no_grad():
            x0 = self._latents(batch)
            levels = family.levels(parts, batch.level_draws, config.noise, (x0.shape[-2], x0.shape[-1]))
            draws = generators(batch.noise_seeds, device)
            eps = make_noise(x0, draws, config.noise)
            x_t = mix(x0, perturb(eps, draws, config.noise), levels)
            target = family.target(parts, x0, eps, levels)
        if self._dropout:
            # Dropout inside the model draws from the global stream: make that a function of step and slot too.
            torch.manual_seed(draw_seed(config.run.seed, "dropout", step, batch.slots[0]))
        with self.arithmetic.context():
            conditioning = self._conditioning(batch)
            prediction = family.predict(parts, x_t, levels, conditioning, batch.sizes, config.noise)
        mask = batch.masks
        if mask is not None:
            mask = nn.functional.interpolate(mask, size=x0.shape[-2:], mode="area")
        losses = per_sample_loss(prediction.float(), target.float(), config.loss, levels, mask=mask)
        weights = family.loss_weights(parts, levels, config.loss) * batch.weights
        return (losses * weights).sum() / batch.of

    def _latents(self, batch: Batch) -> Tensor:
        """Normalised latents [B,C,h,w], drawn from the VAE's distribution with a seed per sample."""
        moments = batch.moments
        if moments is None:
            assert batch.pixels is not None
            moments = encode_images_now(self.family, self.parts, batch.pixels)
        mean, log_variance = moments.float().chunk(2, dim=1)
        noise = normal(mean.shape[1:], generators(batch.latent_seeds, mean.device), mean.device)
        latents = mean + torch.exp(0.5 * log_variance.clamp(-30, 20)) * noise
        return (latents - self.parts.latent_shift) * self.parts.latent_scale

    def _conditioning(self, batch: Batch) -> Conditioning:
        if batch.conditioning is not None:
            return batch.conditioning
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen_text):
            return self.family.encode_text(self.parts, batch.captions, self.text)

    def _freeze_text_encoders(self, step: int) -> None:
        stop = self.config.text_encoder.stop_step
        frozen = stop is not None and step >= stop
        if frozen == self._frozen_text:
            return
        self._frozen_text = frozen
        for component in self.adapter.models:
            if component != "denoiser":
                for parameter in self.adapter.parameters(component):
                    parameter.requires_grad_(not frozen)
                    parameter.grad = None

    def _scale_rates(self) -> None:
        # For this update alone: the schedule sets the rates anew after it.
        for group in self.optimizer.param_groups:
            group["lr"] *= self.rate_factor
