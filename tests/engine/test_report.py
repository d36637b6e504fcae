"""The report: its pictures are those of the base and of the file at each strength, and it is finished after a stop."""

from __future__ import annotations

import base64
import io
import json
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from miniatures import EVERYTHING, tiny
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from tiny_runs import again, attempt, make

from trainpilot.config.prompts import of_run
from trainpilot.engine.merging import merge
from trainpilot.engine.sampler import encode, sample
from trainpilot.errors import ExitCode
from trainpilot.evaluate.curve import curve, svg, ticks
from trainpilot.evaluate.strengths import MOST_PROMPTS, STRENGTHS, label
from trainpilot.families.protocol import TextOptions
from trainpilot.families.registry import adapter
from trainpilot.formats.load import read
from trainpilot.runs.events import history
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.stop import StopFlag

# A rate at which ten updates of the smallest rank are seen in a picture; full precision, so that a file is exact.
SETTINGS = (
    "training.steps=4",
    "optimizer.learning_rate=0.05",
    "precision.save=fp32",
    "sampling.evaluate_at_end=true",
    "sampling.steps=2",
    'sampling.prompts=["zorp on a <blue> & \\"green\\" hill", "a star --d 5"]',
)
COLUMNS = (None, *STRENGTHS)


class Page(HTMLParser):
    """What a browser would fetch or run, the pictures, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures: list[tuple[str, Image.Image]] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = {name: value or "" for name, value in attrs}
        self.fetched += [given[name] for name in ("src", "href", "srcset", "action") if name in given]
        assert not [name for name in given if name.startswith("on")]
        if tag == "img":
            kind, _, data = given["src"].partition(",")
            assert kind == "data:image/png;base64"
            self.pictures.append((given["alt"], Image.open(io.BytesIO(base64.b64decode(data)))))

    def handle_data(self, data: str) -> None:
        self.text += data


@lru_cache(maxsize=2)
def reported(text_encoder: bool) -> RunDir:
    run = make("sd15", *SETTINGS, *(["text_encoder.train=true"] if text_encoder else []))
    assert attempt(run).status == "done"
    return again(run)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize("text_encoder", [False, True], ids=["denoiser", "text encoder too"])
def test_pictures_are_those_of_the_base_and_of_the_file_at_each_strength(text_encoder: bool) -> None:
    """The reference changes the base's own weights by the result file, W + s (W' - W), with no adapter in the way."""
    run = reported(text_encoder)
    prompts = of_run(run.config)
    summary = json.loads((run.report / "summary.json").read_text())
    family = adapter("sd15")
    seen = []
    for strength in COLUMNS:
        parts = family.load(tiny("sd15"), EVERYTHING, dtype=torch.float32, device="cpu")
        if strength is not None:
            assert merge(family, parts, read(run.result).state, strength) > 0
        for row, prompt, pair in zip(
            summary["prompts"], prompts, encode(family, parts, prompts, TextOptions()), strict=True
        ):
            expected = sample(family, parts, prompt, *pair)
            found = Image.open(run.path / row["pictures"][label(strength)])
            assert found.text["prompt"] == prompt.text and found.text["seed"] == str(prompt.seed)
            assert np.abs(pixels(found) - pixels(expected)).max() <= 2, (strength, prompt.text)
            seen.append(found.tobytes())
    assert len(set(seen)) == len(seen) == len(COLUMNS) * len(prompts), "a strength without an effect proves nothing"


def test_the_page_is_one_file_without_scripts() -> None:
    run = reported(False)
    page = Page((run.report / "index.html").read_text())
    assert [name for name in page.fetched if not name.startswith("data:image/png;base64,")] == []
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    summary = json.loads((run.report / "summary.json").read_text())
    files = [run.path / file for row in summary["prompts"] for file in row["pictures"].values()]
    assert [image.tobytes() for _, image in page.pictures] == [Image.open(file).tobytes() for file in files]
    assert [alt for alt, _ in page.pictures][:2] == [
        'zorp on a <blue> & "green" hill, base model',
        'zorp on a <blue> & "green" hill, strength 0.5',
    ]
    words = " ".join(page.text.split())
    for told in ('zorp on a <blue> & "green" hill', "seed 42", "seed 5", "2 steps", "Verified", "6, with captions 6"):
        assert told in words, told
    assert f"{summary['verified'][0]['keys_matched']} matched, 0 missing, 0 unexpected" in words
    assert "optimizer.learning_rate" in words and "--set" in words
    with Image.open(run.report / "grid.png") as grid:
        assert grid.width > 5 * 160 and grid.height > 2 * 160


def test_the_summary_says_what_was_measured() -> None:
    run = reported(False)
    summary = json.loads((run.report / "summary.json").read_text())
    events = history(run.events.path)
    losses = [event["loss"] for event in events if event["kind"] == "step"]
    assert (summary["steps"], len(losses)) == (4, 4)
    assert min(losses) <= summary["loss"]["last"] <= max(losses) and summary["loss"]["first"] == losses[0]
    assert summary["dataset"]["images"] == 6 and summary["verified"][0]["ok"] is True
    [event] = [event for event in events if event["kind"] == "evaluate"]
    assert run.path / event["file"] == run.report / "index.html"
    assert event["strengths"] == [0.5, 0.8, 1.0, 1.2] and event["prompts"] == 2


class StopAt(StopFlag):
    """Asks for a stop once a folder has so many pictures."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__()
        self.folder, self.count = folder, count

    def poll(self, requests: object = None) -> bool:
        if len(list(self.folder.glob("*.png"))) >= self.count:
            self.set(ExitCode.STOPPED, "stopped by the test")
        return super().poll()

    __call__ = poll


def test_a_stopped_comparison_is_finished_on_resume() -> None:
    run = make("sd15", *SETTINGS)
    folder = run.report / "pictures"
    assert attempt(run, StopAt(folder, 3)).status == "stopped"
    kept = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(kept) == 3 and not (run.report / "index.html").exists()
    # A picture made from other weights does not count, and neither does a damaged one.
    first, second, third = sorted(kept)
    with Image.open(second) as made:
        making = json.loads(made.text["making"])
        other, text = ImageOps.invert(made.convert("RGB")), PngInfo()
    text.add_itxt("making", json.dumps(making | {"weights": "other"}, sort_keys=True))
    other.save(second, pnginfo=text)
    third.write_bytes(third.read_bytes()[:60])
    run = again(run)
    assert attempt(run).status == "done"
    assert first.stat().st_mtime_ns == kept[first]
    whole = reported(False)
    for file in folder.iterdir():
        with Image.open(file) as found, Image.open(whole.report / "pictures" / file.name) as expected:
            assert found.tobytes() == expected.tobytes(), file.name
    assert len(Page((run.report / "index.html").read_text()).pictures) == 10


def test_no_report_where_none_is_wanted() -> None:
    run = make("sd15", "training.steps=1", "sampling.evaluate_at_end=false")
    assert attempt(run).status == "done" and not run.report.exists()


def test_at_most_four_prompts_are_compared() -> None:
    run = make("sd15", *SETTINGS[:-1], "training.steps=1", 'sampling.prompts=["a", "b", "c", "d", "e"]')
    assert attempt(run).status == "done"
    assert len(list((run.report / "pictures").iterdir())) == MOST_PROMPTS * len(COLUMNS)


# --- the loss curve ---------------------------------------------------------------------------------------------------


def test_the_smoothed_loss_is_the_unbiased_exponential_mean() -> None:
    losses = [3.0, 1.0, 2.0, 5.0, 4.0]
    found = curve(list(enumerate(losses, 1)))
    # With fewer than 20 steps told, half of each mean is its newest value: weights 1/2, 1/4, 1/8 ..., normalised.
    expected = [
        sum(losses[i] * 0.5 ** (n - i) for i in range(n + 1)) / sum(0.5**i for i in range(n + 1)) for n in range(5)
    ]
    assert [value for _, value in found.smooth] == pytest.approx(expected)
    assert found.raw == list(enumerate(losses, 1))


def test_a_long_run_is_drawn_with_few_points() -> None:
    found = curve([(step, 1.0 + step % 2) for step in range(1, 10_001)])
    assert len(found.raw) <= 360 and found.window == 28
    assert [value for _, value in found.raw] == pytest.approx([1.5] * len(found.raw))
    assert found.raw[-1][0] == 10_000
    assert len(svg(found)) < 40_000


@pytest.mark.parametrize("points", [[], [(1, float("nan"))]])
def test_no_losses_no_curve(points: list[tuple[float, float]]) -> None:
    assert curve(points) is None


@pytest.mark.parametrize("losses", [[1.0], [0.5, 0.5], [0.0, 0.0], [2.0, float("nan"), 1.0], [-1.0, 1e9]])
def test_every_curve_stays_inside_its_frame(losses: list[float]) -> None:
    drawn = svg(curve(list(enumerate(losses, 1))))
    assert "nan" not in drawn and "inf" not in drawn
    for path in drawn.split(' d="')[1:]:
        numbers = [
            float(word)
            for word in path.partition('"')[0].replace("M", " ").replace("L", " ").split()
            if "H" not in word
        ]
        assert all(-600 <= number <= 1500 for number in numbers)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 7
    assert all(low - 1e-6 * span <= value <= high + 1e-6 * span for value in found)
