"""What the engine adds to a step: against a bare loop of the same forward, backward and optimizer.

A real run (its own folder, events, state, requests, checkpoints at the end) trains a miniature. Between its steps, in
the same process, a loop that a person would write makes the same update of a second copy of the model: cached tensors
in memory, noise from the global stream, the family's forward pass, mean squared error, backward, torch's AdamW. So
whatever the machine does meanwhile meets both alike. Medians are compared; host time is everything in a step that is
neither forward, backward nor optimizer, less what the bare loop needs for it. EMA and clipping, which the bare loop
does not have, are named apart and are part of the whole. Two clocks: the wall's, and the processor time of the main
thread, which other processes do not disturb.

    python benchmarks/step_overhead.py [--base MODEL] [--steps 100] [--out FILE]
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _figures import Figure, default_out, finish
from PIL import Image
from torch import nn

from trainpilot.config.merge import resolve
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.batches import Batch
from trainpilot.engine.cache import Cache
from trainpilot.engine.parallel import World
from trainpilot.engine.setup import Phases, Prepared, prepare
from trainpilot.engine.trainer import Trainer
from trainpilot.families.registry import adapter as family_adapter
from trainpilot.runs.progress import Progress
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag
from trainpilot.workspace import Workspace

RATIO, HOST_MS = 1.05, 1.0  # goals
PILOT_TINY = Path(__file__).resolve().parents[1] / "workspace-template" / "models" / "pilot-tiny"
WARMUP = 5  # pairs of steps that are not counted
COMPUTE = ("forward", "backward", "optimizer")
ITEMS = ("ema", "clipping")  # in the engine's step alone, and not the host's
Row = dict[str, tuple[float, float]]


class Watch:
    """Sums up (wall, processor) seconds by name, for one step at a time."""

    def __init__(self) -> None:
        self.row: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))

    def add(self, name: str, since: tuple[float, float]) -> None:
        wall, work = self.row[name]
        self.row[name] = (wall + time.perf_counter() - since[0], work + time.thread_time() - since[1])

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            since = now()
            try:
                return function(*given, **named)
            finally:
                self.add(name, since)

        return call

    def steps_of(self, optimizer: torch.optim.Optimizer) -> None:
        """Time an optimizer's updates, without another function in the place of its own."""
        begun: list[tuple[float, float]] = []
        optimizer.register_step_pre_hook(lambda *_: begun.append(now()))
        optimizer.register_step_post_hook(lambda *_: self.add("optimizer", begun.pop()))

    def take(self) -> Row:
        taken = dict(self.row)
        self.row.clear()
        return taken


def now() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


class TimedFamily:
    """A family whose forward pass is timed."""

    def __init__(self, family: Any, watch: Watch) -> None:
        self._family = family
        self.predict = watch.timed("forward", family.predict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)


class Bare:
    """The loop without an engine, over a model of its own."""

    def __init__(self, prepared: Prepared, cached: list[Batch], watch: Watch) -> None:
        config = prepared.config
        family = family_adapter(config.model.family)
        self.config, self.cached = config, cached
        self.parts = family.load(
            Path(config.model.base), frozenset({"denoiser", "vae"}), dtype=torch.float32, device="cpu"
        )
        assert self.parts.denoiser is not None and prepared.parts.denoiser is not None
        if any(
            isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in self.parts.denoiser.modules()
        ):
            self.parts.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.parts.denoiser.requires_grad_(False)
        patterns = {"denoiser": prepared.card.patterns(config.network.targets)}
        adapter = Adapter.inject({"denoiser": self.parts.denoiser}, patterns, config.network, config.run.seed)
        self.parts.denoiser.train()
        self.optimizer = torch.optim.AdamW(adapter.parameters(), lr=config.optimizer.learning_rate)
        watch.steps_of(self.optimizer)
        self.family = TimedFamily(family, watch)

    def step(self, number: int) -> None:
        batch, parts = self.cached[number % len(self.cached)], self.parts
        assert batch.moments is not None and batch.conditioning is not None
        mean, log_variance = batch.moments.chunk(2, dim=1)
        latents = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        latents = (latents - parts.latent_shift) * parts.latent_scale
        levels = self.family.levels(
            parts, torch.rand(len(latents)), self.config.noise, (latents.shape[-2], latents.shape[-1])
        )
        noise = torch.randn_like(latents)
        noisy = levels.alpha.view(-1, 1, 1, 1) * latents + levels.sigma.view(-1, 1, 1, 1) * noise
        target = self.family.target(parts, latents, noise, levels)
        prediction = self.family.predict(parts, noisy, levels, batch.conditioning, batch.sizes, self.config.noise)
        nn.functional.mse_loss(prediction, target).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def draw(folder: Path, side: int) -> None:
    """Sixteen pictures of one shape with captions, ten times an epoch."""
    folder.mkdir(parents=True)
    for number in range(16):
        rng = np.random.default_rng(number)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"zorp number {number} on a table")


def prepared_run(root: Path, base: Path, side: int, steps: int, batch: int, tensorboard: bool) -> tuple[RunDir, Any]:
    place = Workspace(root)
    pictures = place.datasets / "images" / "10_zorp"
    if not pictures.exists():
        draw(pictures, side)
    settings = {
        "run.name": f"overhead-{steps}-{tensorboard}",
        "training.steps": steps,
        "training.batch_size": batch,
        "training.ema_decay": 0.99,
        "buckets.resolution": side,
        "buckets.min_side": side // 2,
        "network.rank": 16,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": "1e-4",
        "sampling.every_steps": 0,
        "sampling.evaluate_at_end": "false",
        "precision.mixed": "fp32",
        "memory.gradient_checkpointing": "false",
        "logging.every_steps": 1,
        "logging.tensorboard": str(tensorboard).lower(),
    }
    overrides = [f"{name}={value}" for name, value in settings.items()]
    resolved = resolve(
        place, overrides=overrides, direct={"datasets": [{"path": str(pictures)}], "model.base": str(base)}
    )
    return RunDir.create(place, resolved), resolved


@contextmanager
def patched(place: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)


def measure(root: Path, base: Path, side: int, *, steps: int, batch: int, tensorboard: bool) -> dict[str, Any]:
    """Both loops in turn; medians in seconds by name and clock, and the processor time of the reading threads."""
    run, resolved = prepared_run(root, base, side, steps + WARMUP, batch, tensorboard)
    config, world, watch, stop = resolved.config, World(), Watch(), StopFlag()
    progress = Progress(out=io.StringIO())
    run.begin_attempt("cpu")
    stop.requests, stop.beat = run.requests, run.state.beat
    phases = Phases(run, progress, stop)
    cache = Cache(run.workspace.cache, config.cache.max_gb, say=phases.say)
    rows: dict[str, list[Row]] = {"engine": [], "bare": []}
    with cache.hold(run.name):
        prepared = prepare(run, config, world, phases, cache)
        trainer = Trainer(run, prepared, world, phases, progress, stop)
        batches = trainer.batches
        cached = [batches.read(step, *batches.layout(step)[0]) for step in range(batches.steps_per_epoch)]
        bare = Bare(prepared, cached, watch)
        assert trainer.average is not None
        trainer.update.family = TimedFamily(prepared.family, watch)
        watch.steps_of(trainer.optimizer)
        setattr(trainer.average, "update", watch.timed("ema", trainer.average.update))  # noqa: B010 - for this run alone
        setattr(trainer.recorder, "step", watch.timed("logging", trainer.recorder.step))  # noqa: B010
        setattr(trainer.world, "agree", watch.timed("stop, requests", trainer.world.agree))  # noqa: B010
        reading = {"seconds": 0.0}
        read, from_step = batches.read, batches.from_step

        def read_timed(*given: Any) -> Batch:
            begun = time.thread_time()
            found = read(*given)
            reading["seconds"] += time.thread_time() - begun
            return found

        class InTurn:
            """The engine's batches. When it comes back for the next, its step has ended and the other loop's begins."""

            def __init__(self, start: int) -> None:
                self._source = from_step(start)
                self._since: tuple[float, float] | None = None
                self._number, self.ahead, self.close = start, self._source.ahead, self._source.close

            def __iter__(self) -> Iterator[Any]:
                return self

            def __next__(self) -> Any:
                if self._since is not None:
                    watch.add("whole", self._since)
                    rows["engine"].append(watch.take())
                watch.take()
                began = now()
                bare.step(self._number)
                watch.add("whole", began)
                rows["bare"].append(watch.take())
                self._number += 1
                self._since = now()
                try:
                    return next(self._source)
                finally:
                    watch.add("waiting for a batch", self._since)

        setattr(batches, "read", read_timed)  # noqa: B010
        setattr(batches, "from_step", InTurn)  # noqa: B010
        clip = watch.timed("clipping", nn.utils.clip_grad_norm_)
        backward = watch.timed("backward", torch.Tensor.backward)
        with patched(nn.utils, "clip_grad_norm_", clip), patched(torch.Tensor, "backward", backward):
            ending = trainer.run_to_end()
    run.finish(ending.status, ending.reason, ending.exit_code)
    assert ending.status == "done", ending
    found: dict[str, Any] = {"reading": reading["seconds"] / (steps + WARMUP)}
    for loop, all_rows in rows.items():
        kept = all_rows[WARMUP : WARMUP + steps]
        for clock, place in (("wall", 0), ("work", 1)):
            for row in kept:
                whole = row["whole"][place]
                apart = sum(row.get(name, (0.0, 0.0))[place] for name in (*COMPUTE, *ITEMS))
                row[f"host {clock}"] = (whole - apart, 0.0)
            found[f"{loop} host {clock}"] = statistics.median(row[f"host {clock}"][0] for row in kept)
            names = [name for name in kept[0] if not name.startswith("host")]
            for name in names:
                found[f"{loop} {name} {clock}"] = statistics.median(row.get(name, (0.0, 0.0))[place] for row in kept)
    return found


def table_rows(case: str, found: dict[str, Any]) -> list[dict[str, object]]:
    """One line for the whole, then what it consists of, in milliseconds."""
    names = list(dict.fromkeys(name.split(" ", 1)[1].rsplit(" ", 1)[0] for name in found if name != "reading"))
    names = ["whole", *COMPUTE, "host", *ITEMS, *(n for n in names if n not in ("whole", "host", *COMPUTE, *ITEMS))]
    rows: list[dict[str, object]] = []
    for name in names:
        row: dict[str, object] = {"case": case, "part": name}
        for clock in ("wall", "work"):
            for loop in ("engine", "bare"):
                value = found.get(f"{loop} {name} {clock}")
                row[f"{loop} ms, {clock}"] = None if value is None else round(value * 1e3, 4)
        rows.append(row)
    rows.append({"case": case, "part": "reading, in its threads", "engine ms, work": round(found["reading"] * 1e3, 4)})
    return rows


def main(given: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, help="sd15 folder (default: the template's pilot-tiny, else a random one)")
    parser.add_argument("--steps", type=int, default=100, help="pairs of steps for each case (default 100)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--case", action="append", choices=("pilot-tiny", "flux"), help="default: both")
    parser.add_argument("--out", type=Path, help="default: results/step_overhead-DEVICE-DATE.json")
    args = parser.parse_args(given)
    torch.set_num_threads(args.threads)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    figures: list[Figure] = []
    rows: list[dict[str, object]] = []
    base = args.base or (PILOT_TINY if PILOT_TINY.is_dir() else None)
    for case in args.case or ("pilot-tiny", "flux"):
        with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
            model, side = (base, 64) if case == "pilot-tiny" and base else (None, 32)
            if model is None:
                model = family_adapter("flux" if case == "flux" else "sd15").tiny(Path(folder) / "model")
            name = case if case == "flux" or model == base else "sd15-random"
            for tensorboard in (False, True):
                label = f"{name}{'-tensorboard' if tensorboard else ''}"
                found = measure(Path(folder) / "ws", model, side, steps=args.steps, batch=8, tensorboard=tensorboard)
                rows += table_rows(label, found)
                key = label.replace("-", "_")
                for clock in ("wall", "work"):
                    ratio = found[f"engine whole {clock}"] / found[f"bare whole {clock}"]
                    host = (found[f"engine host {clock}"] - found[f"bare host {clock}"]) * 1e3
                    goal = case == "pilot-tiny" and clock == "wall"
                    figures.append(
                        Figure(f"{key}_{clock}_ratio", ratio, "x", *(("<=", RATIO) if goal else (None, None)))
                    )
                    figures.append(
                        Figure(
                            f"{key}_host_{clock}", host, "ms", *(("<=", HOST_MS) if clock == "wall" else (None, None))
                        )
                    )
    return finish(
        "step_overhead", figures, rows, out=args.out or default_out("step_overhead"), load=os.getloadavg(),
        steps=args.steps, base=str(base.name) if base else "random",
    )  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
