"""Opening any picture as upright 8-bit RGB, and cutting it to its bucket. No torch: arrays are numpy.

`inspect` is the scan's one reading of a file (hash, size, is it whole); `prepare` and `prepare_mask` are what the
engine encodes. Both see a picture through the same eyes, `open_rgb`, so nothing that passed the scan surprises later.
The doctor measures what `open_undecoded` and `as_rgb` give.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from trainpilot.datasets.samples import Sample
from trainpilot.errors import PilotError

ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")  # JPEG includes MPO: many telephones put a second picture behind the first
MAX_PIXELS = 89_478_485  # where Pillow begins to warn of bombs; decoded and copied once it is half a gigabyte
PREPARE_VERSION = 1  # raise it when the pixels that `prepare` returns change; caches are keyed by it
_ROWS = 16  # result rows that are scaled at once
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, TypeError, OverflowError,
               struct.error, zlib.error, Image.DecompressionBombError)  # fmt: skip
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What one reading of a file told. size: (width, height) upright; problem: why it cannot be used."""

    sha256: str = ""
    size: tuple[int, int] = (0, 0)
    problem: str | None = None
    remarks: list[str] = field(default_factory=list)

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Inspection:
        fields: dict[str, Any] = json.loads(text)
        width, height = fields.pop("size")
        return cls(size=(width, height), **fields)


def inspect(path: Path) -> Inspection:
    """Read a picture once: its hash, its upright size, whether it decodes to the end, and what is unusual about it.

    Never raises for a broken picture: `problem` says what is wrong. Raises OSError where the file cannot be read.
    """
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    if not data:
        return Inspection(sha256, problem="is an empty file")
    try:
        with open_undecoded(io.BytesIO(data)) as image:
            size, remarks = image.size, _remarks(image)
            if image.format in ("JPEG", "MPO"):
                # Decoding at an eighth still reads every byte of the picture, in a fraction of time and memory.
                image.draft("RGB", (max(1, size[0] // 8), max(1, size[1] // 8)))
            image.load()
            if image.getexif().get(_ORIENTATION) in _SIDEWAYS:
                size = (size[1], size[0])
    except UNREADABLE as problem:
        return Inspection(sha256, problem=reason(problem))
    return Inspection(sha256, size, None, remarks)


def open_rgb(path: Path) -> Image.Image:
    """A picture as 8-bit RGB, upright by its EXIF orientation, transparency laid over white, first frame only.

    Raises PilotError that names the file where it is broken, of an unknown kind or larger than MAX_PIXELS.
    """
    try:
        with open_undecoded(path) as image:
            image.load()
            return as_rgb(ImageOps.exif_transpose(image))
    except UNREADABLE as problem:
        raise PilotError(
            path, reason(problem), "a whole JPEG, PNG, WebP or BMP picture", "Replace the file, or take it out."
        ) from problem


def prepare(sample: Sample, crop_xy: tuple[int, int] | None = None, flip: bool = False) -> Pixels:
    """The picture as it is trained: uint8 [bucket height, bucket width, 3], RGB.

    crop_xy: (left, top) in the scaled picture, the centre when None; flip mirrors left to right after the crop.
    Raises PilotError where the file is broken or has another size than when it was scanned.
    """
    image = open_rgb(sample.image)
    if image.size != sample.size:
        raise PilotError(
            sample.image,
            f"{image.width}x{image.height}, but it was {sample.size[0]}x{sample.size[1]} when the run was planned",
            "pictures that stay as they are while a run uses them",
            "Start the run again: it plans with the new picture.",
        )
    return _cut(resize(np.asarray(image), sample.resized), sample, crop_xy, flip)


def prepare_mask(sample: Sample, crop_xy: tuple[int, int] | None = None, flip: bool = False) -> Pixels:
    """The mask in the same frame as `prepare`: uint8 [bucket height, bucket width], 255 is trained.

    Raises ValueError for a sample without a mask, PilotError where the mask is broken.
    """
    if sample.mask is None:
        raise ValueError(f"{sample.image} has no mask")
    grey = np.asarray(open_rgb(sample.mask).convert("L"))
    return _cut(resize(grey, sample.resized), sample, crop_xy, flip)


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Scale uint8 [height, width(, channels)] to (width, height): area means when both sides shrink, else Lanczos."""
    height, width = pixels.shape[:2]
    if (width, height) == size:
        return pixels
    if size[0] < width and size[1] < height:
        return _area(pixels, size)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _area(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Each result pixel is the mean of the rectangle it covers, split pixels counted by their share.

    Pillow's BOX takes whole pixels only, which aliases at ratios below two. A few rows at a time: the floating point
    copy of a large picture would be slow to fill and four times its size.
    """
    width, height = size
    edges = _edges(pixels.shape[0], height)
    result = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    for start in range(0, height, _ROWS):
        window = edges[start : start + _ROWS + 1]
        top, bottom = int(window[0]), math.ceil(window[-1])
        rows = _means(pixels[top:bottom].astype(np.float32), window - top)
        columns = _means(np.ascontiguousarray(np.swapaxes(rows, 0, 1)), _edges(pixels.shape[1], width))
        result[start : start + _ROWS] = np.clip(np.swapaxes(columns, 0, 1) + 0.5, 0, 255)
    return result


def _edges(length: int, count: int) -> NDArray[np.float64]:
    """Where `count` equal intervals of `length` pixels begin and end; the division comes last, so the end is exact."""
    return np.arange(count + 1) * length / count


def _means(values: NDArray[np.float32], edges: NDArray[np.float64]) -> NDArray[np.float32]:
    """Means of values[edge i .. edge i + 1] along the first axis; intervals are at least one pixel long."""
    first = np.minimum(edges.astype(np.int64), len(values) - 1)
    share = (edges - first).astype(np.float32).reshape(-1, *[1] * (values.ndim - 1))
    parts = values[first] * share  # what lies before each edge in the pixel that the edge splits
    whole = np.add.reduceat(values[: first[-1] + 1], first[:-1], axis=0)
    # The last sum already runs to the end of its array, beyond every other sum's end by the pixel of the last edge.
    whole[-1] -= values[first[-1]]
    return (whole - parts[:-1] + parts[1:]) / np.float32(edges[1] - edges[0])


def _cut(pixels: Pixels, sample: Sample, crop_xy: tuple[int, int] | None, flip: bool) -> Pixels:
    left, top = sample.crop if crop_xy is None else crop_xy
    width, height = sample.bucket
    if not (0 <= left <= pixels.shape[1] - width and 0 <= top <= pixels.shape[0] - height):
        raise ValueError(f"crop {(left, top)} of {width}x{height} leaves the picture {pixels.shape[1::-1]}")
    window = pixels[top : top + height, left : left + width]
    return np.ascontiguousarray(window[:, ::-1] if flip else window)


def open_undecoded(source: Path | io.BytesIO) -> Image.Image:
    """Open without decoding. The format is taken from the bytes, never from the name."""
    image = Image.open(source, formats=FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"has {image.width}x{image.height} px")
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    return image


def _remarks(image: Image.Image) -> list[str]:
    remarks = []
    if getattr(image, "is_animated", False) and image.format != "MPO":
        remarks.append("is animated: its first frame is used")
    if image.mode in ("CMYK", "YCCK"):
        remarks.append("is CMYK: converted to RGB without a colour profile")
    if image.mode.startswith(("I", "F")):
        remarks.append("has 16 bits a channel: reduced to 8")
    if has_alpha(image):
        remarks.append("is transparent: laid over white")
    return remarks


def has_alpha(image: Image.Image) -> bool:
    """Whether it can have transparent places."""
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info


def as_rgb(image: Image.Image) -> Image.Image:
    """A decoded picture as 8-bit RGB, transparency laid over white; not turned upright."""
    if image.mode.startswith(("I", "F")):
        # Pillow clips deep grey at 255 instead of scaling it.
        grey = np.asarray(image).astype(np.float32)
        return Image.fromarray((np.clip(grey, 0, 65535) / 257 + 0.5).astype(np.uint8)).convert("RGB")
    if has_alpha(image):
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image.convert("RGB")


def reason(problem: BaseException) -> str:
    """Why a picture cannot be read, to follow its name."""
    if isinstance(problem, Image.DecompressionBombError):
        return f"{problem}, more than the {MAX_PIXELS} pixels that are safe to decode"
    if isinstance(problem, Image.UnidentifiedImageError):
        return "is not a JPEG, PNG, WebP or BMP picture"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return f"is broken: {problem}"
