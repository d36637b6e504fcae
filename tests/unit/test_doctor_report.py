"""The doctor's answer: text, JSON, page, command and job agree; the score is the sum that is shown."""

import html.parser
import json
import re
import shutil
from pathlib import Path

import pytest
from bad_pictures import write_bad

from trainpilot.cli import main
from trainpilot.errors import ExitCode
from trainpilot.runs.jobdir import JobDir
from trainpilot.runs.progress import Progress
from trainpilot.runs.stop import StopFlag, StopRequested
from trainpilot.workspace import Workspace

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.delenv("PILOT_CACHE", raising=False)
    root = tmp_path / "workspace"
    (root / "models").mkdir(parents=True)
    (root / "models" / "pilot-tiny").symlink_to(TEMPLATE / "models" / "pilot-tiny")
    shutil.copytree(TEMPLATE / "datasets" / "images" / "10_zorp", root / "datasets" / "images" / "10_zorp")
    write_bad(root / "datasets" / "images" / "bad")
    (root / "datasets" / "images" / "bad" / "good.txt").write_text("<script>alert(1)</script>, a hill")
    return Workspace(root)


def check(workspace, capsys, *words: str) -> str:
    assert main(["dataset", "check", *words, "--workspace", str(workspace.root)]) == 0
    return capsys.readouterr().out


def test_the_demo_dataset_is_in_order(workspace, capsys):
    shown = json.loads(check(workspace, capsys, "10_zorp", "--type", "object", "--base-model", "pilot-tiny", "--json"))
    assert [one["title"] for one in shown["findings"] if one["level"] != "note"] == []
    assert shown["score"]["value"] == 100
    assert shown["question"]["triggers"] == ["zorp"] and shown["question"]["resolution"] == [64, 64]
    (tokens,) = shown["captions"]["tokens"]
    assert 10 < tokens["longest"] <= tokens["limit"]


def test_the_score_is_the_sum_that_is_shown(workspace, capsys):
    shown = json.loads(check(workspace, capsys, "bad", "--json"))
    begin, *costs, end = shown["score"]["sum"]
    assert begin.startswith("100") and end == f"= {shown['score']['value']}"
    taken = [float(re.match(r"- ([\d.]+) = ", line)[1]) for line in costs]
    assert round(max(0, 100 - sum(taken))) == shown["score"]["value"]
    assert sorted(taken) == sorted(one["points"] for one in shown["findings"] if one["points"])
    for line in costs:
        points, most, some, of = re.match(r"- ([\d.]+) = ([\d.]+)(?: x (\d+)/(\d+))?", line).groups()
        assert float(points) == pytest.approx(float(most) * (int(some) / int(of) if of else 1), abs=0.051)


def test_json_has_the_announced_shape(workspace, capsys):
    shown = json.loads(check(workspace, capsys, "bad", "--json"))
    assert shown["schema"] == 1
    assert set(shown) == {"schema", "made", "seconds", "dataset", "question", "score", "findings", "passed", "buckets",
                          "sizes", "captions"}  # fmt: skip
    for one in shown["findings"]:
        assert set(one) == {"check", "level", "title", "why", "files", "groups", "of", "points", "fix"}
        assert all((Path(shown["dataset"]["path"]) / place["file"]).is_file() for place in one["files"])
        if one["fix"]:
            assert set(one["fix"]) == {"text", "kind", "options", "command"}
    assert sum(row["images"] for row in shown["buckets"]) == shown["dataset"]["usable"]


def test_every_command_that_is_offered_can_be_run(workspace, capsys):
    import shlex

    shown = json.loads(check(workspace, capsys, "bad", "--json"))
    offered = [one["fix"]["command"] for one in shown["findings"] if one["fix"] and one["fix"]["command"]]
    assert len(set(offered)) >= 4
    for command in set(offered):
        program, *words = shlex.split(command)
        assert program == "trainpilot"
        assert main([*words, "--dry-run", "--workspace", str(workspace.root)]) == 0
        assert "nothing to mend" not in capsys.readouterr().out


def test_the_text_names_everything_and_is_plain(workspace, capsys):
    text, shown = check(workspace, capsys, "bad", "--all"), json.loads(check(workspace, capsys, "bad", "--json"))
    assert "\x1b" not in text
    for one in shown["findings"]:
        assert one["title"] in text and one["why"] in text
        assert all(place["file"] in text for place in one["files"])
    assert f"score {shown['score']['value']} of 100" in text


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_one_file_with_pictures_and_nothing_from_elsewhere(workspace, capsys, tmp_path):
    target = tmp_path / "report.html"
    check(workspace, capsys, "bad", "--html", str(target))
    page = _Page()
    page.feed(target.read_text())
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) > 5 and all(source.startswith("data:image/webp;base64,") for source in pictures)
    assert not [tag for tag, attributes in page.tags if tag in ("script", "link", "iframe") or "onclick" in attributes]
    assert "://" not in target.read_text()
    assert "prefers-color-scheme: dark" in target.read_text()


def test_a_name_cannot_write_into_the_page(workspace, capsys, tmp_path):
    folder = workspace.datasets / "images" / "<b>bold<b>"
    folder.mkdir()
    (folder / "<img src=x onerror=alert(1)>.png").write_bytes(b"")
    shutil.copy(next((workspace.datasets / "images" / "10_zorp").glob("*.png")), folder)
    check(workspace, capsys, str(folder), "--html", str(tmp_path / "report.html"))
    page = _Page()
    page.feed((tmp_path / "report.html").read_text())
    assert not [attributes for tag, attributes in page.tags if "onerror" in attributes or (tag == "b" and attributes)]
    assert "<b>bold<b>" not in (tmp_path / "report.html").read_text()


def test_strict_is_an_exit_code(workspace, capsys):
    for name, code in (("bad", 2), ("10_zorp", 0)):
        assert main(["dataset", "check", name, "--strict", "--workspace", str(workspace.root)]) == code
        capsys.readouterr()


def test_unknown_things_are_errors_with_a_remedy(workspace, capsys):
    for words in (["nowhere"], ["bad", "--family", "nofamily"], ["bad", "--base-model", "nomodel"]):
        assert main(["dataset", "check", *words, "--json", "--workspace", str(workspace.root)]) == ExitCode.BAD_INPUT
        assert json.loads(capsys.readouterr().out)["error"]["remedy"]


def test_a_family_without_a_model_says_that_tokens_are_not_counted(workspace, capsys):
    shown = json.loads(check(workspace, capsys, "10_zorp", "--family", "sdxl", "--json"))
    assert shown["question"]["resolution"] == [1024, 1024] and "no model of" in shown["question"]["tokens"]


# --- as a job ---------------------------------------------------------------------------------------------------------


def test_the_job_leaves_the_report_in_its_folder(workspace, capsys):
    job = JobDir.create(workspace, "dataset-check", {"path": "bad", "type": "face"})
    assert main(["run", str(job.path)]) == 0
    capsys.readouterr()
    shown = json.loads((job.path / "report.json").read_text())
    assert shown["question"]["type"] == "face" and shown["dataset"]["name"] == "bad"
    assert "<!doctype html>" in (job.path / "report.html").read_text()


def test_the_job_stops_when_asked(workspace):
    job = JobDir.create(workspace, "dataset-check", {"path": "bad"})
    stop = StopFlag()
    stop.set(ExitCode.STOPPED, "asked")
    with pytest.raises(StopRequested):
        job.kind.run(job, job.params, Progress(), stop)
    assert not (job.path / "report.json").exists()


def test_a_finding_can_be_mended_as_a_job(workspace, capsys):
    shown = json.loads(check(workspace, capsys, "bad", "--json"))
    fix = next(one["fix"] for one in shown["findings"] if one["check"] == "damaged")
    job = JobDir.create(workspace, "dataset-fix", {"path": "bad", "kind": fix["kind"], "options": fix["options"]})
    assert main(["run", str(job.path)]) == 0
    capsys.readouterr()
    assert json.loads((job.path / "fixed.json").read_text())["taken"] == 7
    after = json.loads(check(workspace, capsys, "bad", "--json"))
    assert not [one for one in after["findings"] if one["level"] == "error"]
