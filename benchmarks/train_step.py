"""Speed and memory of a training step at full size: SD1.5, SDXL and FLUX.1 with random weights, against a plain loop.

    .venv/bin/python benchmarks/train_step.py                    the whole suite, at most ten minutes on a GPU
    .venv/bin/python benchmarks/train_step.py --family flux      one family
    .venv/bin/python benchmarks/train_step.py --case "sdxl batch=4 compile mixed baseline"
    .venv/bin/python benchmarks/train_step.py --tiny             the same code on miniatures, on any machine

A case is a family and words: batch=N, resolution=PX, rank=N, tokens=N (T5), base=full|int8|nf4|fp8, optimizer=NAME,
attention=NAME, checkpointing, compile, mixed (five aspect ratios), baseline (the plain loop too), oom (memory runs out
in the middle of a step). A step is everything: copy, noise, forward, loss, backward, clip, update. Needs a CUDA device;
without one it ends with status 3, which is not a pass.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from _baseline import PlainLoop
from _figures import NOT_RUN, Figure, default_out, finish
from _measure import Run, in_turn, matmul_flops, seconds_of
from _models import batches, full_parts, inject, sizes, step_flops, tiny_parts

from trainpilot.config.schema import RunConfig
from trainpilot.engine import attention, optimizers
from trainpilot.engine.compiling import compile_blocks, repeated_blocks
from trainpilot.engine.probe import Device, choose_device
from trainpilot.engine.quantize import quantize
from trainpilot.engine.step import Arithmetic, Step
from trainpilot.families.card import card, cards
from trainpilot.families.protocol import TextOptions
from trainpilot.families.registry import adapter as family_adapter

# In the order of what they tell: where time runs out, the last ones are left out, by name.
SUITE = """
sd15 batch=1 baseline
sdxl batch=1 baseline
flux batch=1 resolution=512 baseline
sdxl batch=4 checkpointing baseline
flux batch=1 checkpointing
sd15 batch=4 compile baseline
sdxl batch=1 compile
flux batch=1 resolution=512 compile
flux batch=1 resolution=512 base=nf4
flux batch=1 resolution=512 base=fp8
flux batch=1 resolution=512 base=int8
sdxl batch=2 mixed baseline
sd15 batch=4 mixed
sdxl batch=1 optimizer=adamw8bit
sdxl batch=1 oom
flux batch=1 resolution=512 base=fp8 compile
sd15 batch=1 resolution=1024
"""
SEED = 0
TINY_SHARE = 16  # a miniature's pictures are that much smaller


@dataclasses.dataclass(frozen=True)
class Case:
    """One measurement; the words of the module's docstring."""

    family: str
    batch: int = 1
    resolution: int = 0  # 0: the family's own
    rank: int = 16
    tokens: int = 512
    base: str = "full"
    optimizer: str = "adamw"
    attention: str = "auto"
    checkpointing: bool = False
    compile: bool = False
    mixed: bool = False
    baseline: bool = False
    oom: bool = False

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read a case; ValueError names the word that is not understood."""
        family, *words = text.split()
        if family not in cards():
            raise ValueError(f"family {family!r}; allowed: {', '.join(cards())}")
        kinds: dict[str, Any] = {
            field.name: field.default for field in dataclasses.fields(cls) if field.name != "family"
        }
        given: dict[str, Any] = {}
        for word in words:
            name, equals, value = word.partition("=")
            default = kinds.get(name)
            if default is None or isinstance(default, bool) == bool(equals):
                allowed = ", ".join(n if isinstance(d, bool) else f"{n}=..." for n, d in kinds.items())
                raise ValueError(f"word {word!r}; allowed: {allowed}")
            given[name] = True if not equals else type(default)(value)
        case = cls(family, **given)
        return case if case.resolution else dataclasses.replace(case, resolution=card(family).resolution)

    def text(self) -> str:
        """The words that differ from the plain case."""
        words = [self.family, f"batch={self.batch}", f"resolution={self.resolution}"]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("family", "batch", "resolution") and value != field.default:
                words.append(field.name if value is True else f"{field.name}={value}")
        return " ".join(words)

    def config(self) -> RunConfig:
        """The run configuration that says the same."""
        return RunConfig.model_validate(
            {
                "model": {"family": self.family},
                "network": {"rank": self.rank, "alpha": self.rank},
                "optimizer": {"name": self.optimizer},
                "schedule": {"name": "constant"},
                "training": {"batch_size": self.batch},
                "noise": {"timesteps": card(self.family).defaults["noise"]["timesteps"]},
                "precision": {"base": self.base},
                "memory": {
                    "gradient_checkpointing": self.checkpointing,
                    "compile": self.compile,
                    "attention": self.attention,
                },
                "text_encoder": {"t5_tokens": self.tokens},
            }
        )


class Bench:
    """A model with its adapter and data, ready to make steps for one case."""

    def __init__(self, case: Case, device: Device, tiny: bool) -> None:
        self.case, self.device = case, device
        config = case.config()
        self.notes: list[str] = []
        make = tiny_parts if tiny else full_parts
        self.parts = make(case.family, device.dtype, _birthplace(case, device), SEED)
        denoiser: Any = self.parts.denoiser
        self.denoiser = denoiser
        resolution, side = (case.resolution // TINY_SHARE, 8) if tiny else (case.resolution, card(case.family).step)
        self.buckets = sizes(resolution, side, case.mixed)
        self.config = config
        if case.base != "full":
            self.notes.append(quantize(self.denoiser, case.base, device.torch_device).reason)
            denoiser.to(device.torch_device)
        if card(case.family).prediction != "flow":
            # As the engine does for models with convolutions; the plain loop gets the benefit too.
            denoiser.to(memory_format=torch.channels_last)
        self.adapter = inject(self.parts, config)
        denoiser.train()
        if case.checkpointing:
            self.denoiser.enable_gradient_checkpointing()
        kernel = attention.choose(self.denoiser, case.attention, device.torch_device, device.dtype)
        self.notes.append(kernel.reason)
        optimizer = optimizers.build(config, self.adapter)
        self.step = Step(
            config,
            family_adapter(case.family),
            self.parts,
            self.adapter,
            optimizer,
            optimizers.schedule(config, optimizer, 1_000_000),
            Arithmetic(device.torch_device, None if device.dtype == torch.float32 else device.dtype, kernel.context),
            text=TextOptions(t5_tokens=case.tokens),
        )
        self.batches = batches(
            self.parts, case.batch, self.buckets, text_tokens=case.tokens, dtype=device.dtype, pin=device.is_cuda
        )

    def ours(self, number: int) -> object:
        return self.step.run(number, [self.batches[number % len(self.batches)]])

    def value(self) -> tuple[float, float]:
        """Loss and gradient norm of the first batch with the weights as they are; nothing is updated."""
        with self.step.arithmetic.attention():
            loss = self.step.loss(0, self.batches[0])
            loss.backward()
        gradients = [p.grad for p in self.step.parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([gradient.norm() for gradient in gradients]))
        self.step.optimizer.zero_grad(set_to_none=True)
        return float(loss.detach()), float(norm)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Compiled blocks run uncompiled inside: the plain loop has none."""
        blocks: list[Any] = [block for _, block in repeated_blocks(self.denoiser)]
        calls = [block._compiled_call_impl for block in blocks]
        for block in blocks:
            block._compiled_call_impl = None
        try:
            yield
        finally:
            for block, call in zip(blocks, calls, strict=True):
                block._compiled_call_impl = call

    def plain(self) -> Run:
        """The plain loop over the same denoiser, adapter and data."""
        arithmetic = self.step.arithmetic
        loop = PlainLoop(self.parts, self.step.parameters, arithmetic.device, arithmetic.autocast)

        def run(number: int) -> object:
            with self.eager():
                return loop.run(self.batches[number % len(self.batches)])

        return run

    def out_of_memory(self) -> str:
        """Run out of memory in the middle of a forward pass; the next step must be as if nothing had been."""
        before, weights = self.value(), [p.detach().clone() for p in self.step.parameters]
        blocks = repeated_blocks(self.denoiser)

        def exhaust(*_: object) -> None:
            if not self.device.is_cuda:
                raise torch.OutOfMemoryError("injected")
            torch.empty(2**45, dtype=torch.uint8, device=self.device.torch_device)

        hook = blocks[len(blocks) // 2][1].register_forward_pre_hook(exhaust)
        try:
            self.ours(0)
        except torch.OutOfMemoryError:
            self.step.optimizer.zero_grad(set_to_none=True)
        else:
            return "no: the allocation that cannot succeed did"
        finally:
            hook.remove()
        same = all(torch.equal(a, b) for a, b in zip(weights, self.step.parameters, strict=True))
        again = self.value()
        agree = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(before, again, strict=True))
        return "yes" if same and agree else f"no: weights kept {same}, loss and norm {before} then {again}"


def _birthplace(case: Case, device: Device) -> torch.device:
    """Where weights are made: on the device, or on the host where only their smaller storage fits the device."""
    needed = card(case.family).parameters()["denoiser"] * device.dtype.itemsize
    fits = needed < 0.8 * device.memory_bytes
    return device.torch_device if fits or case.base == "full" else torch.device("cpu")


def measure(
    case: Case, device: Device, arguments: argparse.Namespace, rate: float, plain: dict[str, tuple[float, float]]
) -> dict[str, Any]:
    """One row of the result. plain remembers loss and gradient norm of each family's and size's first case."""
    start = time.perf_counter()
    bench = Bench(case, device, arguments.tiny)
    row: dict[str, Any] = {"case": case.text(), "built_s": round(time.perf_counter() - start, 2)}
    value = bench.value()
    key = f"{case.family} {case.batch} {case.resolution} {case.tokens} {case.rank}"
    if case.compile:
        compiled: list[Any] = []
        row["compile_s"] = seconds_of(
            lambda: compiled.append(compile_blocks(bench.denoiser, bench.value)), device.torch_device
        )
        bench.notes.append(compiled[0].reason)
        row["compiled"] = compiled[0].on
        row["loss_off"] = _apart(bench.value(), value)
    elif key in plain:
        row["loss_off"] = _apart(value, plain[key])
    plain.setdefault(key, value)
    if case.oom:
        row["recovers"] = bench.out_of_memory()
    contenders: dict[str, Run] = {"ours": bench.ours}
    if case.baseline:
        contenders["plain"] = bench.plain()
    timings = in_turn(contenders, device.torch_device, warmup=arguments.warmup, steps=arguments.steps)
    flops = [step_flops(bench.parts, bench.config, case.batch, bucket, case.tokens) for bucket in bench.buckets]
    ours = timings["ours"]
    achieved = sum(flops) / len(flops) / ours.median
    row |= {
        "median_ms": ours.median * 1e3,
        "p95_ms": ours.p95 * 1e3,
        "free_ms": ours.free_running * 1e3,
        "images_s": case.batch / ours.free_running,
        "tflop": sum(flops) / len(flops) / 1e12,
        "tflop_s": achieved / 1e12,
        "of_matmul": achieved / rate,
        "alloc_gib": ours.allocated / 2**30,
        "reserved_gib": ours.reserved / 2**30,
    }
    if case.baseline:
        other = timings["plain"]
        row |= {
            "plain_ms": other.median * 1e3,
            "plain_gib": other.allocated / 2**30,
            "ratio": ours.median / other.median,
        }
    for note in bench.notes:
        print(f"  {note}")
    return row


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The larger relative difference of loss and gradient norm."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def run_suite(
    cases: list[Case], device: Device, arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure case after case until time runs out; returns rows and the cases left out."""
    rate = matmul_flops(device.torch_device, device.dtype)
    print(f"one large matrix product: {rate / 1e12:.4g} TFLOP/s in {device.dtype}")
    begin = time.perf_counter()
    rows: list[dict[str, Any]] = []
    plain: dict[str, tuple[float, float]] = {}
    for place, case in enumerate(cases):
        if time.perf_counter() - begin > arguments.minutes * 60:
            return rows, [left.text() for left in cases[place:]]
        print(case.text(), flush=True)
        try:
            rows.append(measure(case, device, arguments, rate, plain))
        except torch.OutOfMemoryError as error:
            rows.append({"case": case.text(), "failed": "out of memory"})
            print(f"  out of memory: {str(error).splitlines()[0]}")
        # The model of the last case has to be gone before the next one is built.
        gc.collect()
        torch.compiler.reset()
        if device.is_cuda:
            torch.cuda.empty_cache()
    return rows, []


def figures_of(rows: list[dict[str, Any]], tiny: bool) -> list[Figure]:
    """The headline numbers; a miniature's have no goal, because they say nothing about speed."""
    figures = [
        Figure("ratio_" + "_".join(row["case"].split()), row["ratio"], "x", *(() if tiny else ("<=", 1.05)))
        for row in rows
        if "ratio" in row
    ]
    recovered = [row["recovers"] == "yes" for row in rows if "recovers" in row]
    if recovered:
        figures.append(Figure("oom_recovered", sum(recovered) / len(recovered), "share", ">=", 1.0))
    compiled = [row["compiled"] for row in rows if "compiled" in row]
    if compiled:
        figures.append(Figure("compiled", sum(compiled) / len(compiled), "share", *(() if tiny else (">=", 1.0))))
    failed = sum("failed" in row for row in rows)
    return [*figures, Figure("cases_failed", failed, "cases", "<=", 0)]


def arguments_of(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0] if __doc__ else "", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", action="append", choices=sorted(cards()), help="only this family; several allowed")
    parser.add_argument("--case", action="append", help='instead of the suite: "sdxl batch=4 compile baseline"')
    parser.add_argument("--minutes", type=float, default=8.0, help="no case is begun after this long")
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50, help="synchronised steps for each contender")
    parser.add_argument("--tiny", action="store_true", help="miniatures, on any device: tries the code, not the speed")
    parser.add_argument("--out", type=Path, help="where the result goes; benchmarks/results/ where it is a full run")
    arguments = parser.parse_args(given)
    try:
        texts = arguments.case or SUITE.strip().splitlines()
        cases = [Case.parse(text) for text in texts]
    except ValueError as error:
        parser.error(f"--case: {error}")
    arguments.cases = [case for case in cases if not arguments.family or case.family in arguments.family]
    return arguments


def main(given: list[str] | None = None) -> int:
    arguments = arguments_of(sys.argv[1:] if given is None else given)
    if not (torch.cuda.is_available() or arguments.tiny):
        print("train_step: no CUDA device: nothing was measured. --tiny tries the code on miniatures.", file=sys.stderr)
        return NOT_RUN
    device = choose_device()
    for note in device.notes:
        print(note)
    rows, left_out = run_suite(arguments.cases, device, arguments)
    for text in left_out:
        print(f"left out, time ran out: {text}")
    out = arguments.out or (None if arguments.tiny else default_out("train_step"))
    figures = figures_of(rows, arguments.tiny)
    about = {"tiny": arguments.tiny, "warmup": arguments.warmup, "steps": arguments.steps, "left_out": left_out}
    return finish("train_step", figures, rows, out=out, **about)


if __name__ == "__main__":
    sys.exit(main())
