"""Reading every picture of a dataset once, several at a time: decoded whole, upright, and measured.

Threads, since Pillow and numpy let go of Python's lock for nearly all of the time (benchmarks/doctor.py compares). The
pixels that may be in memory at once are limited, so that a folder of huge pictures is read one after another. What was
learnt is remembered by the file's size and times (`hashes.Memo`): a second check reads only what has changed.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from trainpilot.datasets.doctor import measures
from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.hashes import Memo, Stamp
from trainpilot.datasets.images import MAX_PIXELS, UNREADABLE, as_rgb, has_alpha, open_undecoded, reason

LARGEST_FILE = 512 << 20  # bytes; 89 Mpx without any compression are half of it
MOST_PIXELS = MAX_PIXELS  # in memory at once, over all threads: about 600 MB with the copies that measuring makes
MAX_THREADS = 8
CHUNK = 256  # pictures after which facts are remembered
MEDIUM = 256  # px: tones, borders and marks are measured on a picture of about twice that at most
KIND = "doctor/1"  # raise it when facts change their meaning
FAULTS = ("empty", "unknown", "truncated", "corrupt", "bomb", "large", "unreadable")
_ORIENTATION = 0x0112

Tell = Callable[[int, int], None]


class _Room:
    """Pixels that may be in memory at once. A picture larger than the whole room waits until it is alone."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._used = 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + pixels <= self.most)
            self._used += pixels
        try:
            yield
        finally:
            with self._changed:
                self._used -= pixels
                self._changed.notify_all()


def read_all(paths: Sequence[Path], memo: Memo, tell: Tell | None = None, *, threads: int | None = None) -> list[Facts]:
    """The facts of each file, in order. tell(done, of) is called now and then; what it raises ends the reading.

    Never raises for what a file holds: `Facts.fault` says why it cannot be used.
    """
    room = _Room(MOST_PIXELS)
    count = threads or min(MAX_THREADS, os.cpu_count() or 1)
    found: list[Facts] = []
    with warnings.catch_warnings(), ThreadPoolExecutor(count, thread_name_prefix="doctor") as pool:
        # Odd metadata is Pillow's to warn of; the pixels decide.
        warnings.simplefilter("ignore")
        for start in range(0, len(paths), CHUNK):
            found += _some(paths[start : start + CHUNK], memo, pool, room, _from(start, len(paths), tell))
    return found


def _from(start: int, of: int, tell: Tell | None) -> Callable[[int], None]:
    def report(done: int) -> None:
        if tell:
            tell(start + done, of)

    return report


def _some(
    paths: Sequence[Path], memo: Memo, pool: ThreadPoolExecutor, room: _Room, tell: Callable[[int], None]
) -> list[Facts]:
    stamps = [_stamp(path) for path in paths]
    present = [stamp for stamp in stamps if isinstance(stamp, Stamp)]
    known = dict(zip((stamp.path for stamp in present), memo.known(KIND, present), strict=True))
    readings = {path: pool.submit(read, path, room) for path in paths if known.get(path, "") is None}
    found, learnt = [], []
    try:
        for done, (path, stamp) in enumerate(zip(paths, stamps, strict=True)):
            tell(done)
            if not isinstance(stamp, Stamp):
                found.append(stamp)
                continue
            text = known[path]
            facts = readings[path].result() if text is None else Facts.from_text(text)
            if text is None and facts.sha256:  # a file that could not be read at all may be readable next time
                learnt.append((stamp, facts.to_text()))
            found.append(facts)
        tell(len(paths))
    finally:
        for reading in readings.values():  # a stop must not wait for pictures that nobody will look at
            reading.cancel()
        memo.remember(KIND, learnt)
    return found


def _stamp(path: Path) -> Stamp | Facts:
    try:
        return Stamp(path)
    except OSError as problem:
        return Facts(fault="unreadable", problem=problem.strerror or str(problem))


def read(path: Path, room: _Room | None = None) -> Facts:
    """Decode one file and measure it. room: shared by the threads of one reading."""
    try:
        length = path.stat().st_size
        if length > LARGEST_FILE:
            return Facts(fault="large", problem=f"has {length / 1e6:.0f} MB, more than any picture", length=length)
        data = path.read_bytes()
    except OSError as problem:
        return Facts(fault="unreadable", problem=problem.strerror or str(problem))
    known = Facts(sha256=hashlib.sha256(data).hexdigest(), length=len(data))
    if not data:
        return _at_fault(known, "empty", "is an empty file")
    try:
        with open_undecoded(io.BytesIO(data)) as image, (room or _Room(MOST_PIXELS)).taken(_pixels(image)):
            return _measured(image, known)
    except UNREADABLE as problem:
        return _at_fault(known, *_fault(problem, data))
    except MemoryError:
        return _at_fault(known, "bomb", "needs more memory than there is")


def _pixels(image: Image.Image) -> int:
    return image.width * image.height


def _at_fault(known: Facts, fault: str, problem: str) -> Facts:
    return Facts(fault=fault, problem=problem, sha256=known.sha256, length=known.length)


def _fault(problem: BaseException, data: bytes) -> tuple[str, str]:
    """The fault, and the same in words."""
    if isinstance(problem, Image.DecompressionBombError):
        return "bomb", f"declares more than the {MAX_PIXELS:,} pixels that are safe to decode"
    if isinstance(problem, Image.UnidentifiedImageError):
        return "unknown", reason(problem)
    # A WebP says how long it is; its decoder only says that it cannot begin.
    promised = int.from_bytes(data[4:8], "little") + 8 if data[:4] == b"RIFF" else 0
    if promised > len(data):
        return "truncated", f"is cut short: {len(data):,} of {promised:,} bytes"
    cut = any(word in str(problem).lower() for word in ("truncated", "not enough", "unexpected end"))
    return ("truncated", f"is cut short: {problem}") if cut else ("corrupt", reason(problem))


def _measured(image: Image.Image, known: Facts) -> Facts:
    frames = int(getattr(image, "n_frames", 1)) if image.format != "MPO" else 1
    mode, name = image.mode, str(image.format)
    image.load()
    orientation = int(image.getexif().get(_ORIENTATION, 1) or 1)
    see_through = _see_through(image) if has_alpha(image) else 0.0
    upright = as_rgb(ImageOps.exif_transpose(image))
    grey = upright.convert("L")
    # Everything but detail is measured on a smaller picture: one pass over the large one instead of five.
    factor = max(1, max(upright.size) // MEDIUM)
    medium = upright.reduce(factor) if factor > 1 else upright
    medium_grey = medium.convert("L")
    left, top, right, bottom = (side * factor for side in measures.borders(np.asarray(medium)))
    return Facts(
        sha256=known.sha256,
        length=known.length,
        format="JPEG" if name == "MPO" else name,
        mode=mode,
        size=upright.size,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        frames=frames,
        see_through=see_through,
        detail=round(measures.detail(np.asarray(grey)), 3),
        tones=measures.tones(np.asarray(medium_grey)),
        border=(left, top, right, bottom),
        small=measures.small_picture(medium).tobytes(),
        marks=np.packbits(measures.marks(medium_grey)).tobytes(),
    )


def _see_through(image: Image.Image) -> float:
    """Share of pixels that are not opaque."""
    counts = image.convert("RGBA").getchannel("A").histogram()
    return round(1 - counts[255] / max(1, sum(counts)), 6)
