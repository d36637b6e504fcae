"""Datasets made for the tests of the panel: a few real pictures with captions, in a workspace of their own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from PIL import Image

from controlpilot.measuring import measuring
from trainpilot.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[2]


def make_pictures(folder: Path, count: int, size: tuple[int, int] = (96, 64), captions: bool = True) -> list[Path]:
    """`count` different pictures, with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(count):
        path = folder / f"p{number:03d}.png"
        Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number * 11 % 256)).save(path)
        if captions:
            path.with_suffix(".txt").write_text(f"mycat, picture {number}\n")
        made.append(path)
    return made


def with_demo(root: Path) -> Workspace:
    """A workspace as the template makes it: the demo dataset and the small base model (linked, since it is large)."""
    template = PROJECT / "workspace-template"
    for name in ("datasets/images/10_zorp", "models/pilot-tiny"):
        source, target = template / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, copy_function=shutil.copyfile if "datasets" in name else _link)
    for name in ("outputs", "jobs", "logs", "config/profiles", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    settle(root / "datasets")
    return Workspace(root)


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


def settle(folder: Path) -> None:
    """Make files look older than two seconds would make them, or every test would wait for their time stamps."""
    import os

    past = time.time() - 60
    for path in folder.rglob("*"):
        os.utime(path, (past, past))


def measured(workspace: Workspace, folder: Path) -> None:
    """Wait until every picture of a folder is measured and has its thumbnail."""
    work = measuring(workspace)
    work.want(sorted(folder.rglob("*.png")))
    assert work.wait(60)
