"""The world that pilot-tiny knows: one or two flat shapes on a plain background, 64x64, and their captions.

A Scene is a value: drawing it twice gives the same picture, so every picture is a function of its seed.
Used by every training stage, by `measure` (the same outlines serve as templates) and by the tests.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from random import Random

from PIL import Image, ImageDraw

SIDE = 64
"""Width and height of a picture, in pixels."""

OVERSAMPLING = 4
"""Pictures are drawn this many times larger and averaged down, which gives smooth edges."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

PALETTE: dict[str, Colour] = {
    "red": (216, 36, 40),
    "orange": (250, 140, 20),
    "yellow": (252, 224, 60),
    "green": (36, 156, 70),
    "blue": (40, 84, 220),
    "purple": (124, 48, 168),
    "pink": (252, 148, 196),
    "white": (248, 248, 248),
}
"""The eight colours of shapes, by the name captions use."""

BACKGROUNDS: dict[str, Colour] = PALETTE | {"black": (16, 16, 20), "gray": (128, 128, 128)}

SIZES: dict[str, float] = {"small": 7.0, "medium": 11.0, "large": 16.0}
"""Radius of each size, in pixels."""

POSITIONS: dict[str, Point] = {
    "left": (18.0, 32.0),
    "right": (46.0, 32.0),
    "top": (32.0, 18.0),
    "bottom": (32.0, 46.0),
    "center": (32.0, 32.0),
    "top left": (18.0, 18.0),
    "top right": (46.0, 18.0),
    "bottom left": (18.0, 46.0),
    "bottom right": (46.0, 46.0),
}
"""Where a shape's centre lies, in pixels from the top left corner."""

JITTER = 1.5
"""A shape's centre is drawn up to this many pixels away from its position, each way."""

PAIRS = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"))
"""Positions of two shapes in one scene; two shapes never overlap."""


def _ngon(corners: int, radius: float = 1.0, first: float = -90.0) -> list[Point]:
    angles = [math.radians(first + 360.0 * k / corners) for k in range(corners)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[Point]:
    outer, inner = _ngon(5, 1.2), _ngon(5, 0.5, first=-54.0)
    return [point for pair in zip(outer, inner, strict=True) for point in pair]


def _heart() -> list[Point]:
    # The usual parametric heart, scaled from its 32 x 29 units to about the size of the other shapes.
    points = []
    for k in range(40):
        t = 2 * math.pi * k / 40
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 15.0, -(y + 2.0) / 15.0))
    return points


def _cross() -> list[Point]:
    arm, half = 1.05, 0.34
    quarter = [(-half, -arm), (half, -arm), (half, -half)]
    turned = []
    for _ in range(4):
        turned += quarter
        quarter = [(-y, x) for x, y in quarter]
    return turned


OUTLINES: dict[str, list[Point]] = {
    "circle": _ngon(48),
    "square": _ngon(4, 0.9 * math.sqrt(2), first=-45.0),
    "triangle": _ngon(3, 1.25),
    "star": _star(),
    "heart": _heart(),
    "diamond": [(0.0, -1.25), (0.85, 0.0), (0.0, 1.25), (-0.85, 0.0)],
    "cross": _cross(),
    "ring": _ngon(48, 1.05),
}
"""Each shape's outline around (0, 0), in radii, y downwards."""

RING_HOLE = 0.55
"""Radius of a ring's hole, in radii."""

SHAPES = tuple(OUTLINES)


@dataclass(frozen=True)
class Part:
    """One shape of a scene: its attributes as captions name them, and where exactly it is drawn (pixels)."""

    shape: str
    colour: str
    size: str
    position: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """One or two parts on a plain background, named as in BACKGROUNDS."""

    parts: tuple[Part, ...]
    background: str


def place(random: Random, shape: str, colour: str, size: str, position: str) -> Part:
    """A part with these attributes; only the jitter of its centre and radius is random."""
    x, y = POSITIONS[position]
    return Part(
        shape,
        colour,
        size,
        position,
        x + random.uniform(-JITTER, JITTER),
        y + random.uniform(-JITTER, JITTER),
        SIZES[size] * random.uniform(0.94, 1.06),
    )


def random_part(random: Random, background: str, position: str | None = None, largest: int = 3) -> Part:
    """A random part that is visible on `background`; `largest` limits the choice of SIZES from the small end."""
    return place(
        random,
        random.choice(SHAPES),
        random.choice([name for name in PALETTE if name != background]),
        random.choice(list(SIZES)[:largest]),
        position or random.choice(list(POSITIONS)),
    )


def random_scene(random: Random, two_shapes: float = 0.12) -> Scene:
    """A random scene; with probability `two_shapes` it has two shapes, side by side or one above the other."""
    background = random.choice(list(BACKGROUNDS))
    if random.random() >= two_shapes:
        return Scene((random_part(random, background),), background)
    first, second = random.choice(PAIRS)
    return Scene((random_part(random, background, first, 2), random_part(random, background, second, 2)), background)


def other_shape(scene: Scene, random: Random) -> Scene:
    """The scene with another shape in its first part's place, the rest to the pixel the same."""
    part = scene.parts[0]
    shape = random.choice([name for name in SHAPES if name != part.shape])
    return replace(scene, parts=(replace(part, shape=shape), *scene.parts[1:]))


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of 64x64 pixels."""
    return draw_parts(
        [(part.shape, PALETTE[part.colour], part.x, part.y, part.radius) for part in scene.parts],
        BACKGROUNDS[scene.background],
    )


def draw_parts(parts: list[tuple[str, Colour, float, float, float]], background: Colour) -> Image.Image:
    """Shapes given as (shape, RGB, x, y, radius in pixels) on a background of any colour, 64x64 RGB."""
    large = Image.new("RGB", (SIDE * OVERSAMPLING, SIDE * OVERSAMPLING), background)
    pen = ImageDraw.Draw(large)
    for shape, colour, x, y, radius in parts:
        pen.polygon(_outline(OUTLINES[shape], x, y, radius), fill=colour)
        if shape == "ring":
            pen.polygon(_outline(OUTLINES["circle"], x, y, radius * RING_HOLE), fill=background)
    return large.reduce(OVERSAMPLING)


def _outline(points: list[Point], x: float, y: float, radius: float) -> list[Point]:
    return [(OVERSAMPLING * (x + radius * px), OVERSAMPLING * (y + radius * py)) for px, py in points]


@cache
def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _where(position: str, random: Random) -> str:
    if position == "center":
        return random.choice(("in the center", "at the center", "in the middle"))
    return random.choice(("at the ", "on the ", "in the ", "at the ")) + position


def full_caption(scene: Scene) -> str:
    """The one caption that names every attribute: 'a large red star at the left on a blue background'."""
    parts = [
        f"a {part.size} {part.colour} {part.shape} "
        + ("in the center" if part.position == "center" else f"at the {part.position}")
        for part in scene.parts
    ]
    return f"{' and '.join(parts)} on {_article(scene.background)} {scene.background} background"


def caption(scene: Scene, random: Random, empty: float = 0.1) -> str:
    """A random wording of the scene; attributes may be left out, and with probability `empty` all of them."""
    if random.random() < empty:
        return ""
    if random.random() < 0.3:
        return full_caption(scene)
    ground = scene.background
    with_ground = random.random() < 0.75
    if len(scene.parts) == 2:
        return _two(scene, random, with_ground)
    part = scene.parts[0]
    size = part.size if random.random() < 0.65 else ""
    colour = part.colour if random.random() < 0.85 else ""
    where = _where(part.position, random) if random.random() < 0.7 else ""
    shape = part.shape if random.random() < 0.95 else random.choice(("shape", "thing"))
    thing = " ".join(word for word in (size, colour, shape) if word)
    wording = random.randrange(6)
    if wording == 0:  # the order in which the demo captions name a character
        marks = [shape, size, colour, where, f"on {_article(ground)} {ground} background" if with_ground else ""]
        return ", ".join(mark for mark in marks if mark)
    if wording == 1:
        marks = [thing, where.split(" ", 2)[-1], f"{ground} background" if with_ground else ""]
        return ", ".join(mark for mark in marks if mark)
    if wording == 2 and with_ground:
        return " ".join(filter(None, (_article(ground), ground, "background with", _article(thing), thing, where)))
    opening = random.choice(("a picture of ", "a drawing of ", "")) if wording == 3 else ""
    article = "the" if wording == 4 else _article(thing)
    sentence = " ".join(filter(None, (opening + article, thing, where)))
    if not with_ground:
        return sentence
    short = wording == 5 and not where
    return f"{sentence} on {ground}" if short else f"{sentence} on {_article(ground)} {ground} background"


def _two(scene: Scene, random: Random, with_ground: bool) -> str:
    things = []
    for part in scene.parts:
        size = f"{part.size} " if random.random() < 0.5 else ""
        where = f" {_where(part.position, random)}" if random.random() < 0.8 else ""
        things.append(f"{_article(size or part.colour)} {size}{part.colour} {part.shape}{where}")
    ending = f" on {_article(scene.background)} {scene.background} background" if with_ground else ""
    return random.choice((" and ", ", ")).join(things) + ending


SYLLABLES = ("ba", "do", "fi", "gu", "ka", "lo", "mi", "nu", "pe", "qua", "ri", "sho", "ti", "vu", "wex", "yo", "za")
ADJECTIVES = ("cute", "nice", "simple", "bright", "flat", "little", "happy", "beautiful", "detailed", "clean", "bold")


def with_filler(text: str, random: Random) -> str:
    """The caption with one word that says nothing, somewhere: the model learns to carry unknown words calmly."""
    if random.random() < 0.5:
        filler = random.choice(ADJECTIVES)
    else:
        letters = "".join(random.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(random.randint(1, 3)))
        filler = "".join(random.sample((*random.sample(SYLLABLES, random.randint(0, 2)), letters), k=1)) + letters
    words = text.split(" ")
    words.insert(random.randint(0, len(words)), filler)
    return " ".join(words)
