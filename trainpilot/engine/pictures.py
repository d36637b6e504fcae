"""The pictures of a run: samples while it trains, and the comparison of strengths with its report at the end.

Used by the trainer, which decides when, and holds the weights to judge in the adapter meanwhile.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trainpilot.engine import sampler
from trainpilot.engine.recorder import Recorder
from trainpilot.engine.setup import Phases, Prepared
from trainpilot.evaluate import report, strengths
from trainpilot.jobs import evaluate
from trainpilot.models.safetensors_header import read_header
from trainpilot.runs.rundir import RunDir

if TYPE_CHECKING:
    from PIL import Image

    from trainpilot.config.prompts import Prompt
    from trainpilot.formats.verify import Verification


class Pictures:
    """Paints a run's prompts with what the adapter holds; randomness is the prompts' own."""

    def __init__(self, run: RunDir, prepared: Prepared, phases: Phases, recorder: Recorder) -> None:
        self.run, self.prepared, self.phases, self.recorder = run, prepared, phases, recorder

    def sample(self, step: int, *, kept: bool) -> None:
        """One picture a prompt after `step` updates; kept: this very state is a checkpoint.

        A picture that such a state has already is not painted again: the same weights and seed make the same one.
        """
        for number, (prompt, pair) in enumerate(zip(self.prepared.prompts, self._pairs(), strict=True)):
            name = f"step-{step:08d}_p{number}.png"
            if kept and (self.run.samples / name).exists():
                continue
            image = self._paint(prompt, pair)
            self.run.samples.mkdir(exist_ok=True)
            sampler.save_png(image, self.run.samples / name, prompt, prompt.sampler, step=str(step), run=self.run.name)
            self.recorder.picture(step, number, image, name, prompt.text, prompt.seed)

    def report(self, verified: list[Verification], step: int, seconds: float) -> None:
        """The strength comparison and the report of a finished run; seconds: spent training, all attempts together."""
        prepared, began = self.prepared, time.monotonic()
        self.phases.enter("evaluate")
        rows = strengths.compare(
            prepared.adapter,
            prepared.prompts,
            # A trained text encoder has the adapter too, so a prompt is encoded at each strength.
            lambda number: self._paint(prepared.prompts[number], self._pair(number)),
            sampler.save_png,
            self.run.report / report.PICTURES,
            weights=read_header(self.run.result).metadata["sshs_model_hash"],
            step=step,
            tell=self.phases.count,
        )
        facts = report.Facts(
            card=prepared.card,
            table=prepared.table,
            verified=verified,
            step=step,
            seconds=seconds,
            device=prepared.device.name,
            parameters=sum(parameter.numel() for parameter in prepared.adapter.parameters()),
        )
        page = report.write(self.run, rows, facts)
        self.run.events.append(
            "evaluate",
            step=step,
            file=str(page.relative_to(self.run.path)),
            strengths=list(strengths.STRENGTHS),
            prompts=len(rows),
            seconds=round(time.monotonic() - began, 3),
        )
        self.recorder.progress.say(f"report: {page}")
        self.phases.say(evaluate.after(self.run))

    def _pairs(self) -> list[sampler.Pair]:
        """Every prompt's conditioning: what was encoded before training, or now where text encoders are trained."""
        prepared = self.prepared
        return prepared.pairs or sampler.encode(prepared.family, prepared.parts, prepared.prompts, prepared.text)

    def _pair(self, number: int) -> sampler.Pair:
        prepared = self.prepared
        if prepared.pairs:
            return prepared.pairs[number]
        [pair] = sampler.encode(prepared.family, prepared.parts, [prepared.prompts[number]], prepared.text)
        return pair

    def _paint(self, prompt: Prompt, pair: sampler.Pair) -> Image.Image:
        prepared, device = self.prepared, self.prepared.arithmetic.device
        positive, negative = pair
        with prepared.arithmetic.attention():
            return sampler.sample(
                prepared.family,
                prepared.parts,
                prompt,
                {key: value.to(device) for key, value in positive.items()},
                None if negative is None else {key: value.to(device) for key, value in negative.items()},
                dtype=prepared.device.dtype,
                zero_terminal_snr=prepared.config.noise.zero_terminal_snr,
                on_step=lambda done, of: self.phases.check(),
            )
