"""Every setting does something, in every family, or the family's card says that it does not, and then it does nothing.

One test for each setting and family: two runs that differ in that setting alone, and the side of them that has to
differ (settings_effects.py). Settings of a run's course (saving, logging ...) do not depend on the family and are tried
with one.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import variants
from listening import listening
from miniatures import FAMILIES, tiny
from safetensors.torch import load_file, save_file
from settings_effects import EFFECTS, Effect
from tiny_runs import attempt
from variants import Variant, same, workspace

from trainpilot.config.document import read_toml
from trainpilot.config.fields import Section
from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import card
from trainpilot.models.detect import detect
from trainpilot.runs.jobdir import JobDir, jobdirs
from trainpilot.runs.rundir import RunDir

# What a plan says about the settings themselves, rather than about what they do.
_WORDS = ("command", "reasons", "warnings")
# Whole runs are short, and the same for all families.
_SHORT = ("training.steps=3",)


def fields(section: type[Section], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all leaves; those of a list's tables without an index."""
    for name, info in section.model_fields.items():
        path = prefix + (info.alias or name)
        inner = [kind for kind in (info.annotation, *get_args(info.annotation)) if isinstance(kind, type)]
        tables = [kind for kind in inner if issubclass(kind, Section)]
        if tables:
            yield from fields(tables[0], path + ".")
        else:
            yield path


ALL = [path for path in fields(RunConfig) if path != "schema"]
CASES = [
    (family, path)
    for family in FAMILIES
    for path in ALL
    if family == "sd15" or path not in EFFECTS or not EFFECTS[path].alters.startswith("run.")
]


def test_every_setting_has_an_entry_and_every_entry_a_setting() -> None:
    assert sorted(EFFECTS) == sorted(ALL)


def test_cards_name_settings_that_exist() -> None:
    for family in FAMILIES:
        about = card(family)
        for variant in (about, *(about.variant(name) for name in about.variants)):
            assert set(variant.no_effect) <= set(ALL)


def test_a_schema_of_another_number_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("schema = 1\n")
    read_toml(file)
    file.write_text("schema = 2\n")
    with pytest.raises(PilotError):
        read_toml(file)


def change(family: str, path: str, effect: Effect) -> str:
    """The changed setting, as --set takes it."""
    value = dict(effect.by_family).get(family, effect.to)
    known = {
        "{other_base}": lambda: str(variants.other_base(family)),
        "{another_family}": lambda: next(name for name in FAMILIES if name != family),
        "{masks}": lambda: str(workspace().datasets / "images" / "masks"),
        "{lora_file}": lambda: str(variants.lora_file(family)),
        "{prompts_file}": lambda: str(workspace().root / "prompts.txt"),
    }
    for name, made in known.items():
        if name in value:
            value = value.replace(name, made())
    if effect.number is not None:
        path = path.replace("datasets.", f"datasets.{effect.number}.")
    return f"{path}={value}"


def both(family: str, path: str) -> tuple[Variant, Variant]:
    """The two configurations that differ in `path` alone."""
    effect = EFFECTS[path]
    if path == "profile":
        return Variant(family, profile="standard"), Variant(family, profile=effect.to)
    along = (*_SHORT, *effect.along) if effect.alters.startswith("run.") else effect.along
    return Variant(family, along, effect.data), Variant(family, (*along, change(family, path, effect)), effect.data)


@pytest.mark.parametrize(("family", "path"), CASES)
def test_a_setting_does_what_it_says(family: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if path in card(family).no_effect:
        has_no_effect(path, *both(family, path))
        return
    one, other = both(family, path)
    alters = EFFECTS[path].alters
    if alters == "run.wandb":
        stand_in_for_wandb(tmp_path, monkeypatch)
    before = once(one.family, one.settings, one.data, one.profile, alters)
    assert not same(before, observed(other, alters)), f"{path} does not alter {alters}"


def test_schnell_has_no_embedded_guidance(tmp_path: Path) -> None:
    base = without_guidance(tmp_path / "schnell")
    assert detect(base).variant == "schnell"
    assert "noise.guidance" in card("flux").variant("schnell").no_effect
    along = (f"model.base={base}",)
    has_no_effect("noise.guidance", Variant("flux", along), Variant("flux", (*along, "noise.guidance=3.5")))


def without_guidance(folder: Path) -> Path:
    """The tiny FLUX as schnell: guidance is not embedded."""
    shutil.copytree(tiny("flux"), folder)
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_embeds": False}))
    [weights] = (folder / "transformer").glob("*.safetensors")
    tensors = {name: tensor for name, tensor in load_file(weights).items() if "guidance_embedder" not in name}
    save_file(tensors, weights, metadata={"format": "pt"})
    return folder


def has_no_effect(path: str, one: Variant, other: Variant) -> None:
    """The plan's figures, loss, gradient and updated weights are bit for bit the same, and the run says why."""
    figures = [{key: value for key, value in v.plan.items() if key not in _WORDS} for v in (one, other)]
    assert same(*figures), path
    assert same(one.loss(), other.loss()), path
    assert same(one.gradient(), other.gradient()), path
    assert same(one.weights(), other.weights()), path
    assert any(path in note and "no effect" in note for note in other.resolved.notes), other.resolved.notes


@lru_cache(maxsize=64)
def once(family: str, settings: tuple[str, ...], data: tuple[str, ...], profile: str, what: str) -> Any:
    """`observed` of a side that many settings are compared with."""
    return observed(Variant(family, settings, data, profile), what)


def observed(variant: Variant, what: str) -> Any:
    """The named side of a variant: see settings_effects."""
    kind, _, part = what.partition(".")
    if kind == "plan":
        return variant.plan[part]
    if kind == "metadata":
        return variant.metadata.get(part)
    if kind == "table":
        return [(s.bucket, s.resized, s.crop, s.told_crop) for s in variant.table.samples]
    if kind in ("batch", "inputs"):
        return [getattr(batch, part) for batch in (variant.batches if kind == "batch" else variant.inputs)]
    if kind == "refused":
        return refusal(variant)
    if kind == "state":
        return deterministic(variant)
    if kind == "file":
        return variant.result[0]
    if kind == "run":
        return whole_run(variant.settings)[part]
    return getattr(variant, what)()


def refusal(variant: Variant) -> str | None:
    """What the run is refused over, before anything is spent."""
    try:
        variant.table  # noqa: B018 - the scan is what is tried
    except (PilotError, Problems) as error:
        return type(error).__name__
    return None


def deterministic(variant: Variant) -> bool:
    """Whether torch was asked for deterministic kernels by preparing this variant."""
    variants._prepared.cache_clear()
    try:
        variant.prepared  # noqa: B018 - preparing is what is tried
        return torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


@lru_cache(maxsize=32)
def whole_run(settings: tuple[str, ...]) -> dict[str, Any]:
    """A run from its folder to its end, and what is there then."""
    # The blocks are switched to their compiled form, but no compiler is waited for: that is test_quantize's matter.
    compiling = torch._dynamo.config.patch(disable=True)
    with compiling, listening() as (url, received), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZORP_HOOK", url)
        run = RunDir.create(workspace(), Variant("sd15", settings).resolved)
        assert attempt(run).status == "done"
    events = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    places = {"samples": run.samples, "checkpoints": run.checkpoints, "report": run.report, "logs": run.logs}
    return {name: sorted(path.name for path in folder.glob("*")) for name, folder in places.items()} | {
        "told": len(received),
        "notices": [event["text"] for event in events if event["kind"] == "notice" and "compile" in event["text"]],
        "steps": [event["step"] for event in events if event["kind"] == "step"],
        "wandb": list(getattr(sys.modules.get("wandb"), "told", [])),
        "files": [path.name.removeprefix(run.name) for path in sorted(run.path.glob("*.safetensors"))],
        "jobs": [p.repo for p in (JobDir.open(d).params for d in jobdirs(run.workspace)) if p.lora == run.name],
        "links": [path.name for path in run.workspace.root.glob("shown/*") if path.exists()],
    }


def stand_in_for_wandb(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """A package of that name which keeps what it is told: the real one is optional and wants a server."""
    (folder / "wandb.py").write_text(
        "told = []\n"
        "class Image:\n"
        "    def __init__(self, image, caption): pass\n"
        "class _Run:\n"
        "    def log(self, values, step): told.append((step, sorted(values)))\n"
        "    def finish(self): told.append('finish')\n"
        "def init(project, **rest):\n"
        "    told.append(project)\n"
        "    return _Run()\n"
    )
    patch.syspath_prepend(str(folder))
    patch.delitem(sys.modules, "wandb", raising=False)
