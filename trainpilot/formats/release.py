"""What of a run is shown to others: the file, its base and licences, the settings without places, the last samples.

Used by packaging, the model card and publishing. No torch. Nothing of a dataset is in it, neither pictures nor
captions, and no path of this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from trainpilot.errors import PilotError
from trainpilot.families.card import Card, card
from trainpilot.formats.identify import Identified, identify
from trainpilot.models.catalogue import catalogue
from trainpilot.models.detect import detect
from trainpilot.runs.atomic import read_json
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.secrets import redact
from trainpilot.workspace import Workspace

MOST_SAMPLES = 8
_SAMPLE = re.compile(r"step-(\d+)_p(\d+)\.png")
_CACHED = re.compile(r"models--([^/]+?)--([^/]+)")
# A person's own, or of no meaning to others.
_NOT_SHOWN = ("notifications", "logging", "cache", "schema_version", "schema")


@dataclass(frozen=True)
class Licence:
    """name: as people write it; id: of the Hub's list, "other" where it has none; link: where it is written."""

    name: str
    id: str
    link: str = ""

    @property
    def non_commercial(self) -> bool:
        return "non-commercial" in self.name.lower() or "noncommercial" in self.name.lower() or "-nc" in self.id


KNOWN = {
    licence.name: licence
    for licence in (
        Licence("Apache-2.0", "apache-2.0"),
        Licence("CreativeML OpenRAIL-M", "creativeml-openrail-m"),
        Licence("CreativeML OpenRAIL++-M", "openrail++"),
        Licence(
            "FLUX.1 [dev] Non-Commercial License",
            "other",
            "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        ),
    )
}
_IDS = (
    *("mit", "apache-2.0", "openrail", "openrail++", "creativeml-openrail-m", "cc0-1.0", "bsd-3-clause", "gpl-3.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "unlicense", "other"),
)


@dataclass(frozen=True)
class Sample:
    """A picture with what it was made from."""

    path: Path
    prompt: str
    seed: str


@dataclass(frozen=True)
class Release:
    """One LoRA as others get it. others: further files of the same weights (diffusers' naming). base_name: as the file
    says; base_repo: owner/name on the Hub where it is known; settings: the run's, without places; made: versions, seed
    and data hash of the reproducibility record; warnings: what a person should read before sharing."""

    name: str
    file: Path
    about: Identified
    card: Card
    trigger: str
    base_name: str
    base_repo: str
    base_licence: Licence | None
    licence: Licence | None
    others: list[Path] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        return self.about.metadata.get("modelspec.title") or self.name

    @property
    def description(self) -> str:
        return self.about.metadata.get("modelspec.description", "")


def find(workspace: Workspace, given: str) -> tuple[Path, RunDir | None]:
    """A finished LoRA by run name, run folder or file, and its run where it has one."""
    path = Path(given).expanduser()
    if not path.is_file():
        path = workspace.locate(given if given.endswith(".safetensors") else f"{given}.safetensors", workspace.loras)
    if path.is_file():
        folder = path.resolve().parent
        own = (folder / "run.toml").is_file() and folder.parent == workspace.outputs.resolve()
        return path.resolve(), RunDir.open(folder, workspace) if own else None
    run = RunDir.find(workspace, given)
    if not run.result.is_file():
        status = run.job.status if run.job else "not started"
        raise PilotError(run.path, f"no {run.result.name} yet ({status})", "a finished run", "Let it finish first.")
    return run.result, run


def gather(
    workspace: Workspace, given: str, *, base_repo: str = "", licence: str = "", trigger: str = "", samples: bool = True
) -> Release:
    """Everything about one LoRA. given: a run, its folder, or a file. Raises PilotError where there is none."""
    file, run = find(workspace, given)
    about = identify(file)
    said = about.metadata
    base = Path(run.config.model.base) if run else None
    own_card = card(about.family).variant(_variant(about, base))
    repo, base_licence = _base(workspace, about, own_card, base, base_repo)
    name = file.name.removesuffix(".safetensors").removesuffix(".diffusers")
    chosen = licence_of(licence or said.get("modelspec.license", "")) or base_licence
    beside = file.with_name(f"{name}.diffusers.safetensors")
    triggers = [d.captions.trigger for d in run.config.datasets if d.captions.trigger] if run else []
    return Release(
        name=name,
        file=file,
        about=about,
        card=own_card,
        trigger=trigger or about.trigger or ", ".join(dict.fromkeys(triggers)),
        base_name=base.name if base else said.get("ss_sd_model_name", "") or "",
        base_repo=repo,
        base_licence=base_licence,
        licence=chosen,
        others=[beside] if run and beside.is_file() and beside != file else [],
        samples=_samples(run) if run and samples else [],
        settings=shown(run.config.model_dump(mode="json")) if run else {},
        made=_made(run) if run else {},
        warnings=_warnings(base_licence, chosen, repo, about) + _of_the_samples(run, samples),
    )


def licence_of(given: str) -> Licence | None:
    """A licence by its name or the Hub's id; an unknown one is "other" with that name."""
    given = given.strip()
    if not given:
        return None
    if given in KNOWN:
        return KNOWN[given]
    by_id = next((one for one in KNOWN.values() if one.id == given.lower() != "other"), None)
    return by_id or Licence(given, given.lower() if given.lower() in _IDS else "other")


def _variant(about: Identified, base: Path | None) -> str | None:
    if base is not None and base.exists():
        try:
            return detect(base).variant
        except PilotError:
            return None  # a base that was damaged since; the file's own words are enough for a card
    said = about.metadata.get("modelspec.architecture", "")
    own = card(about.family)
    return next((name for name in own.variants if own.variant(name).modelspec_architecture == said), None)


def _base(
    workspace: Workspace, about: Identified, own: Card, base: Path | None, given: str
) -> tuple[str, Licence | None]:
    """(repository, licence) of the base, as far as they are known for certain."""
    repo, licence = given, ""
    if base is not None and not repo:
        cached = _CACHED.search(base.as_posix())
        repo = f"{cached[1]}/{cached[2]}" if cached else ""
    items, _ = catalogue(workspace)
    for item in items:
        here = base is not None and item.repo and os.path.realpath(item.place(workspace)) == os.path.realpath(base)
        if (repo and item.repo == repo) or (not repo and here):
            repo, licence = item.repo, item.licence
            break
    known = {entry["repo"]: entry["licence"] for entry in own.bases}
    licence = licence or known.get(repo, "")
    if not licence and about.family == "flux":
        # Whoever derived it: the licence of the dev and the schnell weights goes with what was made of them.
        said = {entry.get("variant"): entry["licence"] for entry in own.bases}
        said_schnell = (
            "schnell" in about.metadata.get("modelspec.architecture", "") or _variant(about, base) == "schnell"
        )
        licence = said["schnell" if said_schnell else "dev"]
    return repo, licence_of(licence)


def _warnings(base: Licence | None, own: Licence | None, repo: str, about: Identified) -> list[str]:
    found = []
    if base is not None and base.non_commercial:
        found.append(
            f"The base is under the {base.name}: a LoRA made of it may not be offered or used commercially, and the "
            "licence has to be passed on with it."
        )
        if own is not None and not own.non_commercial:
            found.append(f"{own.name} allows more than the base's licence does; it cannot be given for this file.")
    if base is None:
        found.append("The base model's licence is not known here: look at its page, and name it with --base-repo.")
    if not repo:
        found.append("The base model's repository is not known: the card cannot link to it (--base-repo owner/name).")
    if about.metadata.get("ss_tag_frequency", "{}") not in ("{}", "None"):
        found.append("The file's metadata lists the tags of your captions; --without-tags leaves them out.")
    return found


def _of_the_samples(run: RunDir | None, wanted: bool) -> list[str]:
    if run is None or not wanted or run.config.sampling.prompts or run.config.sampling.prompts_file:
        return []
    return ["The samples' prompts are captions of your dataset; --no-samples leaves them out."] * bool(_samples(run))


def shown(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as others may see it: paths are names, secrets are blotted out, what is nobody's is left out."""
    return {
        key: _shown(value) for key, value in config.items() if key not in _NOT_SHOWN and value not in (None, {}, [])
    }


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shown(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_shown(inner) for inner in value if inner is not None]
    if isinstance(value, str):
        path = PurePath(value)
        return redact(path.name if path.is_absolute() or value.startswith("~") else value)
    return value


def _made(run: RunDir) -> dict[str, Any]:
    """What of the reproducibility record tells others something."""
    record = read_json(run.workspace.logs / f"{run.name}_repro.json") or {}
    wanted = ("seed", "dataset_hash", "images", "trainpilot", "git_hash", "versions", "gpus")
    found = {key: record[key] for key in wanted if record.get(key) not in (None, [], "")}
    gpus = [str(gpu.get("name")) for gpu in found.get("gpus", []) if isinstance(gpu, dict) and gpu.get("name")]
    return found | {"gpus": gpus} if gpus else {key: value for key, value in found.items() if key != "gpus"}


def _samples(run: RunDir) -> list[Sample]:
    """The pictures of the newest step that has any, in the prompts' order."""
    found: dict[int, list[tuple[int, Path]]] = {}
    for path in run.samples.glob("*.png") if run.samples.is_dir() else ():
        match = _SAMPLE.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), []).append((int(match[2]), path))
    newest = sorted(found.get(max(found), [])) if found else []
    return [sample for _, path in newest[:MOST_SAMPLES] if (sample := _sample(path)) is not None]


def _sample(path: Path) -> Sample | None:
    try:
        with Image.open(path) as image:
            text: dict[str, str] = getattr(image, "text", {})
            return Sample(path, str(text.get("prompt", "")), str(text.get("seed", "")))
    except (OSError, SyntaxError, ValueError):
        return None  # a picture that was cut is not shown
