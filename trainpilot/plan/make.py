"""Make the plan of a run from its configuration, its table of pictures, the family's card and the base model."""

from __future__ import annotations

import os
from collections.abc import Mapping

from trainpilot.config import prompts
from trainpilot.config.describe import both
from trainpilot.config.merge import Resolved
from trainpilot.config.rules import shapes as module_shapes
from trainpilot.config.schema import RunConfig
from trainpilot.datasets import captions as caption_rules
from trainpilot.datasets.table import Table
from trainpilot.families.card import Card
from trainpilot.formats.names import refuse_unmergeable
from trainpilot.models.detect import Base
from trainpilot.plan import caching, memory, network, steps, timing, warn
from trainpilot.plan.command import command
from trainpilot.plan.plan import Plan
from trainpilot.plan.tokens import caption_lengths

# A PNG of noise-like detail: 1.5 bytes a pixel.
SAMPLE_BYTES_A_PIXEL = 1.5
_STOP_GRACE = 10.0


def make(
    resolved: Resolved,
    table: Table,
    card: Card,
    base: Base,
    *,
    price_per_hour: float | None = None,
    device: timing.Device | None = None,
    processes: int = 1,
    environment: Mapping[str, str] | None = None,
) -> Plan:
    """The plan. device: where it will run (default: what is here); processes: that share the batches of a step."""
    surroundings = os.environ if environment is None else environment
    config = resolved.config
    card = card.variant(base.variant)
    device = device or timing.device_here(surroundings)
    reasons = list(resolved.notes)
    mixed = _mixed(config, device, reasons)

    batches = table.batches_per_epoch(config.training.batch_size)
    length = steps.length(config.training, batches, processes)
    saves = steps.checkpoints(config.saving, length)
    reasons += _why_steps(config, table, length, batches, processes)

    shapes = module_shapes(card, base)
    modules = network.adapted(config, card, shapes)
    kinds = {component: {m.name for m in modules if m.component == component} for component in card.components}
    refuse_unmergeable(card.name, {component: (found, config.network.type) for component, found in kinds.items()})
    parameters = card.parameters(base.variant) | (base.parameters if base.layout == "folder" else {})
    trained = sum(module.parameters for module in modules)
    file_bytes = trained * memory.NUMBER_BYTES[config.precision.save]
    checkpoint = _checkpoint_bytes(config, modules, file_bytes)

    wanted = prompts.of_run(config, [sample.caption for sample in table.samples], card.embedded_guidance)
    sampled = _sampling_events(config, length)
    cache = caching.cache_size(
        config,
        table,
        card,
        factor=base.latent_factor or card.latent_factor,
        channels=base.latent_channels or card.latent_channels,
        number_bytes=memory.NUMBER_BYTES[mixed],
        widths=base.text_widths,
    )
    texts = [caption_rules.fixed(s.caption, config.datasets[s.dataset].captions) for s in table.samples]
    lengths, unknown = caption_lengths(config, card, base, texts)
    reasons += unknown

    full, full_shapes = card.parameters(base.variant)["denoiser"], card.shapes(base.variant)["denoiser"]
    figures = timing.figures(card.name, base, full, len(full_shapes), card.latent_factor)
    vram = seconds = each = None
    if figures is None:
        reasons.append(f"no estimate of time and memory: {card.label} has no speed.toml")
    else:
        vram = memory.estimate(
            config,
            modules,
            parameters,
            mixed=mixed,
            activations=_activations(config, table, figures),
            resident=_resident(config, card),
            on_gpu=device.kind == "cuda",
        )
        each = _step_seconds(config, table, figures, device, length, batches)
        seconds = each * length.steps + sampled * sum(
            timing.sample_seconds(p.width, p.height, p.steps, 2 if card.supports.get("cfg") else 1, figures, device)
            for p in wanted
        )
        reasons.append(
            f"time is an estimate for {device.name} at {device.tflops:.3g} TFLOP/s ({device.source}), from counted "
            "operations; caching, saving and evaluation come on top"
        )
        if base.tiny:
            reasons.append("of a miniature: scaled from the full-size model, and off by up to five times either way")
        if device.kind == "cuda":
            reasons.append("device memory is an estimate from module shapes and counted activations")
    grace = float(surroundings.get("PILOT_STOP_GRACE", _STOP_GRACE))
    pixels = sum(p.width * p.height for p in wanted)
    kept = len(saves) if config.saving.keep == 0 else min(config.saving.keep, len(saves)) + 1
    return Plan(
        family=card.label,
        base=str(base.path),
        device=device,
        images=len(table.samples),
        datasets=_datasets(config, table),
        pictures_per_epoch=table.images_per_epoch,
        bucket_counts=table.bucket_counts(),
        batches_per_epoch=batches,
        steps=length.steps,
        epochs=length.epochs,
        steps_per_epoch=length.steps_per_epoch,
        checkpoints=saves,
        samples=sampled * len(wanted),
        modules=len(modules),
        parameters=trained,
        file_bytes=file_bytes,
        disk_bytes=checkpoint * kept
        + file_bytes * (2 if config.saving.diffusers else 1)
        + round(sampled * pixels * SAMPLE_BYTES_A_PIXEL),
        cache=cache,
        vram=vram,
        seconds_per_step=each,
        seconds=seconds,
        cost=None if seconds is None or price_per_hour is None else seconds / 3600 * price_per_hour,
        captions=lengths,
        warnings=[
            *table.notes,
            *warn.about_data(config, table, lengths),
            *warn.about_caching(config, cache),
            *warn.about_limits(vram, device, each, checkpoint, grace),
        ],
        reasons=reasons,
        command=command(resolved),
    )


def _mixed(config: RunConfig, device: timing.Device, reasons: list[str]) -> str:
    """The arithmetic's format; auto is decided on the device at the start, by the same rule."""
    if config.precision.mixed != "auto":
        return config.precision.mixed
    if device.kind == "cpu":
        chosen, why = "fp32", "a CPU gains nothing from less"
    else:
        chosen, why = ("bf16", f"{device.name} has it") if device.bf16 else ("fp16", f"{device.name} has no bf16")
    reasons.append(f"precision.mixed = {chosen} where auto: {why}")
    return chosen


def _count(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "es" if name.endswith("ch") else "s")


def _why_steps(config: RunConfig, table: Table, length: steps.Length, batches: int, processes: int) -> list[str]:
    training = config.training
    parts = training.gradient_accumulation
    shared = f" over {processes} processes" if processes > 1 else ""
    found = [
        (
            f"steps: {table.images_per_epoch} pictures an epoch (repeats counted), "
            f"{_count(len(table.buckets), 'bucket')}, "
            f"{_count(batches, 'batch')} of up to {training.batch_size}; {_count(parts, 'batch')}{shared} a step: "
            f"{_count(length.steps_per_epoch, 'step')} an epoch"
        )
    ]
    if training.epochs is not None:
        regularized = any(sample.regularization for sample in table.samples)
        pictures = sum(s.repeats for s in table.samples if not s.regularization)
        theirs = steps.kohya_steps(pictures, training, regularized)
        if theirs != length.steps:
            found.append(
                f"Kohya's interface would say {theirs} steps for {training.epochs} epochs: it ignores that every "
                "bucket's last batch may be partial"
            )
    return found


def _checkpoint_bytes(config: RunConfig, modules: list[network.Module], file_bytes: int) -> int:
    """State in full precision (adapter, average, optimizer), and the LoRA file beside it."""
    tensors = [size for module in modules for size in module.tensors]
    shapes = [pair for m in modules for pair in ((m.rank, m.shape[1]), (m.shape[0], m.rank))]
    copies = 2 if config.training.ema_decay > 0 else 1
    return 4 * sum(tensors) * copies + memory.optimizer_bytes(config.optimizer.name, tensors, shapes) + file_bytes


def _sampling_events(config: RunConfig, length: steps.Length) -> int:
    every = config.sampling.every_steps
    return length.steps // every + config.sampling.at_start if every else 0


def _resident(config: RunConfig, card: Card) -> list[str]:
    """Components besides the denoiser that are needed while training."""
    found = ["vae"] if caching.dynamic_latent_reasons(config) else []
    if caching.dynamic_text_reasons(config):
        found += [str(encoder["component"]) for encoder in card.text_encoders]
    return found


def _activations(config: RunConfig, table: Table, figures: timing.Figures) -> float:
    """Of the largest batch, in bf16."""
    checkpointing = config.memory.gradient_checkpointing
    counts = table.bucket_counts()
    return max(
        figures.activation_bytes(*bucket, checkpointing) * min(count, config.training.batch_size)
        for bucket, count in counts.items()
    )


def _step_seconds(
    config: RunConfig, table: Table, figures: timing.Figures, device: timing.Device, length: steps.Length, batches: int
) -> float:
    """Of the average step: an epoch's work, partial batches as they are, over its steps."""
    checkpointing = config.memory.gradient_checkpointing
    work = sum(figures.train_tflop(*bucket, checkpointing) * count for bucket, count in table.bucket_counts().items())
    return timing.step_seconds(work, batches, figures, device, checkpointing) / length.steps_per_epoch


def _datasets(config: RunConfig, table: Table) -> list[dict[str, object]]:
    found = []
    for number, dataset in enumerate(config.datasets):
        samples = [sample for sample in table.samples if sample.dataset == number]
        pictures = sum(sample.repeats for sample in samples)
        size = both(dataset.resolution or config.buckets.resolution or 0)
        found.append(
            {
                "path": dataset.path,
                "images": len(samples),
                "pictures_per_epoch": pictures,
                "regularization": dataset.regularization,
                "resolution": list(size),
            }
        )
    return found
