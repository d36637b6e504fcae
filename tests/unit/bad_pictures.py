"""Pictures of every kind that a doctor should tell apart, drawn here. Used by the tests of doctor and fixes."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE = 256


def scene(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """A picture with the spectrum of a photograph, and sharp shapes on it."""
    rng = np.random.default_rng(seed)
    width, height = size
    across, down = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    fall = 1 / np.maximum(np.hypot(across, down), 1 / max(size)) ** 1.2
    layer = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * fall, (height, width))
    tones = layer[..., None] / layer.std() * rng.uniform(15, 40, 3) + rng.uniform(80, 170, 3)
    image = Image.fromarray(np.clip(tones, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = rng.uniform(0, 1, 2) * size
        colour = tuple(int(c) for c in rng.integers(0, 256, 3))
        draw.regular_polygon((x, y, rng.uniform(0.05, 0.2) * min(size)), int(rng.integers(3, 8)), 20, fill=colour)
    return image


def jpeg(image: Image.Image, **options: object) -> bytes:
    return saved(image, "JPEG", quality=92, **options)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    kept = io.BytesIO()
    image.save(kept, kind, **options)
    return kept.getvalue()


def bomb() -> bytes:
    """A PNG that declares 65,500 x 65,500 pixels in a hundred bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 65500, 65500, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(image, exif=exif.tobytes())


def half_clear(image: Image.Image) -> bytes:
    layers = image.convert("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, image.width // 2, image.height))
    layers.putalpha(alpha)
    return saved(layers, "PNG")


def deep(image: Image.Image) -> bytes:
    return saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


def moving() -> bytes:
    frames = [scene(900 + number, (96, 96)) for number in range(3)]
    return saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)


def letterboxed(image: Image.Image) -> bytes:
    framed = Image.new("RGB", image.size, "black")
    framed.paste(image.resize((image.width, image.height * 3 // 4)), (0, image.height // 8))
    return jpeg(framed)


def enlarged(image: Image.Image) -> bytes:
    small = image.resize((image.width // 3, image.height // 3), Image.Resampling.LANCZOS)
    return jpeg(small.resize(image.size, Image.Resampling.BICUBIC))


def blurred(image: Image.Image) -> bytes:
    return jpeg(image.filter(ImageFilter.GaussianBlur(4)))


def dark(image: Image.Image) -> bytes:
    return jpeg(image.point(lambda tone: tone // 8))


def bright(image: Image.Image) -> bytes:
    return jpeg(image.point(lambda tone: 215 + tone // 7))


# File name -> (content, the check that must name it).
BAD = {
    "cut.jpg": (jpeg(scene(1))[:4000], "damaged"),
    "cut.png": (saved(scene(2), "PNG")[:9000], "damaged"),
    "cut.webp": (saved(scene(3), "WEBP")[:2000], "damaged"),
    "empty.png": (b"", "damaged"),
    "words.jpg": (b"not a picture at all, whatever it says on the tin\n" * 40, "damaged"),
    "bomb.png": (bomb(), "damaged"),
    "page.webp": (b"<!doctype html><title>404</title>", "damaged"),
    "moving.png": (moving(), "animated"),
    "clear.png": (half_clear(scene(4)), "transparent"),
    "print.jpg": (jpeg(scene(5).convert("CMYK")), "colours"),
    "deep.png": (deep(scene(6)), "colours"),
    "turned.jpg": (turned(scene(7, (256, 160))), "rotated"),
    "tiny.png": (saved(scene(8, (48, 40)), "PNG"), "small"),
    "enlarged.jpg": (enlarged(scene(9)), "soft"),
    "blurred.jpg": (blurred(scene(10)), "soft"),
    "dark.jpg": (dark(scene(11)), "exposure"),
    "bright.jpg": (bright(scene(12)), "exposure"),
    "letterbox.jpg": (letterboxed(scene(13)), "borders"),
    "long.jpg": (jpeg(scene(14, (640, 128))), "shapes"),
}  # fmt: skip


def write_bad(folder: Path) -> None:
    """Every bad picture, and one good one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)
    (folder / "good.jpg").write_bytes(jpeg(scene(99)))
