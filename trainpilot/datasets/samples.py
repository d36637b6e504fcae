"""One picture of a run, as the table lists it and as the engine reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture. Sizes are (width, height); size is upright (after EXIF); crop is (left, top) of the centre crop.

    repeats: times it is seen an epoch; dataset: index into config.datasets; caption: as written, all lines;
    folder: relative to the dataset; told_crop: what sd-scripts tells SDXL about the crop, with the kohya algorithm.
    """

    index: int
    image: Path
    size: Size
    bucket: Size
    resized: Size
    crop: tuple[int, int]
    dataset: int
    repeats: int
    caption: str
    regularization: bool = False
    mask: Path | None = None
    folder: str = ""
    sha256: str = ""
    mask_sha256: str = ""
    told_crop: tuple[float, float, float, float] | None = None

    @property
    def crop_room(self) -> tuple[int, int]:
        """How far (left, top) of a crop may go: a random crop draws each from 0 to this, inclusive."""
        return self.resized[0] - self.bucket[0], self.resized[1] - self.bucket[1]

    def size_conditioning(
        self, crop_xy: tuple[int, int] | None = None, flip: bool = False
    ) -> tuple[Size, tuple[float, float], Size]:
        """What SDXL is told: original (height, width), crop (top, left), target (height, width).

        The crop is the one made, in pixels of the scaled picture, counted from the mirrored picture's left edge when
        flipped (SDXL paper, section 2.2). With the kohya algorithm it is sd-scripts' own figure instead.
        """
        original, target = (self.size[1], self.size[0]), (self.bucket[1], self.bucket[0])
        if self.told_crop is not None:
            left, top, right, _ = self.told_crop
            return original, (top, self.bucket[0] - right if flip else left), target
        across, down = self.crop if crop_xy is None else crop_xy
        return original, (float(down), float(self.crop_room[0] - across if flip else across)), target
