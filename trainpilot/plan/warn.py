"""What a person should know before starting: warnings about data, memory and time. Used by the plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.table import Table
from trainpilot.plan.caching import CacheSize, dynamic_latent_reasons, dynamic_text_reasons
from trainpilot.plan.memory import MemoryEstimate
from trainpilot.plan.plan import gigabytes
from trainpilot.plan.timing import Device
from trainpilot.plan.tokens import CaptionLengths

FEW_IMAGES = 10  # the smallest set that a guide trains from; 15 to 30 for a person
SAVE_BYTES_A_SECOND = 150e6  # a slow network volume
_OUT_OF_MEMORY = (
    "in this order: training.batch_size 1, buckets.resolution 512, precision.base fp8 or nf4, "
    "memory.gradient_checkpointing true"
)


def about_data(config: RunConfig, table: Table, captions: Sequence[CaptionLengths]) -> Iterator[str]:
    """The pictures and their captions."""
    train = [sample for sample in table.samples if not sample.regularization]
    if len(train) < FEW_IMAGES:
        yield f"{len(train)} pictures are few: 10 suffice for an object, 15 to 30 are recommended for a person"
    small = [s for s in train if s.resized[0] > s.size[0] * 1.05 or s.resized[1] > s.size[1] * 1.05]
    if small:
        names = ", ".join(s.image.name for s in small[:3]) + (" ..." if len(small) > 3 else "")
        yield f"{len(small)} pictures are smaller than their bucket and get enlarged ({names})"
    empty = sum(not sample.caption.strip() for sample in train)
    if empty:
        yield f"{empty} of {len(train)} captions are empty"
    texts = Counter(sample.caption.strip() for sample in train if sample.caption.strip())
    if texts and texts.most_common(1)[0][1] > max(3, len(train) // 2):
        text, count = texts.most_common(1)[0]
        yield f"{count} of {len(train)} captions are the same: {text[:60]!r}; varied captions generalise better"
    for lengths in captions:
        if lengths.over:
            remedy = "shorten them"
            if lengths.kind == "clip" and config.text_encoder.clip_tokens < 225:
                remedy = "shorten them, or set text_encoder.clip_tokens to 150 or 225"
            yield (
                f"{lengths.over} captions are longer than the {lengths.limit} tokens that {lengths.encoder} reads "
                f"(longest {lengths.longest}); the rest is cut off: {remedy}"
            )
    widest = [batch for rows in table.buckets.values() if (batch := len(rows)) < config.training.batch_size]
    if widest and len(widest) > len(table.buckets) // 2:
        yield (
            f"{len(widest)} of {len(table.buckets)} buckets hold fewer pictures than a batch of "
            f"{config.training.batch_size}: their batches are partial"
        )


def about_caching(config: RunConfig, cache: CacheSize) -> Iterator[str]:
    """What is encoded while training, and a cache that is too small."""
    for what, part, reasons in (
        ("pictures", "VAE", dynamic_latent_reasons(config)),
        ("captions", "text encoders", dynamic_text_reasons(config)),
    ):
        if reasons:
            yield f"{what} are encoded while training, so the {part} stay in memory: {'; '.join(reasons)}"
    if cache.bytes > config.cache.max_gb * 1e9:
        yield f"the cache needs {gigabytes(cache.bytes)}, above cache.max_gb {config.cache.max_gb:g}: raise it"


def about_limits(
    vram: MemoryEstimate | None, device: Device, seconds: float | None, checkpoint_bytes: int, grace: float
) -> Iterator[str]:
    """Memory of the device, and the time a stop may take."""
    if vram and device.memory and vram.total > device.memory:
        yield (
            f"about {gigabytes(vram.total)} are needed and {device.name} has {gigabytes(device.memory)}: expect to run "
            f"out of memory; try {_OUT_OF_MEMORY}"
        )
    if seconds is not None:
        stop = seconds + checkpoint_bytes / SAVE_BYTES_A_SECOND
        if stop > grace:
            yield (
                f"a step and a checkpoint may take {stop:.0f} s, longer than PILOT_STOP_GRACE ({grace:g} s): raise it, "
                "or a stop may lose the steps since the last checkpoint"
            )
