"""Rules between settings: contradictions that are refused, and settings without effect that are said. Used by merge.

`problems` stops a run before anything is spent; `notes` goes into the plan and the run folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainpilot.config import prompts
from trainpilot.config.describe import both, did_you_mean, settings
from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.errors import PilotError, Problems
from trainpilot.families.card import Card, select
from trainpilot.families.samplers import samplers_of
from trainpilot.models.detect import Base

Sources = Mapping[str, str]


def problems(
    config: RunConfig, sources: Sources, card: Card | None, base: Base | None, skip: Sequence[str] = ()
) -> list[PilotError]:
    """Every contradiction. skip: settings that already have a problem, whose default stands in for them."""
    found = [*_data(config), *_numbers(config), *_network(config, card, base), *_sampling(config, card)]
    found += _one_rate(config, card)
    return [problem for problem in found if problem.where not in skip]


def _data(config: RunConfig) -> Iterator[PilotError]:
    if not config.datasets:
        yield PilotError("datasets", "none", "at least one folder", "Name one with --dataset DIR.")
    elif all(dataset.regularization for dataset in config.datasets):
        yield PilotError(
            "datasets", "regularisation pictures only", "at least one dataset to learn", "Add the subject's dataset."
        )
    for index, dataset in enumerate(config.datasets):
        if dataset.captions.dropout_every_n_epochs == 1:
            yield PilotError(
                f"datasets.{index}.captions.dropout_every_n_epochs",
                "1, which empties every caption in every epoch",
                "0 (off) or at least 2",
                "Set it to 0, or use captions.dropout_rate.",
            )


def _numbers(config: RunConfig) -> Iterator[PilotError]:
    noise, buckets = config.noise, config.buckets
    if noise.min_timestep >= noise.max_timestep:
        yield PilotError(
            "noise.min_timestep",
            f"{noise.min_timestep}, with noise.max_timestep {noise.max_timestep}",
            f"below {noise.max_timestep}",
            "Lower the one or raise the other.",
        )
    if buckets.min_side > buckets.max_side:
        yield PilotError(
            "buckets.min_side",
            f"{buckets.min_side}, with buckets.max_side {buckets.max_side}",
            f"at most {buckets.max_side}",
            "Lower the one or raise the other.",
        )
    sizes = [("buckets.resolution", buckets.resolution)]
    sizes += [(f"datasets.{n}.resolution", dataset.resolution) for n, dataset in enumerate(config.datasets)]
    for path, size in sizes:
        least = buckets.step or 8
        if size is not None and min(both(size)) < least:
            yield PilotError(path, size, f"sides of at least buckets.step, {least} px", "Choose a larger size.")


def _network(config: RunConfig, card: Card | None, base: Base | None) -> Iterator[PilotError]:
    if card is None:
        return
    try:
        patterns = card.patterns(config.network.targets)
    except PilotError as error:
        remedy = did_you_mean(str(config.network.targets), card.targets, error.remedy)
        yield PilotError(error.where, error.given, error.allowed, remedy)
        return
    names = list(shapes(card, base).get("denoiser", {}))
    if not select(names, patterns):
        endings = sorted({name.rsplit(".", 1)[-1] for name in names})
        yield PilotError(
            "network.targets",
            f"{', '.join(patterns)} match no module of {card.label}",
            f"a preset ({', '.join(card.targets)}) or endings such as {', '.join(endings[:12])}",
            "Correct the names.",
        )
    if config.text_encoder.train and not any(encoder.get("trainable") for encoder in card.text_encoders):
        yield PilotError(
            "text_encoder.train", "true", "false", f"{card.label} has no text encoder that can be trained."
        )


def _one_rate(config: RunConfig, card: Card | None) -> Iterator[PilotError]:
    """Prodigy multiplies the one rate it finds; it takes no second one, except 0, which freezes."""
    optimizer, text = config.optimizer, config.text_encoder
    if optimizer.name != "prodigy":
        return
    if optimizer.lora_plus_ratio != 1:
        yield PilotError(
            "optimizer.lora_plus_ratio", f"{optimizer.lora_plus_ratio:g}, with prodigy", "1", "Take another optimizer."
        )
    trained = sum(bool(encoder.get("trainable")) for encoder in card.text_encoders) if card and text.train else 0
    given = {"text_encoder.learning_rate": text.learning_rate, "text_encoder.learning_rate_2": text.learning_rate_2}
    for path, rate in list(given.items())[:trained]:
        if rate not in (None, 0, optimizer.learning_rate):
            yield PilotError(
                path,
                f"{rate:g}, with prodigy and optimizer.learning_rate {optimizer.learning_rate:g}",
                f"{optimizer.learning_rate:g}, or 0",
                "Leave it empty, or take another optimizer: Prodigy finds one rate for all.",
            )


def _sampling(config: RunConfig, card: Card | None) -> Iterator[PilotError]:
    try:
        places = {config.sampling.sampler: "sampling.sampler"}
        for prompt in prompts.of_run(config):
            places.setdefault(prompt.sampler, "sampling.prompts")
        known = samplers_of(card.name) if card else []
        for name, path in places.items():
            if card and name not in (*known, "auto"):
                remedy = did_you_mean(name, known, f"Choose one that samples {card.label}.")
                yield PilotError(path, name, f"auto, {', '.join(known)}", remedy)
    except Problems as several:
        yield from several.problems
    except PilotError as error:
        yield error


def shapes(card: Card, base: Base | None) -> dict[str, dict[str, list[int]]]:
    """Module shapes of the very base where its files use diffusers' names, else of the family's full-size model."""
    if base is not None and base.shapes:
        return base.shapes
    return card.shapes(base.variant if base else None)


def notes(config: RunConfig, sources: Sources, card: Card | None, base: Base | None) -> list[str]:
    """Settings that have no effect here, or that are allowed but probably not meant."""
    found = [f"{path} has no effect: {reason}" for path, reason in _without_effect(config, card)]
    found += [text for path, text in _idle(config) if sources.get(path, "default") != "default"]
    return [*found, *_unusual(config)]


def _without_effect(config: RunConfig, card: Card | None) -> Iterator[tuple[str, str]]:
    if card is None:
        return
    for path, reason in card.no_effect.items():
        if path.startswith("datasets."):
            inner = path.removeprefix("datasets.")
            usual = settings(Dataset)[inner].get_default(call_default_factory=True)
            if any(_get(dataset, inner) != usual for dataset in config.datasets):
                yield path, reason
        elif path in settings() and _get(config, path) != settings()[path].get_default(call_default_factory=True):
            yield path, reason


def _get(section: Any, path: str) -> Any:
    for key in path.split("."):
        section = getattr(section, key)
    return section


def _idle(config: RunConfig) -> Iterator[tuple[str, str]]:
    """(setting, note) where another setting keeps one from doing anything; said only where somebody set it."""
    schedule, loss, network, text, noise = (
        config.schedule,
        config.loss,
        config.network,
        config.text_encoder,
        config.noise,
    )
    optimizer = config.optimizer.name
    cases = [
        ("optimizer.beta2", optimizer == "adafactor", "Adafactor's second moment follows a course of its own"),
        ("optimizer.eps", optimizer in ("lion", "lion8bit"), f"{optimizer} has no denominator"),
        ("optimizer.eps", optimizer == "adafactor", "Adafactor has two of its own; set optimizer.args eps"),
        (
            "noise.sigmoid_scale",
            noise.timesteps in ("uniform", "logit_normal"),
            f"noise.timesteps is {noise.timesteps}",
        ),
        ("schedule.cycles", schedule.name != "cosine_with_restarts", "schedule.name is not cosine_with_restarts"),
        ("schedule.power", schedule.name != "polynomial", "schedule.name is not polynomial"),
        ("schedule.warmup_steps", schedule.name == "constant", "use constant_with_warmup"),
        ("loss.huber_c", loss.type == "l2", "loss.type is l2"),
        ("loss.huber_schedule", loss.type == "l2", "loss.type is l2"),
        ("loss.scale_v_like_noise", config.model.prediction == "epsilon", "the base predicts noise"),
        ("loss.v_like_weight", config.model.prediction == "v_prediction", "the base predicts v"),
        ("network.conv_alpha", network.conv_rank == 0, "network.conv_rank is 0"),
        ("network.rslora", network.type in ("loha", "lokr"), f"{network.type} has no rank scaling"),
        ("text_encoder.learning_rate", not text.train, "text_encoder.train is false"),
        ("text_encoder.learning_rate_2", not text.train, "text_encoder.train is false"),
        ("text_encoder.stop_step", not text.train, "text_encoder.train is false"),
        ("noise.multires_discount", noise.multires_iterations == 0, "noise.multires_iterations is 0"),
        ("noise.shift", noise.timesteps != "shift", f"noise.timesteps is {noise.timesteps}"),
        ("noise.logit_mean", noise.timesteps != "logit_normal", f"noise.timesteps is {noise.timesteps}"),
        ("noise.logit_std", noise.timesteps != "logit_normal", f"noise.timesteps is {noise.timesteps}"),
        (
            "loss.prior_weight",
            not any(dataset.regularization for dataset in config.datasets),
            "there are no regularisation pictures",
        ),
    ]
    defaults = RunConfig.model_validate({})
    for path, idle, why in cases:
        if idle and _get(config, path) != _get(defaults, path):
            yield path, f"{path} = {_get(config, path)} has no effect: {why}"


def _unusual(config: RunConfig) -> Iterator[str]:
    optimizer, loss, steps = config.optimizer, config.loss, config.training.steps
    if loss.debiased and loss.min_snr_gamma:
        yield "loss.debiased and loss.min_snr_gamma are both on: their weights multiply; one of them is usual"
    if optimizer.name == "prodigy" and optimizer.learning_rate < 0.1:
        yield f"optimizer.learning_rate = {optimizer.learning_rate:g}: Prodigy finds its own rate and wants 1"
    if optimizer.name == "adamw_schedulefree" and not config.schedule.name.startswith("constant"):
        yield f"schedule.name = {config.schedule.name}: Schedule-Free replaces a schedule; constant is usual"
    if steps is not None and config.schedule.warmup_steps >= max(steps, 1) and config.schedule.name != "constant":
        yield f"schedule.warmup_steps = {config.schedule.warmup_steps:g} is not over after {steps} steps"
    if config.noise.zero_terminal_snr and config.model.prediction == "epsilon":
        yield "noise.zero_terminal_snr with a base that predicts noise: at the last step there is nothing to learn from"
    if config.model.family == "flux" and (config.sampling.guidance or 0) > 1.5:
        yield (
            f"sampling.guidance = {config.sampling.guidance:g} on FLUX doubles a sample's cost and over-saturates; "
            "FLUX.1-dev is guided by --g (about 3.5), with sampling.guidance 1"
        )
    if config.memory.attention == "xformers":
        yield "memory.attention = xformers is probed before use; where it fails, torch's own attention takes its place"
