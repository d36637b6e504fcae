"""Which training size an image takes, how it is scaled to it and what is cropped away. Sizes are (width, height).

`kohya` is exact to sd-scripts (its two modes, from the description in the project's reference); `native` crops the
least. Used by the table for every image, and by the plan to explain its buckets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from trainpilot.config.schema import Buckets
from trainpilot.errors import PilotError

Size = tuple[int, int]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Rules:
    """How images are placed. resolution: (width, height) whose area no bucket exceeds; all other sides in pixels."""

    resolution: Size
    step: int = 64
    min_side: int = 256
    max_side: int = 2048
    algorithm: Literal["kohya", "native"] = "native"
    no_upscale: bool = False
    enabled: bool = True

    @property
    def area(self) -> int:
        return self.resolution[0] * self.resolution[1]

    @property
    def square(self) -> Size:
        """The one size of all images when buckets are off: the resolution, rounded down to multiples of step."""
        width, height = self.resolution
        return max(self.step, _down(width, self.step)), max(self.step, _down(height, self.step))


def rules_from(settings: Buckets, resolution: int | Size | None = None) -> Rules:
    """The rules of one dataset: its own resolution, or that of `settings`. Raises PilotError where they contradict."""
    size = resolution if resolution is not None else settings.resolution
    if size is None or settings.step is None:
        raise PilotError(
            "buckets.resolution" if size is None else "buckets.step",
            "nothing",
            "a size in pixels",
            "Set it, or name a base model: its family has a default.",
        )
    width, height = (size, size) if isinstance(size, int) else size
    if settings.enabled and settings.min_side > settings.max_side:
        raise PilotError(
            "buckets.min_side",
            settings.min_side,
            f"at most buckets.max_side, {settings.max_side}",
            "Lower min_side or raise max_side.",
        )
    if min(width, height) < settings.step:
        raise PilotError(
            "buckets.resolution",
            f"{width}x{height}",
            f"sides of at least one step of {settings.step} px",
            "Raise the resolution, or lower buckets.step as far as the model family allows.",
        )
    rules = Rules(
        (width, height),
        settings.step,
        settings.min_side,
        settings.max_side,
        settings.algorithm,
        settings.no_upscale,
        settings.enabled,
    )
    if rules.enabled and not bucket_list(rules) and not (rules.no_upscale and rules.algorithm == "kohya"):
        raise PilotError(
            "buckets.min_side",
            f"{rules.min_side} to {rules.max_side} px",
            f"sides that allow an area of {width}x{height} in multiples of {rules.step}",
            "Lower min_side, or raise the resolution.",
        )
    return rules


@dataclass(frozen=True)
class Placement:
    """Scale an image to `resized`, then cut `crop` (left, top, right, bottom in resized pixels): that is `bucket`."""

    bucket: Size
    resized: Size
    crop: Box

    @property
    def cropped_share(self) -> float:
        """Share of the scaled image that the crop removes."""
        return 1 - self.bucket[0] * self.bucket[1] / (self.resized[0] * self.resized[1])


def place(size: Size, rules: Rules) -> Placement:
    """The bucket of an image of `size`, its scaled size and its centre crop.

    The scaled image always covers the bucket. An image with a side shorter than one step is enlarged to one step
    even under `no_upscale`: a model cannot read less.
    """
    if min(size) < 1:
        raise ValueError(f"an image has at least one pixel, not {size}")
    if not rules.enabled:
        return _covering(size, rules.square)
    if rules.algorithm == "kohya":
        return _kohya_shrink(size, rules) if rules.no_upscale else _covering(size, _kohya_bucket(size, rules))
    return _covering(size, _native_bucket(size, rules))


def bucket_list(rules: Rules) -> list[Size]:
    """Every bucket that images can be enlarged or shrunk to, sorted.

    Without upscaling buckets follow the images; the list then holds those that large images take (`native`), or
    nothing (`kohya`, where no bucket is fixed beforehand).
    """
    if not rules.enabled:
        return [rules.square]
    if rules.algorithm == "native":
        return list(_native_candidates(rules, (rules.max_side, rules.max_side)))
    return [] if rules.no_upscale else list(_kohya_candidates(rules))


def kohya_told_crop(size: Size, bucket: Size) -> tuple[float, float, float, float]:
    """What sd-scripts tells SDXL about the crop: (left, top, right, bottom) of the image fitted *inside* the bucket.

    It is not the crop that is made (`Placement.crop`); runs with the kohya algorithm repeat it for exactness.
    """
    aspect = size[0] / size[1]
    if bucket[0] / bucket[1] > aspect:
        width, height = bucket[1] * aspect, float(bucket[1])
    else:
        width, height = float(bucket[0]), bucket[0] / aspect
    left, top = (bucket[0] - width) // 2, (bucket[1] - height) // 2
    return left, top, left + width, top + height


def _down(value: float, step: int) -> int:
    return int(value // step) * step


def _covering(size: Size, bucket: Size) -> Placement:
    """Scale so that the image just covers the bucket, and crop the centre."""
    width, height = size
    scale = bucket[1] / height if width / height > bucket[0] / bucket[1] else bucket[0] / width
    resized = (int(width * scale + 0.5), int(height * scale + 0.5))
    # Rounding a long side of a product like 0.9999999 must not leave the bucket uncovered by a pixel.
    return _centred((max(resized[0], bucket[0]), max(resized[1], bucket[1])), bucket)


def _centred(resized: Size, bucket: Size) -> Placement:
    left, top = (resized[0] - bucket[0]) // 2, (resized[1] - bucket[1]) // 2
    return Placement(bucket, resized, (left, top, left + bucket[0], top + bucket[1]))


@lru_cache(maxsize=64)
def _kohya_candidates(rules: Rules) -> tuple[Size, ...]:
    step = rules.step
    low, high = max(step, _down(rules.min_side, step)), -_down(-rules.max_side, step)
    side = _down(math.sqrt(rules.area), step)
    found = {(side, side)}
    for width in range(low, high + 1, step):
        height = min(high, _down(rules.area // width, step))
        if height >= low:
            found |= {(width, height), (height, width)}
    return tuple(sorted(found))


def _kohya_bucket(size: Size, rules: Rules) -> Size:
    """Upscale mode: the bucket of the image's own size, else the nearest ratio width / height, first on ties."""
    candidates = _kohya_candidates(rules)
    if size in candidates:
        return size
    aspect = size[0] / size[1]
    return min(candidates, key=lambda bucket: abs(bucket[0] / bucket[1] - aspect))


def _kohya_shrink(size: Size, rules: Rules) -> Placement:
    """No-upscale mode: shrink to the resolution's area if larger, then cut both sides to multiples of step."""
    width, height = size
    step = rules.step
    if width * height > rules.area:
        aspect = width / height
        ideal_width = math.sqrt(rules.area * aspect)
        ideal_height = rules.area / ideal_width

        def rounded(value: float) -> int:
            return _down(int(value + 0.5), step)

        fixed_width, fixed_height = rounded(ideal_width), rounded(ideal_height)
        if min(fixed_width, fixed_height) >= step:
            by_width = (fixed_width, rounded(fixed_width / aspect))
            by_height = (rounded(fixed_height * aspect), fixed_height)
            error_by_width = abs(by_width[0] / max(by_width[1], 1) - aspect)
            error_by_height = abs(by_height[0] / by_height[1] - aspect)
            if error_by_width < error_by_height:
                size = (fixed_width, int(fixed_width / aspect + 0.5))
            else:
                size = (int(fixed_height * aspect + 0.5), fixed_height)
    bucket = (_down(size[0], step), _down(size[1], step))
    if min(bucket) < step:
        return _sliver(size, rules)
    return _centred(size, bucket)


def _sliver(size: Size, rules: Rules) -> Placement:
    """An image too narrow for one step, where sd-scripts stops: one step wide, as long as the area allows."""
    step = rules.step
    longest = max(step, _down(rules.area / step, step))
    sides = [min(longest, max(step, _down(side, step))) for side in size]
    return _covering(size, (sides[0], sides[1]))


@lru_cache(maxsize=4096)
def _native_candidates(rules: Rules, limit: Size) -> tuple[Size, ...]:
    """Every bucket inside `limit` with a side that cannot grow by a step without exceeding the area or the limit."""
    step = rules.step
    widest, highest = max(step, _down(limit[0], step)), max(step, _down(limit[1], step))
    low = max(step, -_down(-rules.min_side, step))
    narrowest, lowest = min(low, widest), min(low, highest)
    found: set[Size] = set()
    for width in range(narrowest, widest + 1, step):
        height = min(highest, _down(rules.area / width, step))
        if height >= lowest:
            found.add((width, height))
    for height in range(lowest, highest + 1, step):
        width = min(widest, _down(rules.area / height, step))
        if width >= narrowest:
            found.add((width, height))
    return tuple(sorted(found))


def _native_bucket(size: Size, rules: Rules) -> Size:
    """The bucket that crops the least share; on a tie the larger, then the less elongated, then the wider one.

    Only buckets that are as large as their shape allows are offered (`_native_candidates`): a small one of exactly
    the right shape would crop nothing and waste most of the resolution.
    """
    limit = (rules.max_side, rules.max_side)
    if rules.no_upscale:
        limit = (min(limit[0], size[0]), min(limit[1], size[1]))
        limit = (max(rules.step, _down(limit[0], rules.step)), max(rules.step, _down(limit[1], rules.step)))
    aspect = size[0] / size[1]

    def cost(bucket: Size) -> tuple[float, int, int, int]:
        ratio = bucket[0] / bucket[1] / aspect
        return (round(1 - min(ratio, 1 / ratio), 12), -bucket[0] * bucket[1], max(bucket), -bucket[0])

    return min(_native_candidates(rules, limit), key=cost)
