"""Writes the demo dataset: 16 zorps with captions, in the repeat-folder layout (`10_zorp`: ten repeats)."""

from pathlib import Path
from random import Random

from . import zorp

TRAINED = (
    ("pink", "large", "center", "blue"),
    ("purple", "medium", "left", "yellow"),
    ("green", "large", "right", "white"),
    ("orange", "medium", "top left", "gray"),
    ("pink", "small", "bottom right", "green"),
    ("blue", "large", "left", "orange"),
    ("red", "medium", "top", "white"),
    ("yellow", "large", "center", "purple"),
    ("purple", "small", "top right", "white"),
    ("green", "medium", "bottom left", "pink"),
    ("white", "large", "right", "red"),
    ("blue", "medium", "center", "yellow"),
    ("pink", "medium", "right", "black"),
    ("red", "large", "bottom", "gray"),
    ("orange", "large", "center", "green"),
    ("purple", "large", "bottom", "pink"),
)
"""Colour, size, position, background of each training picture: all of each, no two alike."""


def trained() -> list[zorp.Zorp]:
    """The 16 zorps of the dataset, in file order."""
    return [zorp.zorp(Random(f"trained {k}"), *attributes) for k, attributes in enumerate(TRAINED)]


def held_out(count: int) -> list[zorp.Zorp]:
    """`count` other zorps, none of whose attribute combinations is in the dataset; a prefix of a longer list."""
    found: list[zorp.Zorp] = []
    random = Random("held-out zorps")
    while len(found) < count:
        one = zorp.random_zorp(random)
        if (one.colour, one.size, one.position, one.background) not in TRAINED:
            found.append(one)
    return found


def write(folder: Path) -> None:
    """Writes zorp_01.png, zorp_01.txt and so on into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(trained(), start=1):
        picture = zorp.draw(one)
        picture.save(folder / f"zorp_{number:02d}.png", optimize=True)
        (folder / f"zorp_{number:02d}.txt").write_text(zorp.caption(one) + "\n", encoding="utf-8")
