"""Automatic decisions of the merge: what "none" and "auto" become, each with a note that gives the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainpilot.config.describe import both
from trainpilot.config.layers import Layer
from trainpilot.config.schema import RunConfig
from trainpilot.errors import PilotError
from trainpilot.families.card import Card, cards
from trainpilot.formats.identify import family_of, identify, naming_of
from trainpilot.models.detect import Base
from trainpilot.models.safetensors_header import read_header
from trainpilot.workspace import Workspace

DECIDED = "decided"
DEFAULT_STEPS = 1500
_UNITS = ("training.steps", "training.epochs")


def one_budget(layers: list[Layer], notes: list[str], problems: list[PilotError]) -> None:
    """Steps or epochs, never both: the later source wins and the earlier unit is dropped, with a note."""
    place = {
        path: max((n for n, lay in enumerate(layers) if lay.values.get(path) is not None), default=-1)
        for path in _UNITS
    }
    if place["training.steps"] == place["training.epochs"] == -1:
        layers.insert(0, Layer("default", {"training.steps": DEFAULT_STEPS}))
        notes.append(f"training.steps = {DEFAULT_STEPS}: neither steps nor epochs were given")
        return
    if -1 in place.values():
        return
    if place["training.steps"] == place["training.epochs"]:
        layer = layers[place["training.steps"]]
        given = f"{layer.values['training.steps']}, beside training.epochs {layer.values['training.epochs']}"
        problems.append(
            PilotError("training.steps", f"{given} (from {layer.source})", "steps or epochs", "Remove one of the two.")
        )
        winner = place["training.steps"]
    else:
        winner = max(place.values())
    kept = next(path for path in _UNITS if place[path] == winner)
    dropped = next(path for path in _UNITS if path != kept)
    source = layers[place[dropped]].source
    value = layers[place[dropped]].values[dropped]
    for layer in layers:
        layer.values.pop(dropped, None)
    if place[kept] != place[dropped]:
        notes.append(f"{dropped} = {value} (from {source}) is dropped: {kept} from {layers[winner].source} came later")


_FIXED = ("profile ", "file ", "family ", "default")


def follow_rank(layers: list[Layer], values: dict[str, Any], sources: dict[str, str], notes: list[str]) -> None:
    """Keep alpha / rank where a later source changes the rank alone, so that the adapter's strength stays the same."""
    place = {
        path: max((n for n, lay in enumerate(layers) if path in lay.values), default=-1)
        for path in ("network.rank", "network.alpha")
    }
    if place["network.rank"] <= place["network.alpha"]:
        return
    if place["network.alpha"] >= 0 and not layers[place["network.alpha"]].source.startswith(_FIXED):
        return
    defaults = RunConfig.model_validate({}).network
    below = [layer.values.get("network.rank") for layer in layers[: place["network.alpha"] + 1]]
    old_rank = next((rank for rank in reversed(below) if rank is not None), defaults.rank)
    old_alpha = values.get("network.alpha", defaults.alpha)
    rank = values["network.rank"]
    numbers = (old_rank, old_alpha, rank)
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) or number <= 0 for number in numbers):
        return  # validation names the wrong one
    alpha = old_alpha / old_rank * rank
    if alpha == old_alpha:
        return
    values["network.alpha"] = alpha
    sources["network.alpha"] = DECIDED
    notes.append(f"network.alpha = {alpha:g}: keeps alpha / rank at {old_alpha:g} / {old_rank} with rank {rank}")


def fill(config: RunConfig, sources: dict[str, str], notes: list[str], card: Card, base: Base) -> None:
    """Give every None and auto that the family or the base model decides its value."""
    source = f"family {card.name}"
    config.model.base = str(base.path)
    if config.model.family == "auto":
        config.model.family = base.family
        sources["model.family"] = DECIDED
        notes.append(f"model.family = {base.family}: {base.reason}")
    if config.model.prediction == "auto" and base.prediction in ("epsilon", "v_prediction"):
        config.model.prediction = base.prediction  # type: ignore[assignment]
        sources["model.prediction"] = DECIDED
        notes.append(f"model.prediction = {base.prediction}: from the base model's files")
    if config.buckets.resolution is None:
        own = base.resolution if base.tiny or base.variant == "2" else None
        config.buckets.resolution = own or card.resolution
        sources["buckets.resolution"] = DECIDED if own else source
        notes.append(
            f"buckets.resolution = {own or card.resolution}: what {'the base model' if own else card.label} "
            "was trained at"
        )
    if config.buckets.step is None:
        own = base.step if base.tiny else None
        config.buckets.step = max(8, own) if own else card.step
        sources["buckets.step"] = DECIDED if own else source
    width, height = both(config.buckets.resolution)
    if config.buckets.min_side > min(width, height) and sources.get("buckets.min_side") == "default":
        config.buckets.min_side = max(16, min(width, height) // 2)
        sources["buckets.min_side"] = DECIDED
        notes.append(
            f"buckets.min_side = {config.buckets.min_side}: half the training size, which is below the default"
        )
    if config.noise.timesteps == "auto":
        config.noise.timesteps = "uniform"
        sources["noise.timesteps"] = DECIDED
        notes.append(f"noise.timesteps = uniform: {card.label} names no other")
    if config.sampling.sampler == "auto":
        config.sampling.sampler = card.sampler
        sources["sampling.sampler"] = source
    if config.sampling.guidance is None:
        config.sampling.guidance = card.guidance
        sources["sampling.guidance"] = source


def paths(
    config: RunConfig, sources: dict[str, str], workspace: Workspace, file: Path | None, problems: list[PilotError]
) -> None:
    """Make every path absolute, and report those that exist nowhere."""
    beside = [file.parent] if file else []
    root = workspace.root

    def locate(path: str, given: str, *places: Path, what: str) -> str:
        found = workspace.locate(given, *places)
        if not found.exists():
            where = f"{found} does not exist (from {sources.get(path, 'default')})"
            problems.append(PilotError(path, where, what, "Check the path."))
        return str(found.resolve())

    data = [workspace.datasets / "images", workspace.datasets, root / "lora_training" / "data"]
    for index, dataset in enumerate(config.datasets):
        name = f"datasets.{index}"
        if dataset.path:
            dataset.path = locate(f"{name}.path", dataset.path, *data, what=f"a folder, absolute or in {data[0]}")
        else:
            problems.append(PilotError(f"{name}.path", "nothing", "a folder of pictures", "Name it, or use --dataset."))
        if dataset.masks:
            inside = [Path(dataset.path), Path(dataset.path).parent] if dataset.path else []
            dataset.masks = locate(f"{name}.masks", dataset.masks, *inside, *data, what="a folder of masks")
    single: list[tuple[str, object, str, Callable[[], list[Path]], str]] = [
        ("model.vae", config.model, "vae", lambda: [workspace.models], "a folder or .safetensors file"),
        ("network.init_from", config.network, "init_from", lambda: [workspace.loras, *beside], "a LoRA file"),
        (
            "sampling.prompts_file",
            config.sampling,
            "prompts_file",
            lambda: [*beside, root / "config"],
            "a .txt, .toml or .json file",
        ),
    ]
    for path, section, key, places, what in single:
        given = getattr(section, key)
        if given:
            setattr(section, key, locate(path, given, *places(), what=what))
    if config.network.init_from and Path(config.network.init_from).is_file():
        _warm_start(config, Path(config.network.init_from), problems)


def _warm_start(config: RunConfig, path: Path, problems: list[PilotError]) -> None:
    """Refuse a LoRA to begin from that cannot fit, before anything is encoded for it; the engine looks closer."""
    network = config.network
    known = cards()
    try:
        header = read_header(path)
        naming = naming_of(path, list(header.tensors))
    except PilotError as problem:
        problems.append(PilotError("network.init_from", f"{path}: {problem.given}", problem.allowed, problem.remedy))
        return
    try:
        family = family_of(path, header, naming)
    except PilotError:
        return  # the file does not tell, as many do not; whether its modules fit is seen when it is loaded
    if config.model.family in known and family != config.model.family:
        problems.append(
            PilotError(
                "network.init_from",
                f"{path} is a LoRA for {known[family].label}",
                f"a LoRA for {known[config.model.family].label}, as model.base is",
                "Take another file, or the base model it was made for.",
            )
        )
        return
    found = identify(path)
    ranks = " and ".join(map(str, found.ranks))
    fits = found.kind != "lora" or network.block_ranks or network.rank in found.ranks
    if found.kind != network.type or not fits:
        problems.append(
            PilotError(
                "network.init_from",
                f"{path} is a {found.kind} of rank {ranks}",
                f"a {network.type} of rank {network.rank}",
                f"Set network.type={found.kind} and network.rank to that of the file, or take another file.",
            )
        )
