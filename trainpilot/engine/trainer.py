"""The run, from top to bottom: prepare, train step by step, save, sample, finish. Called by the verbs `train`, `run`
and `resume` with an attempt that has begun; ends with what became of it.
"""

from __future__ import annotations

import math
import os
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from trainpilot.engine import checkpoints, compiling, optimizers, result
from trainpilot.engine.batches import Batches
from trainpilot.engine.cache import Cache
from trainpilot.engine.checkpoints import Snapshot
from trainpilot.engine.ladder import Ladder
from trainpilot.engine.meter import Meter, Row
from trainpilot.engine.parallel import World, launched_alone
from trainpilot.engine.pictures import Pictures
from trainpilot.engine.recorder import Recorder
from trainpilot.engine.setup import Phases, Prepared, prepare
from trainpilot.engine.step import Step
from trainpilot.engine.weights import Average, evaluation_weights
from trainpilot.errors import ExitCode, PilotError, RunFailed
from trainpilot.plan import steps as plan_steps
from trainpilot.runs import repro
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag, StopRequested

if TYPE_CHECKING:
    from trainpilot.config.merge import Resolved

ROLLBACK_FACTOR = 0.1  # of the rate, after a rollback: what the guides advise for an unstable run


@dataclass(frozen=True)
class Ending:
    """What became of an attempt."""

    status: Literal["done", "stopped", "failed"]
    reason: str
    exit_code: ExitCode


class Diverged(Exception):
    """The loss, the gradient or a weight is not a number any more. since: updates after which the state was bad."""

    def __init__(self, step: int, what: str, since: int) -> None:
        super().__init__(f"{what} at step {step}")
        self.step, self.since = step, since


def train(run: RunDir, resolved: Resolved, *, progress: Progress, stop: StopFlag) -> Ending:
    """Train a run to its end, or to where it is stopped. Raises PilotError where a person has to act."""
    config = resolved.config
    world = World.join()
    phases = Phases(run, progress, stop)
    if alone := launched_alone(os.environ):
        phases.say(alone)
    cache = Cache(run.workspace.cache, config.cache.max_gb, say=phases.say)
    try:
        with cache.hold(run.name) if run.writes else nullcontext():
            prepared = prepare(run, config, world, phases, cache)
            if run.writes:
                repro.write(run, prepared.table)
            return Trainer(run, prepared, world, phases, progress, stop).run_to_end()
    except StopRequested as asked:
        world.tell(asked)
        raise
    finally:
        world.leave()


class Trainer:
    """A prepared run, its optimizer and what it has done so far."""

    def __init__(
        self, run: RunDir, prepared: Prepared, world: World, phases: Phases, progress: Progress, stop: StopFlag
    ) -> None:
        config = prepared.config
        self.run, self.prepared, self.config, self.world = run, prepared, config, world
        self.phases, self.stop = phases, stop
        self.length = plan_steps.length(
            config.training, prepared.table.batches_per_epoch(config.training.batch_size), world.size
        )
        self.steps = self.length.steps
        self.saves = set(plan_steps.checkpoints(config.saving, self.length))
        self.batches = Batches(
            config, prepared.table, prepared.encoded, steps=self.steps, rank=world.rank, world=world.size
        )
        self.optimizer = optimizers.build(config, prepared.adapter)
        for note in optimizers.notes(config):
            phases.say(note)
        self.schedule = optimizers.schedule(config, self.optimizer, self.steps)
        self.average = Average(prepared.adapter, config.training.ema_decay) if config.training.ema_decay else None
        self.update = Step(
            config,
            prepared.family,
            prepared.parts,
            prepared.adapter,
            self.optimizer,
            self.schedule,
            prepared.arithmetic,
            text=prepared.text,
            average=self.average,
            world=world,
            ladder=Ladder(prepared.adapter.models, phases.say, checkpointing=config.memory.gradient_checkpointing),
        )
        self.meter = Meter(prepared.arithmetic.device, together=world.size > 1)
        self.recorder = Recorder(
            run,
            progress,
            steps=self.steps,
            images=prepared.table.images_per_epoch / self.length.steps_per_epoch,
            device=prepared.arithmetic.device,
        )
        self.pictures = Pictures(run, prepared, phases, self.recorder)
        self.done = 0  # completed updates
        self.saved: int | None = None  # completed updates at the last checkpoint
        self.rollbacks = 0
        self.clock = {"began": time.time(), "seconds": 0.0}
        self._attempt_began = time.monotonic()
        # Until there is a checkpoint to go back to.
        self._initial = {name: tensor.to("cpu", copy=True) for name, tensor in prepared.adapter.tensors().items()}

    # --- the course of a run -----------------------------------------------------------------------------------------

    def run_to_end(self) -> Ending:
        """Resume where a checkpoint is, train, and hand over the result."""
        try:
            if self.config.memory.compile:
                self._compile()
            self._resume()
            self._writer = result.writer(self.run, self.prepared, self.length, self.clock["began"])
            self._train()
            return self._finish()
        except StopRequested as asked:
            self.world.tell(asked)
            # The unfinished step is abandoned; the last completed one is kept.
            try:
                self.save()
            except Diverged as problem:
                self.recorder.say(f"{problem}: this state is not saved, an earlier checkpoint is the last", "warning")
            return Ending("stopped", f"{asked.reason}, after step {self.done}", asked.exit_code)
        finally:
            self.recorder.close()

    def _train(self) -> None:
        while True:
            try:
                self._pass_over(self.done)
                return
            except Diverged as problem:
                self._roll_back(problem)

    def _pass_over(self, start: int) -> None:
        sampling = self.config.sampling
        self.recorder.begin(start)
        if sampling.every_steps and (start % sampling.every_steps == 0 if start else sampling.at_start):
            self.sample()  # after a stop: what was not painted yet
        reading = self.batches.from_step(start)
        try:
            for step, parts in reading:
                save, sample = self.world.agree(self.stop, self._asked("save"), self._asked("sample"))
                measured = self.update.run(step, parts, cancelled=self.stop, meanwhile=reading.ahead)
                if measured is None:
                    self.stop.check()
                    continue
                self.done = step + 1
                self.meter.push(self.done, measured, self.update.rates)
                self._tell(self.meter.ready())
                if self.done in self.saves or save:
                    self.save()
                if (sampling.every_steps and self.done % sampling.every_steps == 0) or sample:
                    self.sample()
            self._tell(self.meter.drain())
        finally:
            reading.close()

    def _asked(self, kind: str) -> bool:
        return self.run.writes and self.run.requests.take(kind)

    def _tell(self, rows: list[Row]) -> None:
        for row in rows:
            # Scaled fp16 gradients overflow now and then; the scaler skips such an update by itself.
            if not math.isfinite(row.loss) or (not math.isfinite(row.norm) and not self.update.scaler.is_enabled()):
                # Both come from the weights before this update: the same ones would give the same again.
                raise Diverged(row.step, f"loss {row.loss:g}, gradient norm {row.norm:g}", since=row.step - 1)
            self.recorder.step(row.step, row.loss, row.norm, row.rates, self.batches.epoch_of(row.step - 1))

    def _require_finite(self) -> None:
        """Raise Diverged rather than keep or show what is not finite.

        A finite loss does not promise finite weights: the update after it may divide by zero (optimizer.eps = 0).
        """
        self._tell(self.meter.drain())
        finite = [tensor.isfinite().all() for tensor in self.prepared.adapter.tensors().values()]
        if not bool(torch.stack(finite).all()):
            raise Diverged(self.done, "weights that are not finite", since=self.done)

    # --- what is kept ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The state after `done` updates; tensors are those in use, not copies."""
        return Snapshot(
            step=self.done,
            adapter=self.prepared.adapter.tensors(),
            average=self.average.tensors if self.average else None,
            optimizer=self.optimizer.state_dict(),
            schedule=self.schedule.state_dict(),
            scaler=self.update.scaler.state_dict(),
            rate_factor=self.update.rate_factor,
            rollbacks=self.rollbacks,
            clock=self.clock | {"seconds": self._seconds()},
        )

    def _seconds(self) -> float:
        """Spent on this run, over all attempts."""
        return self.clock["seconds"] + time.monotonic() - self._attempt_began

    def restore(self, kept: Snapshot) -> None:
        """Go on from a snapshot, exactly."""
        self.done = kept.step
        self.prepared.adapter.load(kept.adapter)
        if self.average is not None:
            self.average.load(kept.average if kept.average is not None else kept.adapter)
        self.optimizer.load_state_dict(kept.optimizer)
        self.schedule.load_state_dict(kept.schedule)
        if kept.scaler:
            self.update.scaler.load_state_dict(kept.scaler)
        self.update.rate_factor, self.rollbacks = kept.rate_factor, kept.rollbacks
        self.clock = dict(kept.clock)

    def _resume(self) -> None:
        found = checkpoints.newest(self.run.checkpoints, self.prepared.arithmetic.device)
        if found is None:
            return
        kept, path, notes = found
        for note in notes:
            self.recorder.say(note, "warning")
        if kept.step > self.steps:
            self.recorder.say(f"{path.name} is beyond the run's {self.steps} steps: it is finished as it is", "warning")
        self.restore(kept)
        self.saved = kept.step
        self._initial = {}
        self.recorder.say(f"resumed from {path.name}: {kept.step} of {self.steps} steps are done")

    def save(self) -> None:
        """A checkpoint after `done` updates, unless there is one or nothing was trained. Never of a diverged state."""
        if self.saved == self.done or self.done == 0:
            return
        self._require_finite()
        if self.run.writes:
            began = time.monotonic()
            path = checkpoints.save(
                self.run.checkpoints, self.snapshot(), self._write_lora, keep=self.config.saving.keep
            )
            self.run.events.append(
                "checkpoint", step=self.done, folder=path.name, seconds=round(time.monotonic() - began, 3)
            )
            self.run.show_checkpoint(path / self._lora_name)
            self._initial = {}
        self.saved = self.done

    @property
    def _lora_name(self) -> str:
        return f"{self.run.name}-step{self.done:08d}.safetensors"

    def _write_lora(self, folder: Path) -> None:
        with self._weights_to_judge():
            state = self.prepared.adapter.collect()
            self._writer.write(
                folder / self._lora_name, state, self.done, self.batches.epoch_of(max(self.done - 1, 0)) + 1
            )

    def _roll_back(self, problem: Diverged) -> None:
        """Once: the last good state with a lower rate. A second time the run fails."""
        self.meter.forget()
        if self.rollbacks:
            raise RunFailed(
                f"step {problem.step}",
                f"{problem}, again after a rollback",
                "finite losses",
                "Lower optimizer.learning_rate, or set precision.mixed to bf16 or fp32; earlier checkpoints are good.",
            )
        source = self._go_back(problem)
        self.rollbacks += 1
        self.update.rate_factor *= ROLLBACK_FACTOR
        self.recorder.say(
            f"{problem}: rolled back to {source}, rates times {ROLLBACK_FACTOR:g} from here on", "warning"
        )

    def _go_back(self, problem: Diverged) -> str:
        """Restore the newest state from before the damage, and name it. Raises RunFailed where there is none."""
        try:
            found = checkpoints.newest(
                self.run.checkpoints, self.prepared.arithmetic.device, before=max(problem.since, 1)
            )
        except PilotError as none:
            raise self._lost(problem, str(none.given)) from none
        if found is None:
            if not self._initial or problem.since == 0:
                raise self._lost(problem, "the weights that the run began with lead there")
            self._begin_again()
            return "the beginning"
        kept, path, notes = found
        for note in notes:
            self.recorder.say(note, "warning")
        if self.run.writes:
            for aside in checkpoints.set_aside(self.run.checkpoints, kept.step):
                self.recorder.say(f"a checkpoint from after {path.name} is kept as {aside.name}", "warning")
        self.restore(kept)
        self.saved = self.done
        return path.name

    @staticmethod
    def _lost(problem: Diverged, reason: str) -> RunFailed:
        return RunFailed(
            f"step {problem.step}",
            f"{problem}, and there is no earlier state to go back to: {reason}",
            "finite losses, or a checkpoint from before they ended",
            "Look at the pictures and the base model, set precision.mixed to bf16 or fp32, or lower "
            "optimizer.learning_rate; a larger saving.keep keeps more checkpoints to go back to.",
        )

    def _begin_again(self) -> None:
        """The state before the first step, with a fresh optimizer."""
        config, adapter = self.config, self.prepared.adapter
        adapter.load(self._initial)
        if self.average is not None:
            self.average.load(self._initial)
        self.optimizer = self.update.optimizer = optimizers.build(config, adapter)
        self.schedule = self.update.schedule = optimizers.schedule(config, self.optimizer, self.steps)
        self.done, self.saved = 0, None

    # --- pictures and the end ----------------------------------------------------------------------------------------

    def sample(self) -> None:
        """One picture a prompt, from the weights to judge, with randomness of their own."""
        self._require_finite()
        if self.run.writes:
            with self._weights_to_judge():
                self.pictures.sample(self.done, kept=self.saved == self.done)

    def _weights_to_judge(self) -> AbstractContextManager[None]:
        return evaluation_weights(self.prepared.adapter, self.optimizer, self.average)

    def _finish(self) -> Ending:
        self.save()
        if self.config.sampling.every_steps and self.done % self.config.sampling.every_steps:
            self.sample()
        if self.run.writes:
            self.phases.enter("verify")
            with self._weights_to_judge():
                state = self.prepared.adapter.collect()
                epoch = self.batches.epoch_of(max(self.done - 1, 0)) + 1
                found = result.finish(self.run, self._writer, state, step=self.done, epoch=epoch, check=self.stop.check)
                for verified in found:
                    self.recorder.say(verified.text())
                if self.config.sampling.evaluate_at_end:
                    self.pictures.report(found, self.done, self._seconds())
        self.world.wait()
        return Ending("done", f"{self.done} steps", ExitCode.DONE)

    def _compile(self) -> None:
        """Compile the denoiser's blocks, with the first batch as the trial."""
        assert self.prepared.parts.denoiser is not None
        self.phases.enter("compile")
        if not self.batches.layout(0):
            # As many batches a step as there are, every epoch: who has none in the first has none in any.
            self.recorder.say("compile: off in this process, the dataset has fewer batches than there are processes")
            return
        place, indices, first, of = self.batches.layout(0)[0]
        batch = self.batches.read(0, place, indices, first, of)

        def trial() -> None:
            self.update.loss(0, batch).backward()
            self.optimizer.zero_grad(set_to_none=True)

        self.recorder.say(compiling.compile_blocks(self.prepared.parts.denoiser, trial).reason)
        torch.cuda.empty_cache()
