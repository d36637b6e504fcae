"""Proof that a LoRA file works: a fresh pipeline loads it, every key lands, and its effect is that of the weights.

Used by the engine before a run says done, and by `trainpilot verify`. Every module's output is compared with the
formula, in fp32, on seeded inputs; that needs no base weights, so a base of any size is checked in seconds. Where the
base is small enough to run here, a whole forward pass is compared too, in double precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from trainpilot.config.schema import Noise
from trainpilot.errors import PilotError
from trainpilot.families.construction import configs
from trainpilot.families.registry import adapter
from trainpilot.formats import consumer, kohya, load
from trainpilot.formats.effect import applied, delta, widened
from trainpilot.formats.identify import Identified, identify
from trainpilot.formats.names import names
from trainpilot.formats.state import DOWN, MAGNITUDE, UP, AdapterState, ModuleWeights
from trainpilot.models.detect import Base, detect
from trainpilot.models.safetensors_header import read_header

TOLERANCE = 1e-5  # relative, fp32
_FORWARD_MOST = 2_000_000_000  # parameters of a base that is run whole
_INPUTS = 4  # random input vectors for each module
_ALLOWED = f"every key loaded, alpha kept, outputs within {TOLERANCE:g}"


@dataclass
class Verification:
    """What was found. Errors are relative to the reference's norm; forward_error is None without a forward pass."""

    file: str
    base: str
    family: str
    naming: str
    kind: str
    dtype: str
    reader: str
    modules: dict[str, int]
    keys_matched: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    wrong_alpha: list[str] = field(default_factory=list)
    worst_module: str = ""
    module_error: float = 0.0
    forward_error: float | None = None
    forward_effect: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def max_relative_error(self) -> float:
        return max(self.module_error, self.forward_error or 0.0)

    @property
    def ok(self) -> bool:
        # Written so that NaN is not all right.
        clean = not (self.missing or self.unexpected or self.wrong_alpha)
        return clean and bool(self.modules) and self.max_relative_error <= TOLERANCE

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"ok": self.ok, "max_relative_error": self.max_relative_error}

    def text(self) -> str:
        """Several lines for a terminal."""
        count = ", ".join(f"{number} in {component}" for component, number in self.modules.items())
        lines = [
            f"{'verified' if self.ok else 'FAILED'}  {self.file}",
            f"  what      {self.family} {self.kind}, {self.naming} naming, {self.dtype}; modules: {count}",
            f"  read by   {self.reader}",
            f"  keys      {self.keys_matched} matched, {len(self.missing)} missing, {len(self.unexpected)} unexpected",
            f"  alpha     {'right' if not self.wrong_alpha else 'wrong in ' + ', '.join(self.wrong_alpha[:3])}",
            f"  output    largest relative error of a module {self.module_error:.2e} (limit {TOLERANCE:g})",
        ]
        if self.forward_error is not None:
            lines.append(
                f"  forward   relative error {self.forward_error:.2e}; the adapter's share is {self.forward_effect:.1e}"
            )
        lines += [f"  missing   {name}" for name in self.missing[:5]]
        lines += [f"  unknown   {name}" for name in self.unexpected[:5]]
        return "\n".join(lines + [f"  note      {note}" for note in self.notes])


def verify(
    file: Path,
    base: Path,
    family: str | None = None,
    *,
    reference: AdapterState | None = None,
    forward: bool | None = None,
    check: Callable[[], None] = lambda: None,
) -> Verification:
    """Load `file` over `base` as a generation tool would and compare it with `reference`.

    reference: the engine's own weights; without them, the file's by our reader. forward: run the whole base too; None
    decides by its size and the free memory, and notes it. check is called between the phases and may raise to stop.
    Raises PilotError where file and base do not belong together or cannot be read.
    """
    found = identify(file)
    given = load.read(file, family)
    about = detect(base)
    if about.family != given.family:
        allowed = f"a {given.family} base"
        raise PilotError(base, f"a {about.family} model; {file.name} is for {given.family}", allowed, "Name its base.")
    expected = _as_saved(found, given, reference)
    result = Verification(
        file=str(file),
        base=str(base),
        family=given.family,
        naming=found.naming,
        kind=found.kind,
        dtype=found.dtype,
        reader="",
        modules={component: len(modules) for component, modules in expected.items() if modules},
    )
    whole = _forward_wanted(about, forward, result.notes)
    check()
    models, run = _base(about, given, whole, result.notes)
    check()
    with torch.no_grad():
        before = run(models) if run else None
        _load(file, found, given, models, result, check)
        _compare(models, expected, result, check)
        if run and before is not None:
            after = run(models)
            check()
            _take_out(models)
            _apply(models, expected)
            _compare_forward(before, after, run(models), result)
    result.keys_matched = len(read_header(file).tensors) - sum(
        len(weights.tensors)
        for component, modules in expected.items()
        for name, weights in modules.items()
        if f"{component}.{name}" in result.missing
    )
    return result


def require(result: Verification) -> None:
    """Raise PilotError with the whole account where the verification failed."""
    if not result.ok:
        raise PilotError(result.file, result.text(), _ALLOWED, "Do not use the file; report this with the account.")


def _as_saved(found: Identified, given: load.LoraFile, reference: AdapterState | None) -> AdapterState:
    """The reference after the same cast as the file, in fp32."""
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}.get(found.dtype)
    if dtype is None:
        raise PilotError(given.metadata.get("ss_output_name", "file"), found.dtype, "F32, F16 or BF16", "Convert it.")
    if reference is None:
        return widened(given.state, dtype)
    if found.naming == "kohya":
        # What the writer does before the cast, such as one alpha for all, has to come before the cast here too.
        tensors, metadata, _ = kohya.encode(given.family, widened(reference, torch.float32), dtype)
        return widened(kohya.decode(given.family, tensors, metadata, "reference"), dtype)
    return widened(reference, dtype)


def _forward_wanted(about: Base, forward: bool | None, notes: list[str]) -> bool:
    if forward is not None:
        return forward
    files = [about.path] if about.path.is_file() else list(about.path.rglob("*.safetensors"))
    parameters = sum(read_header(path).elements for path in files)
    free = psutil.virtual_memory().available
    if parameters > _FORWARD_MOST or parameters * 8 > 0.4 * free:
        notes.append(
            f"no forward pass of the whole base: {parameters / 1e9:.1f} billion parameters, {free / 1e9:.0f} GB free; "
            "every module was compared by itself"
        )
        return False
    return True


Run = Callable[[Mapping[str, nn.Module]], dict[str, Tensor]]


def _base(about: Base, given: load.LoraFile, whole: bool, notes: list[str]) -> tuple[dict[str, nn.Module], Run | None]:
    """The base's modules, and what runs them; hollow and without it where no forward pass is wanted."""
    family = adapter(given.family)
    table = names(given.family)
    used = [component for component, modules in given.state.items() if modules]
    components = {c: table.PEFT[c] for c in family.components if c == "denoiser" or c in used}
    if whole:
        try:
            parts = family.load(about.path, frozenset({"denoiser", "text"}), dtype=torch.float32, device="cpu")
        except PilotError as error:
            notes.append(f"no forward pass: {error.message}")
        else:
            for module in (parts.denoiser, *parts.text_encoders):
                if module is not None:
                    # fp32 adds its own rounding, up to 1e-5 through a hundred layers, to what is measured.
                    module.double()
            encoders = dict(zip(family.components[1:], parts.text_encoders, strict=True))
            models = {c: parts.denoiser if c == "denoiser" else encoders[c] for c in components}
            return {c: m for c, m in models.items() if m is not None}, _runner(family, parts)
    shipped = configs(given.family, about.variant)

    def read_config(folder: str) -> dict[str, Any]:
        own = about.path / folder / "config.json"
        return json.loads(own.read_text(encoding="utf-8")) if own.is_file() else dict(shipped[folder]["config"])

    return consumer.hollow(given.family, about.variant, read_config, components), None


def _runner(family: Any, parts: Any) -> Run:
    """A forward pass of text encoders and denoiser on a fixed seeded input."""
    from trainpilot.families.protocol import TextOptions

    generator = torch.Generator().manual_seed(0)
    config = parts.denoiser.config
    channels = config.in_channels // 4 if family.name == "flux" else config.in_channels
    noisy = torch.randn(1, channels, 16, 16, generator=generator).double()
    sizes = torch.tensor([[128.0, 128.0, 0.0, 0.0, 128.0, 128.0]])

    def run(models: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        text = family.encode_text(parts, ["a small red star"], TextOptions(t5_tokens=32))
        levels = family.levels(parts, torch.tensor([0.5]), Noise(timesteps="uniform"), (16, 16))
        return {**text, "denoiser": family.predict(parts, noisy, levels, text, sizes, Noise())}

    return run


def _load(
    file: Path,
    found: Identified,
    given: load.LoraFile,
    models: dict[str, nn.Module],
    result: Verification,
    check: Callable[[], None],
) -> None:
    if found.kind in ("loha", "lokr"):
        result.reader = f"peft; diffusers does not read {found.kind} for {given.family}"
        result.unexpected += consumer.through_peft(models, given)
        return
    reason = consumer.why_not_direct(found, given, models["denoiser"])
    result.reader = f"diffusers, after conversion to PEFT naming ({reason})" if reason else "diffusers"
    pipeline = consumer.pipeline(given.family, models)
    result.notes += consumer.through_diffusers(pipeline, file, given, reason, widen=False)
    check()
    if found.dtype != "f32":
        # The file itself loads; its arithmetic is compared in fp32, where rounding to its format is not repeated.
        _take_out(models)
        consumer.through_diffusers(pipeline, file, given, reason, widen=True)


def _take_out(models: Mapping[str, nn.Module]) -> None:
    from diffusers.utils.peft_utils import recurse_remove_peft_layers

    model: Any
    for model in models.values():
        recurse_remove_peft_layers(model)
        if getattr(model, "peft_config", None):
            del model.peft_config
        if hasattr(model, "_hf_peft_config_loaded"):
            model._hf_peft_config_loaded = False


def _compare(
    models: Mapping[str, nn.Module], expected: AdapterState, result: Verification, check: Callable[[], None]
) -> None:
    """Module by module: is it there, and does it do what the formula says."""
    generator = torch.Generator().manual_seed(0)
    for component, model in models.items():
        check()
        wanted = expected.get(component, {})
        loaded = consumer.layers(model)
        result.missing += [f"{component}.{name}" for name in wanted if name not in loaded]
        for name, layer in loaded.items():
            weights = wanted.get(name)
            if weights is None:
                # A part of a fused matrix that is not adapted comes back as zeros, which do nothing.
                if any(bool(up.weight.any()) for up in getattr(layer, "lora_B", {}).values()):
                    result.unexpected.append(f"{component}.{name}")
                continue
            actual, reference = _outputs(layer, weights, generator)
            scale = float(reference.norm()) or 1.0
            error = float((actual - reference).norm()) / scale
            if not error <= result.module_error:
                result.module_error, result.worst_module = error, f"{component}.{name}"
            ratio = float((actual * reference).sum()) / scale**2
            if (
                reference.any()
                and abs(ratio - 1) > TOLERANCE
                and float((actual - ratio * reference).norm()) < scale * TOLERANCE
            ):
                result.wrong_alpha.append(f"{component}.{name} (times {ratio:.4g})")


def _outputs(layer: Any, weights: ModuleWeights, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the loaded layer and what the formula adds to a module's output for random inputs."""
    if weights.type != "lora":
        actual = layer.get_delta_weight(consumer.NAME).float().flatten(1)
        return actual, delta(weights, layer.get_base_layer().weight.shape).flatten(1)
    down, up = layer.lora_A[consumer.NAME].weight.float(), layer.lora_B[consumer.NAME].weight.float()
    x = torch.randn(down[0].numel(), _INPUTS, generator=generator)
    actual = up.flatten(1) @ (down.flatten(1) @ x) * layer.scaling[consumer.NAME]
    reference = weights.tensors[UP].flatten(1) @ (weights.tensors[DOWN].flatten(1) @ x) * weights.scale
    if MAGNITUDE in weights.tensors:
        # The magnitudes ride along as one more column.
        loaded = layer.lora_magnitude_vector[consumer.NAME].weight.float().reshape(-1, 1)
        return torch.cat([actual, loaded], 1), torch.cat([reference, weights.tensors[MAGNITUDE].reshape(-1, 1)], 1)
    return actual, reference


def _apply(models: Mapping[str, nn.Module], expected: AdapterState) -> None:
    """Change the base's own weights by the formulas: the reference that owes nothing to peft."""
    for component, modules in expected.items():
        for name, weights in modules.items():
            weight: Any = models[component].get_submodule(name).weight
            double = {leaf: tensor.double() for leaf, tensor in weights.tensors.items()}
            weight.copy_(applied(weight, ModuleWeights(weights.type, double, weights.rank, weights.alpha)))


def _compare_forward(
    before: dict[str, Tensor], after: dict[str, Tensor], reference: dict[str, Tensor], result: Verification
) -> None:
    result.forward_error = max(_relative(after[key], reference[key]) for key in reference)
    result.forward_effect = max(_relative(before[key], reference[key]) for key in reference)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
