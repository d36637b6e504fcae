"""JPEGs damaged in the middle: the scan and the engine judge each alike, so that none of them ends a run.

libjpeg makes up for much of such damage and draws grey or garbage instead; whether a picture looks right is a question
for the doctor. What it cannot decode, though, has to be found by the scan, although that decodes at an eighth.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainpilot.config.schema import RunConfig
from trainpilot.datasets.images import inspect, open_rgb, prepare
from trainpilot.datasets.table import build
from trainpilot.errors import PilotError, Problems
from trainpilot.workspace import Workspace

DAMAGES = ("zeros", "noise", "end", "cut", "marker")


def draw(path: Path, number: int) -> Path:
    """A smooth picture of some size, every other one progressive."""
    rng = np.random.default_rng(number)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    width, height = (int(side) for side in rng.integers(64, 300, 2))
    small.resize((width, height), Image.Resampling.BICUBIC).save(path, "JPEG", progressive=number % 2 == 1)
    return path


def damage(path: Path, kind: str, number: int) -> Path:
    rng = np.random.default_rng(number)
    data = bytearray(path.read_bytes())
    at = int(rng.integers(len(data) // 4, 3 * len(data) // 4))
    if kind == "zeros":
        data[at : at + 64] = bytes(64)
    elif kind == "noise":
        data[at : at + 64] = rng.integers(0, 256, 64, dtype=np.uint8).tobytes()
    elif kind == "end":
        data[at : at + 2] = b"\xff\xd9"
    elif kind == "cut":
        del data[at : at + 100]
    else:
        data[at : at + 2] = bytes([0xFF, rng.integers(0xC0, 0xFF)])
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_passes_the_scan_decodes_and_what_does_not_is_refused(tmp_path: Path, kind: str) -> None:
    verdicts = set()
    for number in range(40):
        path = damage(draw(tmp_path / f"{number}.jpg", number), kind, number)
        found = inspect(path)
        if found.problem is None:
            assert open_rgb(path).size == found.size
        else:
            with pytest.raises(PilotError, match=f"{number}.jpg"):
                open_rgb(path)
        verdicts.add(found.problem is None)
    assert True in verdicts  # libjpeg did make up for some


def test_one_that_cannot_be_decoded_is_named_and_skipped_or_refused_under_strict(tmp_path: Path) -> None:
    folder = tmp_path / "ws" / "datasets" / "images" / "1_zorp"
    folder.mkdir(parents=True)
    draw(folder / "whole.jpg", 1)
    candidates = (damage(draw(tmp_path / f"{number}.jpg", number), "marker", number) for number in range(40))
    broken = next(path for path in candidates if inspect(path).problem is not None)
    broken.rename(folder / "broken.jpg")
    place = Workspace(tmp_path / "ws")

    def config(**dataset: bool) -> RunConfig:
        buckets = {"resolution": 64, "step": 16, "min_side": 32, "max_side": 128}
        return RunConfig.model_validate({"datasets": [{"path": str(folder), **dataset}], "buckets": buckets})

    table = build(config(), place)
    assert [sample.image.name for sample in table.samples] == ["whole.jpg"]
    assert any("broken.jpg" in note and note.endswith(": skipped") for note in table.notes)
    with pytest.raises((PilotError, Problems), match=r"broken\.jpg.*datasets\.strict"):
        build(config(strict=True), place)

    # One that breaks after the scan ends the run by its name: the plan counts on it.
    [sample] = table.samples
    draw(sample.image, 1).write_bytes(b"\xff\xd8\xff" + bytes(200))
    with pytest.raises(PilotError, match=r"whole\.jpg.*Replace the file"):
        prepare(sample)
