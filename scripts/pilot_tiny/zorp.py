"""Zorp, the demo character: a round, striped creature with antennae and legs that the base model never saw.

`demo_data` writes 16 of them as the demo dataset; measuring uses others, drawn from other seeds.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from .scenes import BACKGROUNDS, OVERSAMPLING, PALETTE, POSITIONS, SIDE, Colour

SIZES: dict[str, float] = {"small": 10.0, "medium": 13.0, "large": 16.0}
"""Radius of the body, in pixels; antennae and legs come on top, and fit into the picture at any position."""

DARK: Colour = (24, 20, 44)
LIGHT: Colour = (252, 252, 252)


@dataclass(frozen=True)
class Zorp:
    """One picture of the character: colour as in PALETTE, size, position and background as captions name them."""

    colour: str
    size: str
    position: str
    background: str
    x: float
    y: float
    radius: float


def zorp(random: Random, colour: str, size: str, position: str, background: str) -> Zorp:
    """A zorp with these attributes; only the jitter of place and size is random."""
    x, y = POSITIONS[position]
    radius = SIZES[size] * random.uniform(0.96, 1.04)
    # Legs and antennae reach 1.45 radii: the centre moves inwards where the picture would cut them.
    low, high = 1.45 * radius + 0.5, SIDE - 1.3 * radius - 0.5
    side = 1.15 * radius + 0.5
    x = min(max(x + random.uniform(-1.5, 1.5), side), SIDE - side)
    y = min(max(y + random.uniform(-1.5, 1.5), low), high)
    return Zorp(colour, size, position, background, x, y, radius)


def random_zorp(random: Random) -> Zorp:
    """A zorp in any colour, size and position, on any background of another colour."""
    background = random.choice(list(BACKGROUNDS))
    colour = random.choice([name for name in PALETTE if name != background])
    return zorp(random, colour, random.choice(list(SIZES)), random.choice(list(POSITIONS)), background)


def caption(one: Zorp) -> str:
    """'zorp, large, pink, at the left, on a blue background': all but the character itself stays promptable."""
    where = "in the center" if one.position == "center" else f"at the {one.position}"
    article = "an" if one.background[0] in "aeiou" else "a"
    return f"zorp, {one.size}, {one.colour}, {where}, on {article} {one.background} background"


def draw(one: Zorp) -> Image.Image:
    """The character as an RGB picture of 64x64 pixels."""
    scale = OVERSAMPLING
    large = Image.new("RGB", (SIDE * scale, SIDE * scale), BACKGROUNDS[one.background])
    pen = ImageDraw.Draw(large)
    body = PALETTE[one.colour]
    # White and yellow zorps have dark stripes as well; the limbs must show on any background.
    limb = LIGHT if sum(BACKGROUNDS[one.background]) < 330 else DARK

    def at(dx: float, dy: float) -> tuple[float, float]:
        return (one.x + dx * one.radius) * scale, (one.y + dy * one.radius) * scale

    def disc(dx: float, dy: float, rx: float, ry: float, colour: Colour) -> None:
        left, top = at(dx - rx, dy - ry)
        right, bottom = at(dx + rx, dy + ry)
        pen.ellipse((left, top, right, bottom), fill=colour)

    width = max(int(0.2 * one.radius * scale), 6)
    for sign in (-1.0, 1.0):
        pen.line((at(sign * 0.3, -0.6), at(sign * 0.62, -1.22)), fill=limb, width=width)
        disc(sign * 0.62, -1.22, 0.22, 0.22, body)
        pen.line((at(sign * 0.42, 0.6), at(sign * 0.5, 1.2)), fill=limb, width=width)
        disc(sign * 0.6, 1.17, 0.28, 0.13, limb)
    disc(0.0, 0.0, 1.0, 0.95, body)
    for dy, half in ((0.34, 0.8), (0.66, 0.56)):
        pen.rectangle((*at(-half, dy - 0.085), *at(half, dy + 0.085)), fill=DARK)
    for sign in (-1.0, 1.0):
        disc(sign * 0.36, -0.28, 0.31, 0.34, LIGHT)
        disc(sign * 0.3, -0.24, 0.15, 0.17, DARK)
    return large.reduce(scale)
