"""The evaluation of a run, from top to bottom: paint the protocol, measure, choose, diagnose, write the report.

Used by the verb and the job `evaluate`. Checkpoints are painted at the reference strength first; those that lead are
painted at every strength then, so that most pictures are spent where the choice is made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from trainpilot.config.prompts import Prompt, defaults_of
from trainpilot.datasets.images import open_rgb
from trainpilot.datasets.table import build, locate
from trainpilot.engine.probe import Device, choose_device
from trainpilot.errors import PilotError
from trainpilot.evaluate import candidates, protocol
from trainpilot.evaluate.album import Album, Loras, Order
from trainpilot.evaluate.candidates import Candidate
from trainpilot.evaluate.choosing import Cell, Choice, choose
from trainpilot.evaluate.easel import Easel
from trainpilot.evaluate.embeddings import Embedders, Missing
from trainpilot.evaluate.held_out import HeldOut
from trainpilot.evaluate.interval import Reading
from trainpilot.evaluate.metrics import Bench, Finding, Picture, metrics
from trainpilot.evaluate.painter import Painter
from trainpilot.evaluate.protocol import Asked, Protocol, Subject
from trainpilot.families.card import card
from trainpilot.families.protocol import TextOptions
from trainpilot.models.detect import Base, detect
from trainpilot.runs.rundir import RunDir

LIKENESS = ("likeness_dino", "likeness_clip")  # the first that could be measured decides about likeness


@dataclass(frozen=True)
class Wanted:
    """What a person may say about an evaluation; None takes the protocol's. against: LoRA files to compare with."""

    protocol: str | None = None
    trigger: str | None = None
    class_word: str | None = None
    checkpoints: int | None = None
    seeds: int | None = None
    strengths: tuple[float, ...] | None = None
    swept: int | None = None
    against: tuple[Path, ...] = ()
    held_out: Path | None = None
    fetch: bool = True


@dataclass(frozen=True)
class Voice:
    """How an evaluation tells what it does. check and count may raise to stop it."""

    say: Callable[[str], None]
    phase: Callable[[str, int], None]
    count: Callable[[int, int], None]
    check: Callable[[], object]


@dataclass
class Evaluated:
    """Everything that was found; what the report and the JSON are made of.

    cells: of the run's checkpoints; others: of the files that it is compared with, and the base under the name "base".
    shown: pictures by (cell's name, prompt, seed). findings: of a metric, by checkpoint, at the reference strength.
    """

    run: RunDir
    base: Base
    device: Device
    protocol: Protocol
    subject: Subject
    asked: list[Asked]
    checkpoints: list[Candidate]
    cells: list[Cell] = field(default_factory=list)
    others: list[Cell] = field(default_factory=list)
    shown: dict[tuple[str, int, int], Path] = field(default_factory=dict)
    findings: dict[str, dict[str, list[Finding]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    choice: Choice | None = None
    painted: int = 0
    seconds: float = 0.0

    @property
    def at_reference(self) -> list[Cell]:
        """The checkpoints at the reference strength, by step."""
        found = [cell for cell in self.cells if cell.strength == self.protocol.reference]
        return sorted(found, key=lambda cell: cell.step or 0)


def evaluate(run: RunDir, wanted: Wanted, voice: Voice) -> Evaluated:
    """Judge a run's checkpoints. PilotError where there is nothing to judge or no CLIP to judge with."""
    began = time.monotonic()
    stage = _Stage(run, wanted, voice)
    stage.paint_base()
    reference = stage.found.protocol.reference
    stage.judge([(one, reference) for one in stage.found.checkpoints], "checkpoints")
    stage.judge(stage.sweep(), "strengths")
    stage.found.choice = choose(stage.found.cells, stage.likeness)
    stage.compare()
    stage.found.painted, stage.found.seconds = stage.painter.painted, time.monotonic() - began
    return stage.found


class _Stage:
    """One evaluation in the making."""

    def __init__(self, run: RunDir, wanted: Wanted, voice: Voice) -> None:
        self.wanted, self.voice = wanted, voice
        config = run.config
        base = detect(Path(config.model.base))
        chosen, why = protocol.choose(run.workspace, wanted.protocol, base.path.name)
        chosen = _with(chosen, wanted)
        self._tell(f"protocol {chosen.name}: {why}")
        device = choose_device(config.precision.mixed)
        for note in device.notes:
            voice.say(note)
        judged, notes = candidates.of_run(run, chosen.checkpoints)
        table = build(config, run.workspace, progress=lambda done, of: _look(voice))
        trained = [sample for sample in table.samples if not sample.regularization]
        subject = protocol.subject_of(
            [sample.caption for sample in trained],
            locate(config.datasets[0], run.workspace).name,
            chosen,
            trigger=wanted.trigger or config.datasets[0].captions.trigger or None,
            class_word=wanted.class_word,
        )
        asked = chosen.filled(subject)
        self.found = Evaluated(run, base, device, chosen, subject, asked, judged)
        for note in notes:
            self._tell(note)
        self._tell(f"trigger {subject.trigger!r} ({subject.source}), class {subject.class_word!r}")
        if not subject.trigger:
            self._tell("no trigger was found: likeness is that of what the LoRA does without one; --trigger names it")
        options = TextOptions(
            config.text_encoder.clip_skip, config.text_encoder.clip_tokens, config.text_encoder.t5_tokens
        )
        vae = Path(config.model.vae) if config.model.vae else None
        easel = Easel(base, device, vae, options, config.noise.zero_terminal_snr)
        self.painter = Painter(easel, Album(run.workspace, base, easel.settings, voice.check), voice.check)
        names: Any = {kind: getattr(chosen.models, kind) for kind in ("clip", "dino", "face")}
        self.embedders = Embedders(run.workspace, names, device.torch_device, fetch=wanted.fetch, say=voice.say)
        try:
            self.embedders.get("clip")  # without it there is neither flexibility nor adherence: found out at once
        except Missing as missing:
            raise PilotError(
                "evaluation", str(missing), "a CLIP model", "Fetch one with `trainpilot models`."
            ) from missing
        self.bench = Bench(asked, {}, _dataset([sample.image for sample in trained], chosen.pictures), self.embedders)
        self.likeness = ""
        self.held_out = HeldOut.prepare(run, easel, wanted.held_out) if wanted.held_out else None
        if self.held_out is None:
            self.found.left_out["held_out_loss"] = "no held-out pictures were named: --held-out DIR"

    def _tell(self, text: str) -> None:
        self.voice.say(text)
        if hasattr(self, "found"):
            self.found.notes.append(text)

    # --- painting ----------------------------------------------------------------------------------------------------

    def _prompt(self, text: str, seed: int) -> Prompt:
        """The prompt of a text: the protocol's sampling, the run's size, the family's guidance and sampler."""
        found = self.found
        given, about = found.protocol.sampling, card(found.base.family).variant(found.base.variant)
        defaults = defaults_of(found.run.config, about.embedded_guidance)
        size = given.size or found.base.resolution or about.resolution
        trained = found.run.config.buckets.resolution
        width, height = (given.size, given.size) if given.size or not trained else (defaults.width, defaults.height)
        return Prompt(
            text=text,
            negative=given.negative,
            width=width or size,
            height=height or size,
            seed=seed,
            steps=given.steps,
            guidance=about.guidance if given.guidance is None else given.guidance,
            embedded_guidance=about.embedded_guidance,
            sampler=about.sampler if given.sampler == "auto" else given.sampler,
        )

    def _orders(self, loras: Loras, *, plain: bool = False) -> list[tuple[Asked, int, Order]]:
        return [
            (asked, seed, Order(self._prompt(asked.plain if plain else asked.text, seed), loras))
            for asked in self.found.asked
            for seed in self.found.protocol.seeds
        ]

    def paint_base(self) -> None:
        """The base's own pictures, from the prompts without the trigger: what everything is compared with."""
        orders = self._orders((), plain=True)
        self.voice.phase("base", len(orders))
        files = self.painter.paint([order for _, _, order in orders], self.voice.count)
        for (asked, seed, _), file in zip(orders, files, strict=True):
            self.bench.base[asked.number, seed] = _picture(file, asked.number, seed)
            self.found.shown["base", asked.number, seed] = file
        self.found.others.append(self._measured("base", None, 0.0, list(self.bench.base.values())))

    def judge(self, wanted: Sequence[tuple[Candidate, float]], what: str) -> None:
        """Paint and measure checkpoints at strengths; their cells join `found.cells`."""
        for cell in self._cells(wanted, what):
            self.found.cells.append(cell)
        if not self.likeness:
            self.likeness = next(name for name in LIKENESS if name not in self.found.left_out)

    def _cells(self, wanted: Sequence[tuple[Candidate, float]], what: str) -> list[Cell]:
        if not wanted:
            return []
        orders = [(one, strength, *row) for one, strength in wanted for row in self._orders(((one.file, strength),))]
        pictures = [order for *_, order in orders]
        missing = self.painter.missing(pictures)
        self.voice.say(f"{what}: {len(pictures)} pictures, {missing} of them to be painted")
        self.voice.phase(what, len(pictures))
        files = self.painter.paint(pictures, self.voice.count)
        losses = self.held_out.losses([((one.file, s),) for one, s in wanted], self.voice) if self.held_out else None
        self.voice.phase(f"measuring {what}", len(wanted))
        found = []
        for number, (one, strength) in enumerate(wanted):
            own = [
                (asked.number, seed, file)
                for (candidate, at, asked, seed, _), file in zip(orders, files, strict=True)
                if candidate is one and at == strength
            ]
            cell = self._measured(one.name, one.step, strength, [_picture(file, p, s) for p, s, file in own])
            if losses is not None:
                cell = replace(cell, readings={**cell.readings, "held_out_loss": losses[number]})
            self.found.shown.update({(cell.name, prompt, seed): file for prompt, seed, file in own})
            found.append(cell)
            self.voice.count(number + 1, len(wanted))
        return found

    # --- measuring ---------------------------------------------------------------------------------------------------

    def _measured(self, name: str, step: int | None, strength: float, pictures: list[Picture]) -> Cell:
        readings: dict[str, list[Reading]] = {}
        for metric in metrics().values():
            if metric.ABOUT.name in self.found.left_out:
                continue
            try:
                measured = metric.measure(pictures, self.bench)
            except Missing as missing:
                self.found.left_out[metric.ABOUT.name] = str(missing)
                self._tell(f"{metric.ABOUT.label} is left out: {missing}")
                continue
            readings[metric.ABOUT.name] = measured.readings
            if measured.findings and strength == self.found.protocol.reference:
                self.found.findings.setdefault(metric.ABOUT.name, {})[name] = measured.findings
        return Cell(name, step, strength, readings)

    def sweep(self) -> list[tuple[Candidate, float]]:
        """The checkpoints that lead at the reference strength, at all the other strengths."""
        found, protocol_ = self.found, self.found.protocol
        leading = choose(found.cells, self.likeness)
        ranked = sorted(leading.scored, key=lambda one: -one.score.mean)
        names = [one.cell.checkpoint for one in ranked][: protocol_.swept or None]
        others = [strength for strength in protocol_.strengths if strength != protocol_.reference]
        if len(names) < len(found.checkpoints):
            self._tell(
                f"the {len(names)} leading of {len(found.checkpoints)} checkpoints are painted at every strength: "
                + ", ".join(names)
            )
        return [(one, strength) for one in found.checkpoints if one.name in names for strength in others]

    def compare(self) -> None:
        """The files that the run is compared with, at the recommended strength."""
        assert self.found.choice is not None
        strength = self.found.choice.best.cell.strength
        others = [Candidate(path.stem, path) for path in self.wanted.against]
        self.found.others += self._cells([(one, strength) for one in others], "others")


def _with(chosen: Protocol, wanted: Wanted) -> Protocol:
    """The protocol with what was said instead."""
    changes: dict[str, Any] = {
        name: value for name in ("checkpoints", "strengths", "swept") if (value := getattr(wanted, name)) is not None
    }
    if wanted.seeds is not None:
        first = chosen.seeds[0]
        changes["seeds"] = chosen.seeds[: wanted.seeds] + tuple(
            first + number for number in range(len(chosen.seeds), wanted.seeds)
        )
    if "strengths" in changes and chosen.reference not in changes["strengths"]:
        changes["strengths"] = (*changes["strengths"], chosen.reference)
    return Protocol.model_validate(chosen.model_dump(by_alias=True) | changes)


def _dataset(images: Sequence[Path], most: int) -> list[Picture]:
    """At most so many pictures of the dataset, at equal distances."""
    chosen = images if len(images) <= most else [images[place * len(images) // most] for place in range(most)]
    return [Picture(f"dataset {path}", _bounded(open_rgb(path)), path) for path in chosen]


def _bounded(image: Image.Image, most: int = 1024) -> Image.Image:
    """No larger than metrics can use: a dataset of photographs fits into memory then."""
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    return image


def _picture(file: Path, prompt: int, seed: int) -> Picture:
    with Image.open(file) as found:
        return Picture(file.stem, found.convert("RGB"), file, prompt, seed)


def _look(voice: Voice) -> None:
    voice.check()
