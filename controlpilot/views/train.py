"""From choices to a queued run; and choices from a run, from the demo, or saved as a profile.

Used by the Train page and the API. A run is made exactly as `trainpilot train` makes it: resolved, measured, planned,
checked, then its folder; the worker does the rest.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

import tomli_w
from pydantic import BaseModel

from controlpilot.measuring import measuring
from controlpilot.views.drafts import Choices
from controlpilot.views.fields import field_of, shown
from controlpilot.views.plan import Outcome, device_now, look
from controlpilot.views.refusals import Conflict
from controlpilot.views.run import checkpoint_file
from controlpilot.views.runs import open_run
from trainpilot.config.describe import both
from trainpilot.config.document import profile_tables, read_toml
from trainpilot.config.layers import nest
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import card, cards
from trainpilot.models.detect import Base, detect
from trainpilot.models.ondisk import candidates
from trainpilot.plan.command import command
from trainpilot.plan.plan import gigabytes
from trainpilot.profiles import about, profiles
from trainpilot.runs.atomic import write_beside
from trainpilot.runs.rundir import RunDir
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

MEASURE_SECONDS = 20.0
_PROFILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")
# The guide's three first, then what else there is.
_FIRST = ("quick_test", "standard", "quality")


class Started(BaseModel):
    """A run that waits for the worker. notes: what was decided on the way, such as another name."""

    run: str
    folder: str
    status: str = "queued"
    notes: list[str] = []


class ProfileCard(BaseModel):
    """One profile for the third step. summary: its main settings in words."""

    name: str
    label: str
    help: str
    summary: list[str] = []
    own: bool = False
    problem: str = ""


class BaseCard(BaseModel):
    """One base model on disk, and what its files say. name: as `--base-model` takes it."""

    name: str
    path: str
    family: str = ""
    label: str = ""
    variant: str = ""
    prediction: str = ""
    resolution: int | None = None
    size_bytes: int = 0
    reason: str = ""
    licence: str = ""
    tiny: bool = False
    problem: str = ""


class Fit(BaseModel):
    """One line of the compatibility check."""

    level: Literal["ok", "warning", "error"]
    text: str


def start(workspace: Workspace, choices: Choices, wait: float = MEASURE_SECONDS) -> Started:
    """Make the run and queue it. wait: seconds that new pictures may take to be measured.

    Raises Problems with all that is wrong, Conflict where pictures are still being measured.
    """
    check_writable(workspace)
    outcome = look(workspace, choices)
    if outcome.live.state == "measuring":
        measuring(workspace).wait(wait)
        outcome = look(workspace, choices)
    if outcome.live.state == "measuring" and outcome.live.measured:
        counted = f"{outcome.live.measured.done} of {outcome.live.measured.of} pictures are measured"
        raise Conflict("datasets", counted, "a measured dataset", "Wait a moment and start again.")
    if outcome.live.state == "choose":
        missing = {"Choose a dataset": "datasets", "Choose a base model": "model.base"}
        raise Problems(
            PilotError(missing[text], "nothing", "one that is in the workspace", f"{text}.")
            for text in outcome.live.choose
        )
    if outcome.problems:
        raise Problems(outcome.problems)
    assert outcome.resolved is not None and outcome.live.plan is not None
    run = RunDir.create(workspace, outcome.resolved, outcome.live.plan)
    run.queue("started in the panel")
    return Started(run=run.name, folder=str(run.path), notes=run.notes)


def from_run(workspace: Workspace, name: str, checkpoint: int | None = None) -> tuple[Choices, str]:
    """A run's configuration as choices: everything that its profile and family do not give again.

    checkpoint: a step of that run whose weights the new one begins with. Raises PilotError or NotFound.
    """
    run = open_run(workspace, name)
    words = command(run.resolved)
    choices = Choices(base=run.config.model.base, datasets=[dataset.path for dataset in run.config.datasets])
    choices.profile = words[words.index("--profile") + 1]
    problem = ""
    known = profiles(workspace)
    if choices.profile not in known:
        problem = f"; its profile {choices.profile} is no longer there, so its settings are given one by one"
        choices.profile = "custom"
        dumped = run.config.model_dump()
        for path, source in run.resolved.sources.items():
            if source.startswith("profile ") and field_of(path) is not None:
                choices.settings[path] = shown(_at(dumped, path))
    for place, word in enumerate(words):
        if word == "--set":
            path, _, text = words[place + 1].partition("=")
            if field_of(path) is not None:
                choices.settings[path] = text
    choices.base = _short(workspace.models, choices.base)
    choices.datasets = [_short(workspace.datasets / "images", path) for path in choices.datasets]
    choices.name = run.name
    origin = f"run {run.name}"
    if checkpoint is not None:
        choices.settings["network.init_from"] = str(checkpoint_file(run.path, checkpoint))
        origin += f", step {checkpoint}"
    return choices, origin + problem


def _at(tables: object, path: str) -> object:
    for key in path.split("."):
        tables = tables[int(key)] if isinstance(tables, list) else tables[key]  # type: ignore[index]
    return tables


def _short(place: Path, path: str) -> str:
    """A path below `place` as the name that finds it there."""
    given = Path(path)
    return given.relative_to(place).as_posix() if given.is_relative_to(place) else path


def demo(workspace: Workspace) -> Choices:
    """The demo that comes with every workspace. Raises PilotError where it was deleted."""
    choices = Choices(kind="character", profile="demo", datasets=["10_zorp"], base="pilot-tiny", name="demo")
    missing = [
        place
        for place in (workspace.datasets / "images" / "10_zorp", workspace.models / "pilot-tiny")
        if not place.is_dir()
    ]
    if missing:
        names = ", ".join(str(place.relative_to(workspace.root)) for place in missing)
        raise PilotError("demo", f"{names} is not there", "the demo's dataset and base model",
                         "Bring them back: python -m trainpilot.template TEMPLATE WORKSPACE --restore.")  # fmt: skip
    return choices


def suggestion(workspace: Workspace) -> Choices:
    """What a new draft begins with: the only base model where there is one, nothing that a person should choose."""
    bases = [str(path.relative_to(workspace.models)) for path in candidates(workspace)]
    return Choices(base=bases[0] if len(bases) == 1 else "")


def profile_cards(workspace: Workspace) -> list[ProfileCard]:
    """Every profile: the guides' three first, the demo last among the built-in ones, then a person's own."""
    found = []
    for name, path in profiles(workspace).items():
        own = path.is_relative_to(workspace.profiles)
        try:
            said = about(path)
            summary = _summary(profile_tables(workspace, name))
        except PilotError as problem:
            found.append(ProfileCard(name=name, label=name, help="", own=own, problem=problem.message))
            continue
        found.append(ProfileCard(name=name, label=said.label, help=said.help, summary=summary, own=own))
    place = {name: number for number, name in enumerate(_FIRST)}
    return sorted(found, key=lambda one: (one.own, place.get(one.name, 8), one.name == "demo", one.name))


def _summary(tables: dict[str, object]) -> list[str]:
    def at(path: str) -> object:
        section, _, key = path.partition(".")
        inside = tables.get(section)
        return inside.get(key) if isinstance(inside, dict) else None

    words = [
        (at("training.steps"), "{} steps"),
        (at("training.epochs"), "{} epochs"),
        (at("network.rank"), "rank {}"),
        (at("buckets.resolution"), "{} px"),
        (at("optimizer.name"), "{}"),
        (at("optimizer.learning_rate"), "rate {}"),
    ]
    return [text.format(shown(value)) for value, text in words if value is not None]


_bases: dict[tuple[str, int], BaseCard] = {}


def base_cards(workspace: Workspace) -> list[BaseCard]:
    """Every base model in models/, detected from its files; one that cannot be used says why."""
    return [base_card(workspace, path) for path in candidates(workspace)]


def base_card(workspace: Workspace, path: Path) -> BaseCard:
    """One base model; read again when its index or file changes."""
    name = _short(workspace.models, str(path))
    marker = path / "model_index.json" if path.is_dir() else path
    try:
        key = (str(path), marker.stat().st_mtime_ns)
        if key not in _bases:
            _bases[key] = _described(name, detect(path))
        return _bases[key]
    except (PilotError, OSError) as problem:
        return BaseCard(name=name, path=str(path), problem=str(problem))


def _described(name: str, base: Base) -> BaseCard:
    known = cards()[base.family]
    official = next((one for one in known.bases if one.get("variant") == base.variant), {})
    return BaseCard(
        name=name,
        path=str(base.path),
        family=base.family,
        label=known.label,
        variant=base.variant,
        prediction=base.prediction,
        resolution=base.resolution or known.variant(base.variant).resolution,
        size_bytes=base.size_bytes,
        reason=base.reason,
        licence="" if base.tiny else str(official.get("licence", "")),
        tiny=base.tiny,
    )


def fits(outcome: Outcome) -> list[Fit]:
    """The compatibility check of the fourth step: base model against data, profile, adapter and device."""
    found: list[Fit] = []
    for problem in outcome.problems:
        if problem.where.startswith(("model.", "network.", "text_encoder.", "sampling.sampler")):
            found.append(Fit(level="error", text=f"{problem.where}: {problem.given}. {problem.remedy}"))
    resolved, base, plan = outcome.resolved, outcome.base, outcome.plan
    if resolved is None or base is None or plan is None or outcome.table is None:
        return found
    config, known = resolved.config, card(resolved.config.model.family).variant(base.variant)
    found.append(Fit(level="ok", text=f"The files are a {known.label} model ({base.reason})."))
    found.append(
        Fit(
            level="ok",
            text=f"{plan.modules} modules can be adapted by {config.network.type}, rank {config.network.rank}.",
        )
    )
    width, height = both(config.buckets.resolution or known.resolution)
    small = [s for s in outcome.table.samples if s.resized[0] > s.size[0] * 1.05 or s.resized[1] > s.size[1] * 1.05]
    if small:
        text = f"{len(small)} of {plan.images} pictures are smaller than the training size {width}x{height}: enlarged."
        found.append(Fit(level="warning", text=text))
    else:
        found.append(Fit(level="ok", text=f"Every picture is large enough for the training size {width}x{height}."))
    native = base.resolution or known.resolution
    if width * height < (native * 0.6) ** 2:
        text = (
            f"The training size {width}x{height} is far below the {native} px the model was made for: detail is lost."
        )
        found.append(Fit(level="warning", text=text))
    if plan.vram and plan.device.memory:
        enough = plan.vram.total <= plan.device.memory
        text = f"About {gigabytes(plan.vram.total)} of {gigabytes(plan.device.memory)} on {plan.device.name}."
        found.append(Fit(level="ok" if enough else "warning", text=text))
    elif plan.device.kind == "cpu" and not base.tiny:
        found.append(
            Fit(level="warning", text=f"{plan.device.name}: no GPU here, and a full-size model takes days on a CPU.")
        )
    for note in resolved.notes:
        if "has no effect" in note:
            found.append(Fit(level="warning", text=note))
    return found


def save_profile(workspace: Workspace, choices: Choices, name: str, label: str) -> Path:
    """Keep the settings of choices as a profile of the person's own: the profile's and theirs, without dataset or name.

    Raises Problems where the settings are wrong, PilotError for a bad name, Conflict where one of that name exists.
    """
    check_writable(workspace)
    if not _PROFILE_NAME.fullmatch(name) or name == "custom":
        raise PilotError("profile", name, "small letters, digits, - and _", "Choose such a name, for example my_faces.")
    path = workspace.profiles / f"{name}.toml"
    if path.exists() or name in profiles(workspace):
        raise Conflict("profile", f"{name} exists", "a new name", "Choose another name, or move the old one away.")
    outcome = look(workspace, choices)
    if outcome.problems:
        raise Problems(outcome.problems)
    dumped = outcome.config.model_dump()
    values = {
        where: _at(dumped, where)
        for where, source in outcome.sources.items()
        if not source.startswith(("default", "decided", "family ", "--base-model", "--name", "--dataset"))
        and not where.startswith("datasets.")
        and where not in ("profile", "run.name", "model.base")
    }
    tables = nest({where: list(v) if isinstance(v, tuple) else v for where, v in values.items() if v is not None})
    document = {"profile": {"label": label or name, "help": "Saved from the Train page."}, **tables}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_beside(path, tomli_w.dumps(document).encode())
    read_toml(path)
    return path


def here() -> str:
    """The name of the device that plans are for."""
    return device_now().name


def environment_settings() -> list[str]:
    """Names of PILOT_SECTION__KEY variables that lie above every profile here; the page says so."""
    return sorted(name for name in os.environ if name.startswith("PILOT_") and "__" in name)
