"""Everything before the first step: device, pictures, caches, base model, adapter. Used by the trainer.

Encoders are loaded, used and let go before the denoiser comes, so that they never share memory with it unless the run
needs them while training.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainpilot.config.prompts import Prompt, of_run
from trainpilot.config.schema import RunConfig
from trainpilot.datasets import captions
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.table import Table, build
from trainpilot.engine import attention, encode, probe, quantize, sampler
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.cache import Cache
from trainpilot.engine.encoded import Encoded
from trainpilot.engine.ladder import checkpoint_activations
from trainpilot.engine.parallel import World
from trainpilot.engine.step import Arithmetic
from trainpilot.errors import PilotError
from trainpilot.families.card import Card, card
from trainpilot.families.protocol import Family, Parts, TextOptions
from trainpilot.families.registry import adapter as family_adapter
from trainpilot.formats import load as lora_file
from trainpilot.models.detect import Base, detect
from trainpilot.plan.caching import dynamic_latent_reasons, dynamic_text_reasons
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag

_TEXT_BATCH, _IMAGE_BATCH = 16, 4


@dataclass
class Prepared:
    """A run ready to train. pairs: the sample prompts' conditioning, or None where the text encoders are trained."""

    config: RunConfig
    device: probe.Device
    arithmetic: Arithmetic
    table: Table
    family: Family
    card: Card
    base: Base
    parts: Parts
    text: TextOptions
    encoded: Encoded
    adapter: Adapter
    prompts: list[Prompt]
    pairs: list[sampler.Pair] | None


class Phases:
    """What a preparation tells: `enter` a phase, `count` within it, `say` a decision, `check` for a stop."""

    def __init__(self, run: RunDir, progress: Any, stop: StopFlag) -> None:
        self._run, self._progress, self._stop = run, progress, stop
        self._phase = ""

    def enter(self, phase: str) -> None:
        self._phase = phase
        self._stop.check()
        if self._run.writes:
            self._run.state.write(phase)
        self._progress.phase(phase)

    def count(self, done: int, of: int) -> None:
        self._stop.check()
        if done == 0 and of:
            self._progress.phase(self._phase, of)
        self._progress.update(done)
        if self._run.writes:
            self._run.state.write(self._phase, done, of)

    def say(self, text: str) -> None:
        self._progress.say(text)
        if self._run.writes:
            self._run.events.append("notice", text=text)

    def check(self) -> None:
        self._stop.check()

    @property
    def stop(self) -> StopFlag:
        return self._stop


def prepare(run: RunDir, config: RunConfig, world: World, phases: Phases, cache: Cache) -> Prepared:
    """Make a run ready. The caller holds `cache` (`Cache.hold`). Raises PilotError, or StopRequested between parts."""
    phases.enter("device")
    device = _device(config, world, phases)
    phases.enter("scan")
    table = build(config, run.workspace, progress=phases.count)
    for note in table.notes:
        phases.say(note)
    family, about, base = (
        family_adapter(config.model.family),
        card(config.model.family),
        detect(Path(config.model.base)),
    )
    about = about.variant(base.variant)
    for setting, reason in about.no_effect.items():
        if _differs(config, setting):
            phases.say(f"{setting} has no effect on {about.label}: {reason}")
    options = TextOptions(
        clip_skip=config.text_encoder.clip_skip,
        clip_tokens=config.text_encoder.clip_tokens,
        t5_tokens=config.text_encoder.t5_tokens,
    )
    prompts = of_run(config, [sample.caption for sample in table.samples], about.embedded_guidance)
    encoded, kept, pairs = _encode(run, config, world, phases, cache, device, table, family, prompts, options)

    phases.enter("load")
    parts = _load(config, family, device, frozenset({"denoiser"}))
    parts.text_encoders, parts.tokenizers = kept.text_encoders, kept.tokenizers
    parts.vae, parts.latent_shift, parts.latent_scale = kept.vae, kept.latent_shift, kept.latent_scale
    assert parts.denoiser is not None
    if config.precision.base != "full":
        phases.say(quantize.quantize(parts.denoiser, config.precision.base, device.torch_device).reason)
        parts.denoiser.to(device.torch_device)
    phases.check()
    if any(isinstance(module, nn.Conv2d) and module.kernel_size != (1, 1) for module in parts.denoiser.modules()):
        # Convolutions run fastest with channels innermost, on GPUs with tensor cores and on CPUs alike.
        parts.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen = attention.choose(parts.denoiser, config.memory.attention, device.torch_device, device.dtype)
    phases.say(chosen.reason)
    adapter = _adapter(config, about, family, parts, phases)
    return Prepared(
        config=config,
        device=device,
        arithmetic=Arithmetic(
            device.torch_device,
            None if device.dtype == torch.float32 else device.dtype,
            chosen.context if chosen.name != "xformers" else nullcontext,
        ),
        table=table,
        family=family,
        card=about,
        base=base,
        parts=parts,
        text=options,
        encoded=encoded,
        adapter=adapter,
        prompts=prompts,
        pairs=pairs,
    )


def _device(config: RunConfig, world: World, phases: Phases) -> probe.Device:
    environment = dict(os.environ)
    if world.size > 1 and torch.cuda.is_available():
        environment["PILOT_DEVICE"] = f"cuda:{world.local_rank}"
    device = probe.choose_device(config.precision.mixed, environment)
    for note in device.notes:
        phases.say(note)
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.run.deterministic)
    return device


def _differs(config: RunConfig, setting: str) -> bool:
    """Whether a setting, "loss.debiased" say, was changed from what the schema gives it."""
    section, _, name = setting.partition(".")
    table = getattr(config, section, None)
    if table is None or isinstance(table, list) or name not in type(table).model_fields:
        return False
    return bool(getattr(table, name) != type(table).model_fields[name].get_default(call_default_factory=True))


def _load(config: RunConfig, family: Family, device: probe.Device, wanted: frozenset[str]) -> Parts:
    # The VAE computes in fp32: it runs once a picture, SDXL's overflows in fp16, and bf16 would blur every latent.
    dtype = torch.float32 if wanted == {"vae"} else device.dtype
    place = "cpu" if "denoiser" in wanted and config.precision.base != "full" else device.torch_device
    return family.load(
        Path(config.model.base),
        wanted,
        dtype=dtype,
        device=place,
        vae=Path(config.model.vae) if config.model.vae else None,
        prediction=config.model.prediction,
    )


def _encode(
    run: RunDir,
    config: RunConfig,
    world: World,
    phases: Phases,
    cache: Cache,
    device: probe.Device,
    table: Table,
    family: Family,
    prompts: list[Prompt],
    options: TextOptions,
) -> tuple[Encoded, Parts, list[sampler.Pair] | None]:
    """Fill the caches; returns them, the encoders that are needed later, and the sample prompts' conditioning."""
    base, vae = Path(config.model.base), Path(config.model.vae) if config.model.vae else None
    text_reasons, latent_reasons = dynamic_text_reasons(config), dynamic_latent_reasons(config)
    for what, reasons in (("captions", text_reasons), ("pictures", latent_reasons)):
        for reason in reasons:
            phases.say(f"{what} are encoded while training: {reason}")
    sampling = config.sampling.every_steps > 0 or config.sampling.evaluate_at_end
    with Memo.of(run.workspace.cache) as memo:
        phases.enter("captions")
        kept = _load(config, family, device, frozenset({"text"}))
        pairs = None
        if not config.text_encoder.train and sampling:
            pairs = sampler.encode(family, kept, prompts, options)
        text = None
        if not text_reasons:
            hashed = encode.encoder_hash(base, "text", memo, phases.stop)

            def fill_text() -> encode.TextIndex:
                return encode.fill_text(
                    _captions(config, table),
                    family,
                    kept,
                    cache,
                    options=options,
                    hashed=hashed,
                    dtype=device.dtype,
                    batch=_TEXT_BATCH,
                    stop=phases.stop,
                    progress=phases.count,
                    say=phases.say,
                )

            text = _first_the_writer(world, fill_text)
            phases.say(f"captions: {text.encoded} encoded, {text.reused} from the cache")
            kept.text_encoders, kept.tokenizers = [], []
        phases.enter("latents")
        vae_parts = _load(config, family, device, frozenset({"vae"}))
        kept.vae, kept.latent_shift, kept.latent_scale = (
            vae_parts.vae,
            vae_parts.latent_shift,
            vae_parts.latent_scale,
        )
        latents = None
        if not latent_reasons:
            vae_hash = encode.encoder_hash(base, "vae", memo, phases.stop, vae=vae)

            def fill_latents() -> encode.LatentIndex:
                return encode.fill_latents(
                    table,
                    family,
                    vae_parts,
                    cache,
                    flips=[dataset.flip for dataset in config.datasets],
                    vae_hash=vae_hash,
                    batch=_IMAGE_BATCH,
                    stop=phases.stop,
                    progress=phases.count,
                    say=phases.say,
                )

            latents = _first_the_writer(world, fill_latents)
            phases.say(f"latents: {latents.encoded} encoded, {latents.reused} from the cache")
            assert kept.vae is not None
            # Needed again for samples alone: it waits in host memory.
            kept.vae = kept.vae.to("cpu") if sampling else None
    if device.is_cuda:
        torch.cuda.empty_cache()
    return Encoded(cache, latents, text), kept, pairs


def _first_the_writer(world: World, fill: Callable[[], Any]) -> Any:
    """One process encodes, then the others find everything in the cache."""
    index = fill() if world.writes else None
    world.wait()
    return index if world.writes else fill()


def _captions(config: RunConfig, table: Table) -> list[str]:
    found: dict[str, None] = {}
    for sample in table.samples:
        rules = config.datasets[sample.dataset].captions
        found[captions.fixed(sample.caption, rules)] = None
        if rules.dropout_rate > 0 or rules.dropout_every_n_epochs > 0:
            found[""] = None
    return list(found)


def _adapter(config: RunConfig, about: Card, family: Family, parts: Parts, phases: Phases) -> Adapter:
    assert parts.denoiser is not None
    models: dict[str, nn.Module] = {"denoiser": parts.denoiser}
    patterns = {"denoiser": about.patterns(config.network.targets)}
    if config.text_encoder.train:
        components = family.components[1:]
        for component, encoder in zip(components, parts.text_encoders, strict=True):
            if any(e["component"] == component and e["trainable"] for e in about.text_encoders):
                models[component], patterns[component] = encoder, about.text_targets
    for model in (parts.denoiser, *parts.text_encoders):
        model.requires_grad_(False)
    adapter = Adapter.inject(models, patterns, config.network, config.run.seed)
    if config.network.max_norm is not None and config.network.type not in ("lora", "dora"):
        raise PilotError(
            "network.max_norm", config.network.type, "lora or dora", "Leave network.max_norm empty for this type."
        )
    if config.network.init_from:
        path = Path(config.network.init_from)
        fresh = adapter.warm_start(lora_file.read(path, config.model.family).state, str(path))
        phases.say(f"warm start from {path}" + (f"; {len(fresh)} modules are not in it" if fresh else ""))
    for component, model in models.items():
        model.train()
        if config.memory.gradient_checkpointing:
            checkpoint_activations(component, model)
    count = sum(parameter.numel() for parameter in adapter.parameters())
    phases.say(f"adapter: {config.network.type}, {count / 1e6:.2f} M parameters in {', '.join(models)}")
    return adapter
