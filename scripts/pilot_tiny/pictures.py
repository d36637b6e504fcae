"""Pictures that teach the VAE more than its world: random colours, gradients, textures and small parts.

A VAE trained on eight flat colours paints a pink character white; it must carry what LoRAs bring along.
"""

import math
from random import Random

import numpy as np
import torch
from PIL import Image, ImageDraw

from . import scenes
from .scenes import OVERSAMPLING, SIDE, Colour


def as_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """RGB pictures as one float tensor (n, 3, height, width) in [-1, 1]."""
    stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _colour(random: Random) -> Colour:
    return random.randrange(256), random.randrange(256), random.randrange(256)


def _ground(random: Random) -> Image.Image:
    """A plain colour, a gradient of up to four corner colours, soft blotches, or grain."""
    kind = random.random()
    if kind < 0.7:
        return Image.new("RGB", (SIDE, SIDE), _colour(random))
    cells = 2 if kind < 0.9 else random.choice((3, 4, 8))
    small = np.random.default_rng(random.getrandbits(32)).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    ground = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return Image.blend(ground, Image.new("RGB", ground.size, _colour(random)), random.uniform(0.0, 0.7))


def _small_parts(random: Random, ground: Image.Image) -> Image.Image:
    """Ellipses, boxes, lines and stripes of all sizes and colours, from blobs down to two-pixel dots."""
    large = ground.resize((SIDE * OVERSAMPLING, SIDE * OVERSAMPLING), Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(large)
    edge = SIDE * OVERSAMPLING
    for _ in range(random.randint(1, 6)):
        x, y = random.uniform(0, edge), random.uniform(0, edge)
        rx = OVERSAMPLING * 2 ** random.uniform(0.0, 4.2)
        ry = rx * random.uniform(0.4, 1.6)
        kind = random.randrange(4)
        box = (x - rx, y - ry, x + rx, y + ry)
        if kind == 0:
            pen.ellipse(box, fill=_colour(random))
        elif kind == 1:
            pen.rectangle(box, fill=_colour(random))
        elif kind == 2:
            to = (random.uniform(0, edge), random.uniform(0, edge))
            pen.line((x, y, *to), fill=_colour(random), width=random.randint(4, 20))
        else:
            pen.ellipse(box, fill=_colour(random))
            inner, step = _colour(random), max(2 * OVERSAMPLING, int(ry / 2))
            for stripe in range(int(y - ry / 2), int(y + ry / 2), step):
                pen.rectangle((x - rx * 0.7, stripe, x + rx * 0.7, stripe + step // 2), fill=inner)
            pen.ellipse((x - rx * 0.3, y - ry * 0.3, x + rx * 0.1, y + ry * 0.1), fill=_colour(random))
    return large.reduce(OVERSAMPLING)


def _free_scene(random: Random) -> Image.Image:
    """Shapes as in the world, but in any colours, sizes and places."""
    parts = [
        (
            random.choice(scenes.SHAPES),
            _colour(random),
            random.uniform(4, SIDE - 4),
            random.uniform(4, SIDE - 4),
            random.uniform(3, 22),
        )
        for _ in range(random.randint(1, 5))
    ]
    return scenes.draw_parts(parts, _colour(random))


def _figure(random: Random) -> Image.Image:
    """A body on a plain ground with limbs, dots, nested discs and stripes anywhere on it, in any colours."""
    edge = SIDE * OVERSAMPLING
    large = Image.new("RGB", (edge, edge), _colour(random))
    pen = ImageDraw.Draw(large)
    colours = [_colour(random) for _ in range(3)] + [(20, 20, 20), (250, 250, 250)]
    radius = random.uniform(9, 20) * OVERSAMPLING
    x, y = random.uniform(0.25, 0.75) * edge, random.uniform(0.25, 0.75) * edge

    def disc(dx: float, dy: float, rx: float, ry: float, colour: Colour) -> None:
        pen.ellipse((x + dx - rx, y + dy - ry, x + dx + rx, y + dy + ry), fill=colour)

    for _ in range(random.randint(0, 5)):
        angle, reach = random.uniform(0, 2 * math.pi), radius * random.uniform(1.1, 1.6)
        dx, dy = reach * math.cos(angle), reach * math.sin(angle)
        width = int(OVERSAMPLING * random.uniform(1.2, 4.5))
        pen.line((x, y, x + dx, y + dy), fill=random.choice(colours), width=width)
        if random.random() < 0.7:
            disc(dx, dy, radius * random.uniform(0.12, 0.35), radius * random.uniform(0.1, 0.3), colours[1])
    if random.random() < 0.7:
        disc(0, 0, radius, radius * random.uniform(0.7, 1.2), colours[0])
    else:
        corners = [(x + radius * px, y + radius * py) for px, py in random.choice(list(scenes.OUTLINES.values()))]
        pen.polygon(corners, fill=colours[0])
    for _ in range(random.randint(0, 3)):
        dy, half = random.uniform(-0.8, 0.8) * radius, random.uniform(0.3, 0.9) * radius
        thick = OVERSAMPLING * random.uniform(0.6, 2.5)
        box = (x - half, y + dy - thick, x + half, y + dy + thick)
        pen.rectangle(
            box if random.random() < 0.6 else (box[1] - y + x, box[0] - x + y, box[3] - y + x, box[2] - x + y),
            fill=random.choice(colours),
        )
    for _ in range(random.randint(0, 4)):
        dx, dy = random.uniform(-0.7, 0.7) * radius, random.uniform(-0.7, 0.7) * radius
        size, outer, inner = radius * random.uniform(0.1, 0.4), random.choice(colours), random.choice(colours)
        disc(dx, dy, size, size * random.uniform(0.8, 1.2), outer)
        disc(dx + size * random.uniform(-0.3, 0.3), dy, size * 0.5, size * 0.5, inner)
    return large.reduce(OVERSAMPLING)


def _creature(random: Random) -> Image.Image:
    """A large round or boxy body with dots, stripes, limbs and feelers, anywhere, in any colours: not the demo's."""
    edge = SIDE * OVERSAMPLING
    large = Image.new("RGB", (edge, edge), _colour(random))
    pen = ImageDraw.Draw(large)
    r = OVERSAMPLING * random.uniform(8, 18)
    x, y = random.uniform(r, edge - r), random.uniform(r, edge - r)
    body, dark, light = _colour(random), _colour(random), _colour(random)
    for _ in range(random.randint(0, 5)):  # limbs and feelers, ending in knobs
        angle, reach, knob = random.uniform(0, 6.3), r * random.uniform(1.1, 1.7), r * random.uniform(0.08, 0.25)
        ex, ey = x + reach * float(np.cos(angle)), y + reach * float(np.sin(angle))
        pen.line((x, y, ex, ey), fill=dark, width=int(r * random.uniform(0.08, 0.25)))
        pen.ellipse((ex - knob, ey - knob, ex + knob, ey + knob), fill=random.choice((body, dark)))
    (pen.ellipse if random.random() < 0.7 else pen.rectangle)((x - r, y - r, x + r, y + r), fill=body)
    for _ in range(random.randint(0, 4)):  # stripes
        at, half = y + r * random.uniform(-0.6, 0.7), r * random.uniform(0.04, 0.12)
        pen.rectangle((x - r * 0.7, at - half, x + r * 0.7, at + half), fill=dark)
    for _ in range(random.randint(0, 3)):  # eyes and spots
        ox, oy, eye = r * random.uniform(-0.6, 0.6), r * random.uniform(-0.6, 0.6), r * random.uniform(0.12, 0.35)
        pen.ellipse((x + ox - eye, y + oy - eye, x + ox + eye, y + oy + eye), fill=light)
        pen.ellipse((x + ox - eye / 2, y + oy - eye / 2, x + ox + eye / 2, y + oy + eye / 2), fill=dark)
    return large.reduce(OVERSAMPLING)


def varied(random: Random) -> Image.Image:
    """One picture for the VAE: half of the world's kind in all colours, the rest creatures, gradients, small parts."""
    kind = random.random()
    if kind < 0.25:
        return scenes.draw(scenes.random_scene(random, two_shapes=0.3))
    if kind < 0.45:
        return _free_scene(random)
    if kind < 0.85:
        return _creature(random)
    return _small_parts(random, _ground(random))
