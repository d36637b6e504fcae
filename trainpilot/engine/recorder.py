"""What a run tells about its steps: events, state, TensorBoard, W&B and the progress bar. Used by the trainer.

The numbers come late and in order from the `Meter`; nothing here touches the device.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import torch
from PIL import Image

from trainpilot.errors import PilotError
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir

_AVERAGED = 50  # steps over which loss_avg and the speed are averaged


class Recorder:
    """The one writer of a run's step events. In the other processes of a distributed run it stays silent."""

    def __init__(self, run: RunDir, progress: Progress, *, steps: int, images: float, device: torch.device) -> None:
        """images: pictures an optimizer step sees on average."""
        self.run, self.progress, self.steps, self.images = run, progress, steps, images
        self._cuda = device.type == "cuda"
        self._losses: deque[float] = deque(maxlen=_AVERAGED)
        self._times: deque[float] = deque(maxlen=_AVERAGED + 1)
        self._board: Any = None
        self._wandb: Any = None
        if run.writes:
            self._open_trackers()

    def _open_trackers(self) -> None:
        settings = self.run.config.logging
        if settings.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.run.logs))
        if settings.wandb_project:
            try:
                import wandb
            except ImportError as error:
                raise PilotError(
                    "logging.wandb_project",
                    settings.wandb_project,
                    "the wandb package, installed",
                    "Run `pip install wandb`, or leave logging.wandb_project empty.",
                ) from error
            self._wandb = wandb.init(
                project=settings.wandb_project,
                name=self.run.name,
                id=self.run.name,
                dir=str(self.run.logs),
                resume="allow",
                config=self.run.config.model_dump(by_alias=True),
            )

    def begin(self, step: int) -> None:
        """Training goes on after `step` completed updates."""
        if not self.run.writes:
            return
        self._times.clear()
        self._losses.clear()
        self.run.events.append("start", from_step=step + 1, of=self.steps)
        self.progress.phase("train", self.steps, step)
        self.run.state.write("train", step, self.steps, force=True)
        self._times.append(time.monotonic())

    def step(self, step: int, loss: float, norm: float, rates: list[float], epoch: int) -> None:
        """Update number `step` (from 1) has been made; rates: of the optimizer's groups."""
        if not self.run.writes:
            return
        now = time.monotonic()
        self._losses.append(loss)
        self._times.append(now)
        average = sum(self._losses) / len(self._losses)
        speed = (len(self._times) - 1) / max(now - self._times[0], 1e-9)
        memory = torch.cuda.max_memory_allocated() / 1e9 if self._cuda else None
        rate = rates[0]
        values = {
            "loss": loss,
            "loss_avg": average,
            "lr": rate,
            "it_s": speed,
            "images_s": speed * self.images,
            "grad_norm": norm,
        }
        if memory is not None:
            values["vram_gb"] = memory
        self.progress.update(step, loss=average, rate=rate, memory_gb=memory, epoch=epoch + 1)
        eta = (self.steps - step) / speed
        self.run.state.write("train", step, self.steps, epoch, eta=round(eta, 1), loss=average, it_s=round(speed, 3))
        if step % self.run.config.logging.every_steps and step != self.steps:
            return
        self.run.events.append("step", step=step, epoch=epoch, **{k: float(f"{v:.6g}") for k, v in values.items()})
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"train/{name}", value, step)
            for number, other in enumerate(rates[1:], 1):
                self._board.add_scalar(f"train/lr_{number}", other, step)
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def picture(self, step: int, number: int, image: Image.Image, name: str, prompt: str, seed: int | None) -> None:
        """A sample was written."""
        self.run.events.append("sample", step=step, prompt=prompt, number=number, seed=seed, file=name)
        if self._board is not None:
            import numpy as np

            self._board.add_image(f"samples/p{number}", np.asarray(image), step, dataformats="HWC")
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"samples/p{number}": wandb.Image(image, caption=prompt)}, step=step)

    def say(self, text: str, kind: str = "notice") -> None:
        """A decision or a warning, for the screen and the events."""
        self.progress.say(text)
        if self.run.writes:
            self.run.events.append(kind, text=text)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
