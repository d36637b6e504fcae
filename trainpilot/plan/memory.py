"""What has to be in device memory at once, part by part, as an estimate from module shapes. Used by the plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from trainpilot.config.schema import RunConfig
from trainpilot.plan.network import Module

# Bytes a weight: 4-bit has a 32-bit scale for every 64 weights, which makes 4.5 bits.
BASE_BYTES = {"int8": 1.0, "fp8": 1.0, "nf4": 4.5 / 8}
NUMBER_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
# Tensors below this size keep 32-bit state in 8-bit optimizers (bitsandbytes' min_8bit_size); blocks of 256 share a
# 32-bit scale.
EIGHT_BIT_FROM = 4096
_EIGHT_BIT = 1 + 4 / 256
CONTEXT = 700_000_000  # CUDA context, libraries' workspaces, fragmentation


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. encoders: text encoders and VAE while training; 0 where everything they make is cached.

    caching: the peak before training, when encoders and VAE fill the caches.
    """

    base: int
    adapter: int
    gradients: int
    optimizer: int
    ema: int
    activations: int
    encoders: int
    context: int
    caching: int

    @property
    def training(self) -> int:
        """All parts that are in memory while training."""
        return sum(value for name, value in asdict(self).items() if name != "caching")

    @property
    def total(self) -> int:
        """The peak of the run."""
        return max(self.training, self.caching)

    def as_dict(self) -> dict[str, int]:
        return asdict(self) | {"total": self.total}


def optimizer_bytes(name: str, tensors: Iterable[int], shapes: Iterable[Sequence[int]] = ()) -> int:
    """State of an optimizer over trained tensors of these sizes. shapes: (rows, columns) where they are factored."""
    sizes = list(tensors)
    if name in ("adamw8bit", "lion8bit"):
        moments = 2 if name == "adamw8bit" else 1
        return round(sum(moments * size * (_EIGHT_BIT if size >= EIGHT_BIT_FROM else 4) for size in sizes))
    if name == "adafactor":
        # A first moment in full, and the second as one row and one column.
        return 4 * sum(sizes) + 4 * sum(sum(shape) for shape in shapes)
    # AdamW: two moments. Lion: one. Prodigy: two moments, the start and its own sum. Schedule-Free: z and one moment.
    return {"adamw": 8, "lion": 4, "prodigy": 16, "adamw_schedulefree": 8}[name] * sum(sizes)


def estimate(
    config: RunConfig,
    modules: Sequence[Module],
    parameters: Mapping[str, int],
    *,
    mixed: str,
    activations: float,
    resident: Sequence[str],
    on_gpu: bool,
) -> MemoryEstimate:
    """mixed: the arithmetic's format; parameters: by component; activations: bytes in bf16 of the largest batch.

    resident: components besides the denoiser that stay in memory while training.
    """
    number = NUMBER_BYTES[mixed]
    tensors = [size for module in modules for size in module.tensors]
    trained = sum(tensors)
    weight = BASE_BYTES.get(config.precision.base, number)
    encoders = {name: count for name, count in parameters.items() if name != "denoiser"}
    shapes = [pair for m in modules for pair in ((m.rank, m.shape[1]), (m.shape[0], m.rank))]
    return MemoryEstimate(
        base=round(parameters["denoiser"] * weight),
        adapter=4 * trained,
        gradients=4 * trained,
        optimizer=optimizer_bytes(config.optimizer.name, tensors, shapes),
        ema=4 * trained if config.training.ema_decay > 0 else 0,
        activations=round(activations * number / 2),
        encoders=sum(encoders.get(name, 0) for name in resident) * number,
        context=CONTEXT if on_gpu else 0,
        caching=sum(encoders.values()) * number + (CONTEXT if on_gpu else 0),
    )
