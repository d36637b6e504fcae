"""The process that looks at pictures for the panel: measures each once and makes its thumbnail.

`python -m controlpilot.thumbnails CACHE` reads one JSON object a line (`{"path": ...}`) and answers one a line. The
panel itself never decodes a picture: a hostile one can cost this process its life, and nothing else. Memory is
limited here, time by the parent (`controlpilot.measuring`), which goes on with the next picture. What is learnt goes
into the memo that the trainer's scan uses as well, so a dataset that the panel has shown is not read again; the
thumbnail lies in `cache/thumbs/`, named by the picture's content.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from PIL import Image, ImageOps

from controlpilot.measuring import thumbnail_path
from trainpilot.datasets.hashes import Memo, Stamp
from trainpilot.datasets.images import FORMATS, MAX_PIXELS, Inspection, inspect, open_rgb
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import write_beside

SIDE = 320  # px: sharp at 160 CSS px on a phone's screen
# Decoded picture, its upright copy and their RGB: six times 89 Mpx of bytes, and the interpreter.
MEMORY = 2 << 30
SETTLE = 2.1  # seconds until a file's time stamp can be believed (`hashes.SETTLED_NS`)
_UNREADABLE = (OSError, ValueError, SyntaxError, MemoryError, EOFError, KeyError, IndexError, TypeError,
               OverflowError, Image.DecompressionBombError, PilotError)  # fmt: skip


def look_at(path: Path, memo: Memo, cache: Path) -> dict[str, str | None]:
    """Measure one picture and make its thumbnail; what is wrong with it is `problem`. Raises OSError, MemoryError."""
    stamp = Stamp(path)
    if not stamp.settled:
        time.sleep(SETTLE)
        stamp = Stamp(path)
    known = memo.known("inspection", [stamp])[0]
    inspection = Inspection.from_text(known) if known else inspect(path)
    if known is None:
        memo.remember("inspection", [(stamp, inspection.to_text())])
        memo.remember("sha256", [(stamp, inspection.sha256)])
    target = thumbnail_path(cache, inspection.sha256)
    if inspection.problem is None and not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        _write(path, target)
    return {"sha256": inspection.sha256, "problem": inspection.problem}


def _write(path: Path, target: Path) -> None:
    import io

    with Image.open(path, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"has {image.width}x{image.height} px")
        if image.format in ("JPEG", "MPO") and image.mode in ("RGB", "L"):
            image.draft("RGB", (SIDE, SIDE))  # decodes at a fraction of the size, and of the time
            small = ImageOps.exif_transpose(image).convert("RGB")
        else:
            small = open_rgb(path)
    small.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    small.save(data, "WEBP", quality=80, method=2)
    write_beside(target, data.getvalue(), durable=False)


def main() -> int:
    """Answer every line of the input until it ends."""
    cache = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(5)
    with Memo.of(cache) as memo:
        for line in sys.stdin:
            path = Path(json.loads(line)["path"])
            try:
                answer = look_at(path, memo, cache)
            except _UNREADABLE as problem:
                answer = {"sha256": None, "problem": str(problem) or type(problem).__name__}
            print(json.dumps({"path": str(path), **answer}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
