"""The live plan of a wizard's choices: resolved, planned and checked as `trainpilot train` does it, in milliseconds.

Used by the Train page and the API. The table of pictures is built once and kept until a file of the dataset changes;
pictures that nobody has measured yet are measured by another process meanwhile, and the plan says so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from controlpilot.measuring import measuring
from controlpilot.training_types import training_type
from controlpilot.views.drafts import Choices
from controlpilot.views.refusals import Problem
from controlpilot.views.settings import preferences
from trainpilot.config.merge import CUSTOM, Resolved, resolve
from trainpilot.config.schema import RunConfig
from trainpilot.datasets import layouts
from trainpilot.datasets.table import Table, build, locate
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import card
from trainpilot.models.detect import Base, detect
from trainpilot.plan import Plan, check, make, steps
from trainpilot.plan.timing import Device, device_here
from trainpilot.workspace import Workspace

MOST_STEPS = 10_000_000  # as training.steps allows
MOST_CHECKPOINTS = 10_000
_TABLES = 8
_DEVICE_SECONDS = 60.0
CHOOSE = {"datasets": "Choose a dataset", "model.base": "Choose a base model"}


class Measured(BaseModel):
    """How far the measuring of new pictures is."""

    done: int
    of: int


class LivePlan(BaseModel):
    """What the choices come to. state: "ready" has a plan; "choose" lacks a choice; "measuring" is on its way.

    problems name the setting in `where`. sources: setting -> where its value came from. command: the exact command
    line. plan: `Plan.as_dict()`, in bytes, seconds and the currency of the price.
    """

    state: Literal["ready", "choose", "measuring", "problems"]
    problems: list[Problem] = []
    choose: list[str] = []
    measured: Measured | None = None
    plan: dict[str, Any] | None = None
    command: str = ""
    sources: dict[str, str] = {}
    notes: list[str] = []


@dataclass
class Outcome:
    """One look at choices. config and sources are of the nearest configuration that can be resolved, for the form."""

    live: LivePlan
    config: RunConfig
    sources: dict[str, str]
    resolved: Resolved | None = None
    table: Table | None = None
    plan: Plan | None = None
    base: Base | None = None
    problems: list[PilotError] = field(default_factory=list)


def overrides_of(choices: Choices) -> list[str]:
    """A person's settings as `--set` takes them."""
    return [f"{path}={text}" for path, text in sorted(choices.settings.items())]


def _direct(workspace: Workspace, choices: Choices) -> dict[str, object]:
    """Choices and presets of the training type, as dotted path -> value."""
    found: dict[str, object] = {}
    if choices.datasets:
        found["datasets"] = [{"path": path} for path in choices.datasets]
    if choices.base:
        found["model.base"] = choices.base
    if choices.name:
        found["run.name"] = choices.name
    return found


def _preset_overrides(workspace: Workspace, choices: Choices, profile_prompts: bool) -> list[str]:
    if not choices.kind:
        return []
    kind = training_type(choices.kind)
    presets = [f"{preset.set}={preset.value}" for preset in kind.presets if not preset.set.startswith("datasets.")]
    if choices.datasets:
        presets += [f"{one.set}={one.value}" for one in kind.presets if one.set.startswith("datasets.")]
    trigger = trigger_of(workspace, choices)
    if kind.prompts and trigger and not profile_prompts:
        prompts = [prompt.replace("{trigger}", trigger) for prompt in kind.prompts]
        presets.append(f"sampling.prompts={json.dumps(prompts, ensure_ascii=False)}")
    return presets


def trigger_of(workspace: Workspace, choices: Choices) -> str:
    """The trigger word of the first dataset: what a person set, else the class of its N_name folder."""
    given = choices.settings.get("datasets.0.captions.trigger") or choices.settings.get("datasets.captions.trigger")
    if given or not choices.datasets:
        return given or ""
    number, _, name = Path(choices.datasets[0]).name.partition("_")
    return name if number.isdigit() else ""


def resolved_of(workspace: Workspace, choices: Choices) -> Resolved:
    """The configuration of choices. Raises Problems with everything that is wrong."""
    prompts = _profile_has_prompts(workspace, choices.profile)
    presets = _preset_overrides(workspace, choices, prompts)
    settings = overrides_of(choices)
    mine = {text.partition("=")[0] for text in settings}
    # A preset loses against a person's own setting, said for all datasets or for one.
    mine |= {_every(path) for path in mine}
    presets = [text for text in presets if text.partition("=")[0] not in mine]
    made = resolve(
        workspace,
        profile=choices.profile or CUSTOM,
        environment=os.environ,
        overrides=[*presets, *settings],
        direct=_direct(workspace, choices),
    )
    preset_paths = {text.partition("=")[0] for text in presets}
    sources = {
        path: f"type {choices.kind}" if source == "--set" and _every(path) in preset_paths else source
        for path, source in made.sources.items()
    }
    return Resolved(made.config, sources, made.notes)


def _every(path: str) -> str:
    """`datasets.0.flip` -> `datasets.flip`."""
    head, _, rest = path.partition(".")
    number, _, inner = rest.partition(".")
    return f"{head}.{inner}" if head == "datasets" and number.isdigit() else path


def _profile_has_prompts(workspace: Workspace, profile: str) -> bool:
    from trainpilot.config.document import profile_tables

    if not profile or profile == CUSTOM:
        return False
    try:
        sampling = profile_tables(workspace, profile).get("sampling", {})
    except PilotError:
        return False  # the merge reports it, at its place
    return bool(isinstance(sampling, dict) and (sampling.get("prompts") or sampling.get("prompts_file")))


def _problems(error: PilotError) -> list[PilotError]:
    return list(error.problems) if isinstance(error, Problems) else [error]


def look(workspace: Workspace, choices: Choices, device: Device | None = None) -> Outcome:
    """Resolve, measure and plan; never raises for what a person chose: it says what is wrong and what is missing."""
    problems: list[PilotError] = []
    resolved = None
    try:
        resolved = resolved_of(workspace, choices)
    except PilotError as error:
        problems = _problems(error)
    if resolved is None:
        config, sources = _nearest(workspace, choices, problems)
        live = LivePlan(state="problems")
        missing = [problem for problem in problems if _is_choice(problem, choices)]
        live.choose = [CHOOSE[problem.where] for problem in missing]
        problems = [problem for problem in problems if problem not in missing]
        live.problems = [Problem.of(problem) for problem in problems]
        live.state = "problems" if problems else "choose"
        live.sources = sources
        return Outcome(live, config, sources, problems=problems)
    outcome = Outcome(
        LivePlan(state="ready", sources=resolved.sources, notes=resolved.notes),
        resolved.config,
        resolved.sources,
        resolved,
    )
    try:
        _plan(workspace, choices, outcome, device)
    except PilotError as error:
        outcome.problems = _problems(error)
        outcome.live.problems = [Problem.of(problem) for problem in outcome.problems]
        outcome.live.state = "problems"
    return outcome


def _is_choice(problem: PilotError, choices: Choices) -> bool:
    """Whether a problem is only a choice that has not been made."""
    return (problem.where == "datasets" and not choices.datasets) or (
        problem.where == "model.base" and not choices.base
    )


def _nearest(workspace: Workspace, choices: Choices, problems: list[PilotError]) -> tuple[RunConfig, dict[str, str]]:
    """What the form shows beside a value that is wrong: the same choices without it, else the schema's defaults."""
    wrong = {problem.where for problem in problems}
    rest = {path: text for path, text in choices.settings.items() if path not in wrong and _every(path) not in wrong}
    if rest != choices.settings:
        try:
            near = resolved_of(workspace, choices.model_copy(update={"settings": rest}))
            return near.config, near.sources
        except PilotError:
            pass  # more is missing than these settings; the profile alone follows
    return _profile_alone(workspace, choices.profile)


def _profile_alone(workspace: Workspace, profile: str) -> tuple[RunConfig, dict[str, str]]:
    from trainpilot.config.document import profile_tables
    from trainpilot.config.layers import from_tables, nest, stack
    from trainpilot.config.validate import validate

    layers = []
    if profile and profile != CUSTOM:
        try:
            layers = [from_tables(f"profile {profile}", profile_tables(workspace, profile))]
        except PilotError:
            layers = []  # an unknown profile is among the problems already
    values, _, sources, _ = stack(layers)
    config, _ = validate(nest(values), sources)
    return config, sources


def _plan(workspace: Workspace, choices: Choices, outcome: Outcome, device: Device | None) -> None:
    assert outcome.resolved is not None
    config = outcome.resolved.config
    pictures = _pictures(config, workspace)
    work = measuring(workspace)
    unknown = work.unknown(pictures)
    if unknown:
        work.want(unknown)
        outcome.live.state = "measuring"
        outcome.live.measured = Measured(done=len(pictures) - len(unknown), of=len(pictures))
        return
    refused = [path for path in pictures if (fact := work.given_up_reason(path))]
    if refused:
        fact = work.given_up_reason(refused[0])
        raise PilotError(
            f"datasets: {refused[0].name}", fact, "pictures that can be read safely", "Move it to the trash."
        )
    table = table_of(config, workspace, pictures)
    _refuse_endless(config, table)
    base = detect(Path(config.model.base))
    outcome.table, outcome.base = table, base
    plan = make(
        outcome.resolved,
        table,
        card(config.model.family),
        base,
        price_per_hour=_price(workspace, choices),
        device=device or device_now(),
    )
    outcome.plan = plan
    outcome.live.plan = json.loads(json.dumps(plan.as_dict(), default=str))
    outcome.live.command = shlex.join(plan.command)
    try:
        check(plan, workspace)
    except PilotError as error:
        outcome.problems = _problems(error)
        outcome.live.problems = [Problem.of(problem) for problem in outcome.problems]
        outcome.live.state = "problems"


def _price(workspace: Workspace, choices: Choices) -> float | None:
    """The price of an hour that these choices name, else the one in the panel's settings."""
    return preferences(workspace).price_per_hour if choices.price_per_hour is None else choices.price_per_hour


def _refuse_endless(config: RunConfig, table: Table) -> None:
    """Refuse lengths that nobody means: listing their checkpoints alone would keep the panel busy for minutes."""
    batches = table.batches_per_epoch(config.training.batch_size)
    length = steps.length(config.training, batches)
    if length.steps > MOST_STEPS:
        raise PilotError(
            "training.epochs",
            f"{length.steps:,} steps",
            f"at most {MOST_STEPS:,} steps",
            "Take fewer epochs or repeats.",
        )
    every = [config.saving.every_steps, config.saving.every_epochs * length.steps_per_epoch]
    for path, gap in zip(("saving.every_steps", "saving.every_epochs"), every, strict=True):
        if gap and length.steps // gap > MOST_CHECKPOINTS:
            given = f"{length.steps // gap:,} checkpoints"
            raise PilotError(path, given, f"at most {MOST_CHECKPOINTS:,} checkpoints", "Save less often.")


def _pictures(config: RunConfig, workspace: Workspace) -> list[Path]:
    """Pictures and masks that the table reads; a folder that is wrong is left to the table to name."""
    found: list[Path] = []
    for dataset in config.datasets:
        try:
            root = locate(dataset, workspace)
            layout = layouts.discover(
                root,
                caption_extension=dataset.caption_extension,
                caption_column=dataset.caption_column,
                masks=workspace.locate(dataset.masks, root, root.parent) if dataset.masks else None,
            )
        except PilotError:
            continue
        found += [path for one in layout.images for path in (one.image, one.mask) if path]
    return list(dict.fromkeys(found))


_tables: OrderedDict[str, Table] = OrderedDict()
_guard = threading.Lock()


def table_of(config: RunConfig, workspace: Workspace, pictures: Iterable[Path]) -> Table:
    """The table of a configuration, kept until a file beside one of the pictures changes."""
    key = _fingerprint(config, workspace, pictures)
    with _guard:
        kept = _tables.get(key)
        if kept is not None:
            _tables.move_to_end(key)
            return kept
    made = build(config, workspace)
    with _guard:
        _tables[key] = made
        while len(_tables) > _TABLES:
            _tables.popitem(last=False)
    return made


def _fingerprint(config: RunConfig, workspace: Workspace, pictures: Iterable[Path]) -> str:
    """Settings that the table depends on, and size and time of every file in the folders it reads."""
    total = hashlib.sha256()
    chosen: dict[str, Any] = {"root": str(workspace.root), "buckets": config.buckets.model_dump(mode="json")}
    chosen["datasets"] = [dataset.model_dump(mode="json") for dataset in config.datasets]
    total.update(json.dumps(chosen, sort_keys=True).encode())
    holders = {path.parent for path in pictures}
    holders |= {holder / "captions" for holder in set(holders)} | {
        holder.parent / "captions" for holder in set(holders)
    }
    holders |= {holder.parent for holder in set(holders)}
    for holder in sorted(holders):
        try:
            with os.scandir(holder) as entries:
                for name, entry in sorted((entry.name, entry) for entry in entries):
                    status = entry.stat()
                    total.update(f"{name}\0{status.st_size} {status.st_mtime_ns}\n".encode("utf-8", "surrogatepass"))
        except OSError:
            total.update(b"-\n")
    return total.hexdigest()


_device: tuple[float, Device] | None = None


def device_now() -> Device:
    """The device here, asked once a minute: the driver takes a while to answer."""
    global _device
    if _device is None or time.monotonic() - _device[0] > _DEVICE_SECONDS:
        _device = (time.monotonic(), device_here(os.environ))
    return _device[1]
