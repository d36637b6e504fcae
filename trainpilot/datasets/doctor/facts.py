"""What one reading of a picture told the doctor. Made by `reading.py`, remembered as text, judged by the checks."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass

import numpy as np

from trainpilot.datasets.doctor.measures import MARKS, SMALL, Pixels

Size = tuple[int, int]
LEAST_BAR = 0.015  # of the side


@dataclass(frozen=True, slots=True)
class Facts:
    """One picture. fault: "" or why it cannot be trained on (one of `reading.FAULTS`), problem: the same in words.

    length: of the file, bytes; size: (width, height) px, upright; orientation: of EXIF, 1 is upright; frames: pictures
    in the file; see_through: share of pixels that are not opaque; detail: see `measures.detail`; tones: see
    `measures.tones`; border: px at left, top, right and bottom; small: uint8 [32, 32, 3]; marks: bits [2, 64, 64].
    Nothing is measured where there is a fault.
    """

    fault: str = ""
    problem: str = ""
    sha256: str = ""
    length: int = 0
    format: str = ""
    mode: str = ""
    size: Size = (0, 0)
    orientation: int = 1
    frames: int = 1
    see_through: float = 0.0
    detail: float = 1.0
    tones: tuple[int, ...] = (0, 0, 0, 0, 0)
    border: tuple[int, int, int, int] = (0, 0, 0, 0)
    small: bytes = b""
    marks: bytes = b""

    @property
    def picture(self) -> Pixels:
        """`small` as an array."""
        return np.frombuffer(self.small, np.uint8).reshape(SMALL, SMALL, 3)

    @property
    def edges(self) -> np.ndarray:
        """`marks` as bool [2, 64, 64]."""
        return np.unpackbits(np.frombuffer(self.marks, np.uint8)).reshape(2, MARKS, MARKS).astype(bool)

    @property
    def bars(self) -> tuple[int, int, int, int]:
        """`border` where it is a bar that one sees, else 0."""
        width, height = self.size
        least = [max(2.0, LEAST_BAR * length) for length in (width, height, width, height)]
        left, top, right, bottom = (px if px >= most else 0 for px, most in zip(self.border, least, strict=True))
        return left, top, right, bottom

    @property
    def fine_size(self) -> Size:
        """The size whose pixels the picture's detail would fill."""
        return max(1, round(self.size[0] * self.detail)), max(1, round(self.size[1] * self.detail))

    def to_text(self) -> str:
        kept = asdict(self) | {"small": _as_text(self.small), "marks": _as_text(self.marks)}
        return json.dumps(kept)

    @classmethod
    def from_text(cls, text: str) -> Facts:
        fields = json.loads(text)
        for name in ("size", "tones", "border"):
            fields[name] = tuple(fields[name])
        for name in ("small", "marks"):
            fields[name] = base64.b85decode(fields[name])
        return cls(**fields)


def _as_text(data: bytes) -> str:
    return base64.b85encode(data).decode("ascii")
