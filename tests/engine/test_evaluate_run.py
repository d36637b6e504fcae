"""The evaluation of a whole tiny run: what it writes, that it goes on after a stop, compares, and opens from disk."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tiny_runs
from PIL import Image

from trainpilot import cli
from trainpilot.errors import ExitCode
from trainpilot.evaluate import easel as easels
from trainpilot.evaluate.metrics import metrics
from trainpilot.jobs import evaluate as job_kind
from trainpilot.runs.jobdir import JobDir, jobdirs
from trainpilot.runs.requests import ask
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.taskdir import STARTED_BY

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"
PROTOCOL = """
schema = 1
name = "small"
class = "shape"
seeds = [1, 2]
strengths = [0.5, 1.0]
swept = 1
[sampling]
steps = 1
guidance = 1
size = 64
[models]
clip = ["pilot-tiny-clip"]
"""
PROMPTS = {
    "likeness": "{trigger}, large, red, on a white background",
    "context": "{trigger}, small, blue, at the left, on a black background",
    "style": "{trigger}, large, pink, at the right, on a green background",
    "control": "a large red star at the left on a blue background",
}


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("protocol") / "small.toml"
    lines = [f'[[prompts]]\ngroup = "{group}"\ntext = "{text}"\n' for group, text in PROMPTS.items()]
    path.write_text(PROTOCOL + "\n".join(lines))
    return path


@pytest.fixture(scope="module")
def run() -> RunDir:
    """Three checkpoints of a tiny model that has learned nothing worth the name."""
    place = tiny_runs.workspace("sd15")
    place.models.mkdir(exist_ok=True)
    link = place.models / "pilot-tiny-clip"
    if not link.exists():
        link.symlink_to(TEMPLATE / "models" / "pilot-tiny-clip")
    made = tiny_runs.make("sd15", "training.steps=6", "saving.every_steps=2", "saving.keep=0")
    assert tiny_runs.attempt(made).status == "done"
    return tiny_runs.again(made)


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("PILOT_DEVICE", "cpu")


def evaluated(run: RunDir, protocol: Path, *words: str) -> dict[str, Any]:
    given = ["evaluate", run.name, "--workspace", str(run.workspace.root), "--protocol", str(protocol), *words]
    assert cli.main(given) == ExitCode.DONE
    return json.loads((run.report / "evaluation.json").read_text())


@pytest.fixture(scope="module")
def document(run: RunDir, protocol: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOT_LOCKS", str(tmp_path_factory.mktemp("locks")))
        patch.setenv("PILOT_DEVICE", "cpu")
        held_out = run.workspace.datasets / "images" / "2_zorp"
        return evaluated(run, protocol, "--held-out", str(held_out))


def test_every_cell_has_every_metric_with_its_interval(document: dict[str, Any]) -> None:
    names = {one["name"] for one in document["metrics"]}
    assert names | set(document["left_out"]) == set(metrics())
    assert set(document["left_out"]) == {"likeness_dino", "likeness_face"}
    # Three checkpoints at 1.0, and the one that leads at 0.5.
    assert sorted({(cell["step"], cell["strength"]) for cell in document["cells"] if cell["strength"] == 1.0}) == [
        (2, 1.0),
        (4, 1.0),
        (6, 1.0),
    ]
    assert [cell["strength"] for cell in document["cells"]].count(0.5) == 1
    for cell in document["cells"]:
        assert set(cell["values"]) == names
        for value in cell["values"].values():
            assert math.isfinite(value["mean"]) and value["over"] in ("seeds", "prompts", "nothing")
            assert value["over"] == "nothing" or value["low"] <= value["mean"] <= value["high"]


def test_a_base_is_no_further_than_itself(document: dict[str, Any]) -> None:
    base = document["others"][0]
    assert base["checkpoint"] == "base"
    for metric, expected in (("likeness_clip", 0), ("flexibility", 1), ("leakage", 0), ("adherence_lost", 0)):
        assert base["values"][metric]["mean"] == pytest.approx(expected, abs=1e-3), metric


def test_the_recommendation_is_a_file_with_a_reason(run: RunDir, document: dict[str, Any]) -> None:
    best = document["recommendation"]
    assert Path(best["file"]).is_file() and best["strength"] in (0.5, 1.0) and best["reason"]
    assert best["verdict"] in ("clear", "close", "none", "nothing learned")
    assert len(document["diagnoses"]) == 3 and document["advice"]
    assert document["subject"] == {
        "trigger": "zorp",
        "class_word": "shape",
        "source": "the captions begin with it",
    }


def test_pictures_lie_where_the_document_says(run: RunDir, document: dict[str, Any]) -> None:
    for cell in [*document["cells"], *document["others"]]:
        assert cell["pictures"], cell["checkpoint"]
        for key, place in cell["pictures"].items():
            with Image.open(run.path / place) as image:
                assert image.size == (64, 64)
                assert image.text["seed"] == key.partition("/")[2]  # type: ignore[attr-defined]


def test_an_evaluation_made_again_paints_nothing(run: RunDir, protocol: Path, document: dict[str, Any]) -> None:
    again = evaluated(run, protocol)
    assert document["painted"] > 0 and again["painted"] == 0
    for one, other in zip(document["cells"], again["cells"], strict=True):
        for name, value in other["values"].items():
            assert one["values"][name]["mean"] == pytest.approx(value["mean"], abs=1e-6)


def test_other_files_stand_beside_it(run: RunDir, protocol: Path, document: dict[str, Any]) -> None:
    other = tiny_runs.make("sd15", "training.steps=2", "run.seed=9")
    assert tiny_runs.attempt(other).status == "done"
    found = evaluated(run, protocol, "--against", str(other.result))
    assert [one["checkpoint"] for one in found["others"]] == ["base", other.result.stem]
    against = found["recommendation"]["against"][other.result.stem]
    assert {"likeness_clip", "flexibility"} <= set(against)
    page = (run.report / "evaluation.html").read_text()
    assert "Against other LoRAs" in page and other.result.stem in page


def test_a_stopped_evaluation_goes_on(
    run: RunDir, protocol: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Seeds of their own: nothing of this is in the album.
    own = protocol.with_name("own.toml")
    own.write_text(protocol.read_text().replace("[1, 2]", "[11, 12]"))
    job = JobDir.create(run.workspace, "evaluate", {"run": run.name, "protocol": str(own)})
    batches: list[int] = []
    sample = easels.sample_batch

    def counted(*args: object, **named: object) -> list[Image.Image]:
        batches.append(len(args[2]))  # type: ignore[arg-type]
        if len(batches) == 3:
            ask(job.path, "stop")
        return sample(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(easels, "sample_batch", counted)
    monkeypatch.setattr("trainpilot.runs.requests.GAP", 0.0)
    monkeypatch.setattr("trainpilot.runs.stop.GAP", 0.0)
    assert cli.main(["run", str(job.path)]) == ExitCode.STOPPED
    assert cli.main(["run", str(job.path)]) == ExitCode.DONE
    # Base, three checkpoints and one more strength, 4 prompts x 2 seeds each; the batch of the stop is painted twice.
    assert sum(batches) == (1 + 3 + 1) * 8 + batches[2]


def test_a_run_of_the_worker_is_judged_after_it(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(jobdirs(run.workspace))
    assert "trainpilot evaluate" in job_kind.after(run)
    assert set(jobdirs(run.workspace)) == before
    monkeypatch.setenv(STARTED_BY, "worker")
    said = job_kind.after(run)
    [made] = set(jobdirs(run.workspace)) - before
    assert made.name in said
    job = JobDir.open(made)
    assert job.job is not None and job.job.status == "queued" and job.resource == "gpu"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--protocol", "nowhere"], "nowhere"),
        (["--against", "gone.safetensors"], "gone.safetensors"),
        (["--strengths", "a,b"], "numbers with commas"),
        (["--held-out", "/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_done_is_told(
    run: RunDir, protocol: Path, words: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["evaluate", run.name, "--workspace", str(run.workspace.root), "--protocol", str(protocol), *words]
    assert cli.main(given) == ExitCode.BAD_INPUT
    assert expected in capsys.readouterr().err


def test_the_page_needs_nothing_but_itself(run: RunDir, document: dict[str, Any]) -> None:
    page = (run.report / "evaluation.html").read_text()
    assert "<script" not in page and "$" not in re.sub(r"data:image/\w+;base64,[A-Za-z0-9+/=]+", "", page)
    linked = [address for address in re.findall(r'(?:src|href)="([^"]*)"', page) if address[:1] != "#"]
    assert linked and all(address.startswith("data:image/") for address in linked)
    assert document["advice"].split(";")[0][:40] in page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_opens_from_disk_in_both_themes(
    run: RunDir, document: dict[str, Any], chromium: Browser, theme: Any
) -> None:
    tab = chromium.new_page(color_scheme=theme, viewport={"width": 1280, "height": 900})
    said: list[str] = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("requestfailed", lambda request: said.append(request.url))
    tab.goto((run.report / "evaluation.html").as_uri())
    assert said == []
    assert tab.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.locator("svg.plot").count() == 2
    # The plots take the page's inks, which are light on dark and dark on light.
    ink = tab.evaluate("getComputedStyle(document.querySelector('svg.plot text')).fill")
    shade = sum(int(part) for part in re.findall(r"\d+", ink)[:3]) / 3
    assert (shade > 128) == (theme == "dark"), ink
    tab.close()
