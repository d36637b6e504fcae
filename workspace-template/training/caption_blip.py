#!/usr/bin/env python3
"""Captions for a folder of pictures by BLIP, one text file a picture.

    python caption_blip.py --input_dir ./images --output_dir ./captions [options of `trainpilot caption`]

This is `trainpilot caption`: captions that are there stay (--append and --replace change that), a stopped run goes on
when its job is run again, and `trainpilot captions ./images undo` takes everything back. Look at the captions
afterwards: no model knows what matters to you.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def dataset(pictures: Path, captions: Path) -> Path:
    """The folder that holds both, in a layout that training understands."""
    if captions == pictures:
        return pictures
    if captions == pictures / "captions" or (pictures.name == "images" and captions == pictures.parent / "captions"):
        captions.mkdir(exist_ok=True)
        return pictures
    sys.exit(
        f"--output_dir {captions}: training looks for captions in {pictures}, in {pictures}/captions "
        "or, for a folder named images, in captions/ beside it. Choose one of these."
    )


def main() -> int:
    from trainpilot.cli import main as trainpilot

    parser = argparse.ArgumentParser(description="Captions for a folder of pictures by BLIP", allow_abbrev=False)
    parser.add_argument("--input_dir", type=Path, required=True, help="folder of pictures")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of captions")
    given, options = parser.parse_known_args()
    pictures, captions = given.input_dir.expanduser().resolve(), given.output_dir.expanduser().resolve()
    if not pictures.is_dir():
        sys.exit(f"--input_dir {pictures} is no folder.")
    return trainpilot(["caption", str(dataset(pictures, captions)), "--with", "blip", *options])


if __name__ == "__main__":
    sys.exit(main())
