"""The six steps of the wizard: which there are, what of them is done, their fields with value, source and problem.

Between the Train page and the views that do the work; knows nothing of HTTP. A form is a mapping of names to the
texts that were sent: a setting's field is named `set.` and its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from controlpilot.training_types import training_types
from controlpilot.views.drafts import Change, Draft
from controlpilot.views.fields import Field, current, dataset_fields, field_of, from_form, groups, to_form
from controlpilot.views.plan import Outcome
from controlpilot.views.refusals import Problem
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import cards
from trainpilot.families.samplers import samplers_of

STEPS = (
    ("type", "Type"),
    ("dataset", "Dataset"),
    ("profile", "Profile"),
    ("model", "Base model"),
    ("review", "Review"),
    ("start", "Start"),
)
PREFIX = "set."
# What the fourth step shows of the settings that the base model decides.
AUTOMATIC = (
    "model.family",
    "model.prediction",
    "model.vae",
    "buckets.resolution",
    "buckets.step",
    "noise.timesteps",
    "sampling.sampler",
    "sampling.guidance",
    "precision.mixed",
    "precision.base",
    "memory.gradient_checkpointing",
    "text_encoder.train",
    "network.targets",
)
# Which step mends a problem of which setting.
_PLACES = (("datasets", 2), ("model", 4), ("run.name", 5))
_LETTERS = frozenset({"vae", "snr", "ema", "t5", "clip", "ip", "gb", "lr"})
_YOURS = ("--set", "--dataset", "--base-model", "--name")


class FieldView(BaseModel):
    """One field as the form shows it. text: what the person set, "" where nothing; value: what holds without it."""

    field: Field
    path: str
    label: str
    text: str = ""
    value: str = ""
    source: str = ""
    problem: str = ""
    suggestions: list[str] = []

    @property
    def name(self) -> str:
        """Of the input."""
        return PREFIX + self.path

    @property
    def id(self) -> str:
        """Of the element: a path without dots."""
        return "f-" + self.path.replace(".", "-")


class GroupView(BaseModel):
    """One section of the form. changed: fields that the person set; wrong: fields with a problem."""

    name: str
    label: str
    fields: list[FieldView]
    changed: int = 0
    wrong: int = 0


def label(name: str) -> str:
    """`min_snr_gamma` as words."""
    words = [word.upper() if word in _LETTERS else word for word in name.rpartition(".")[2].split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def source_words(source: str) -> str:
    """Where a value came from, for people."""
    if source in _YOURS:
        return "you"
    if source.startswith("type "):
        kind = training_types().get(source.removeprefix("type "))
        return f"type {kind.label}" if kind else source
    return {"decided": "decided here", "default": "default"}.get(source, source)


def problem_words(problem: Problem) -> str:
    """A problem as one line at its field: the source is plain there."""
    given = problem.given
    for source in _YOURS:
        given = given.replace(f" (from {source})", "")
    remedy = "" if problem.remedy == "Choose an allowed value." else f" {problem.remedy}"
    return f"{given}. Allowed: {problem.allowed}.{remedy}"


def step_of(where: str) -> int:
    """The step in which a problem can be mended."""
    return next((step for prefix, step in _PLACES if where == prefix or where.startswith(f"{prefix}.")), 3)


def place_of(where: str) -> str:
    """The path of the field that a problem belongs to, "" where it is nobody's."""
    return where if field_of(where) is not None else ""


def form(draft: Draft, outcome: Outcome) -> list[GroupView]:
    """Every section with its fields; each dataset is a section of its own."""
    views = [
        _group(group.name, group.label, [(one.path, one) for one in group.fields], draft, outcome) for group in groups()
    ]
    datasets = [
        _group(f"datasets.{n}", f"Dataset {Path(path).name}", [(f"datasets.{n}.{one.path}", one)
               for one in dataset_fields()], draft, outcome)
        for n, path in enumerate(draft.datasets)
    ]  # fmt: skip
    return [*views[:2], *datasets, *views[2:]]


def some(draft: Draft, outcome: Outcome, paths: Sequence[str]) -> list[FieldView]:
    """Chosen fields, for a step that shows a few; their section is part of the label."""
    pairs = [(path, field) for path in paths if (field := field_of(path)) is not None]
    fields = _group("", "", pairs, draft, outcome).fields
    for one in fields:
        section = one.field.section.rpartition(".")[2]
        if section and section != "captions":
            one.label = f"{label(section)}: {one.label[:1].lower()}{one.label[1:]}"
    return fields


def _suggestions(path: str, outcome: Outcome) -> list[str]:
    """Words that a text setting is likely to be, known from the model families."""
    family = outcome.config.model.family
    known = cards().get(family)
    if path == "model.family":
        return ["auto", *cards()]
    if path == "network.targets" and known:
        return list(known.targets)
    if path == "sampling.sampler" and known:
        return ["auto", *samplers_of(family)]
    return []


def _group(name: str, title: str, pairs: Sequence[tuple[str, Field]], draft: Draft, outcome: Outcome) -> GroupView:
    dumped = outcome.config.model_dump()
    wrong = {problem.where: problem_words(problem) for problem in outcome.live.problems}
    fields = []
    for path, field in pairs:
        text = draft.settings.get(path, "")
        value = current(dumped, path) or field.default
        fields.append(
            FieldView(
                field=field,
                path=path,
                label=label(field.name),
                text=to_form(field, text),
                value=value,
                source=source_words(outcome.sources.get(path, "default")),
                problem=wrong.get(path, ""),
                suggestions=_suggestions(path, outcome),
            )
        )
    changed = sum(bool(one.text) for one in fields)
    return GroupView(name=name, label=title, fields=fields, changed=changed, wrong=sum(bool(f.problem) for f in fields))


def values_of(draft: Draft, outcome: Outcome) -> dict[str, list[str]]:
    """Path -> [value, source] of everything, so that an open form can follow a change elsewhere."""
    dumped = outcome.config.model_dump()
    paths = [one.path for group in groups() for one in group.fields]
    paths += [f"datasets.{n}.{one.path}" for n in range(len(outcome.config.datasets)) for one in dataset_fields()]
    return {path: [current(dumped, path), source_words(outcome.sources.get(path, "default"))] for path in paths}


def done(draft: Draft, outcome: Outcome) -> list[str]:
    """Names of the steps that hold what they should."""
    wrong = {step_of(problem.where) for problem in outcome.live.problems}
    holds = {
        "type": bool(draft.kind),
        "dataset": bool(draft.datasets) and 2 not in wrong,
        "profile": bool(draft.profile) and 3 not in wrong and (draft.step > 3 or bool(draft.origin)),
        "model": bool(draft.base) and 4 not in wrong,
        "review": outcome.live.state == "ready" and draft.step > 5,
    }
    return [name for name, holding in holds.items() if holding]


def change_of(sent: Mapping[str, Sequence[str]]) -> Change:
    """A form as a change of the draft: only what was sent changes. Raises Problems for what cannot be kept."""

    def one(name: str) -> str | None:
        return sent[name][0].strip() if sent.get(name) else None

    given: dict[str, object] = {}
    for name in ("kind", "profile", "base", "name"):
        if (text := one(name)) is not None:
            given[name] = text
    if "datasets_shown" in sent:
        given["datasets"] = [path for path in sent.get("datasets", ()) if path]
    if (price := one("price_per_hour")) is not None:
        given["price_per_hour"] = price.replace(",", ".") or None
    settings: dict[str, str | None] = {}
    for name, texts in sent.items():
        if name.startswith(PREFIX):
            path = name.removeprefix(PREFIX)
            settings[path] = from_form(field_of(path), texts[0])
    if settings:
        given["settings"] = settings
    try:
        return Change.model_validate(given)
    except ValidationError as error:
        raise Problems(
            PilotError(".".join(map(str, item["loc"])), str(item["input"])[:100], item["msg"], "Correct it.")
            for item in error.errors()
        ) from None


def changed_settings(outcome: Outcome) -> list[tuple[str, str, str]]:
    """(path, value, source) of every setting that is not the schema's default, for the review."""
    dumped = outcome.config.model_dump()
    return [
        (path, current(dumped, path), source_words(source))
        for path, source in sorted(outcome.sources.items())
        if source != "default"
    ]
