"""The captions page of a dataset and its API: previews, edits, undo, sets, and captioners as jobs."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
from picture_folders import make_pictures, settle

from trainpilot import captioners
from trainpilot.datasets import caption_edits, caption_files
from trainpilot.runs.jobdir import JobDir, jobdirs

URL = "/datasets/10_mycat/captions"
API = "/api/v1/datasets/10_mycat/caption-tools"


@pytest.fixture
def place(panel, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    make_pictures(panel.workspace.datasets / "images" / "10_mycat", 4)
    settle(panel.workspace.datasets)
    return panel


def folder(place) -> Path:
    return place.workspace.datasets / "images" / "10_mycat"


def texts(place) -> list[str]:
    return list(caption_files.read(folder(place)).texts.values())


def hidden(text: str, form: str) -> dict[str, str]:
    """The hidden fields of the form that leads to `form`."""
    part = re.search(rf'<form[^>]*action="[^"]*{form}".*?</form>', text, re.DOTALL)[0]
    return {
        html.unescape(name): html.unescape(value)
        for name, value in re.findall(r'type="hidden" name="([^"]*)" value="([^"]*)"', part)
    }


def model_here(place, name: str = "wd14") -> str:
    """An (empty) model where a published one would lie: enough for a page, which opens none."""
    captioner = captioners.find(name)
    model = captioner.MODELS[0]
    for file, *_ in captioner.NEEDS:
        path = place.workspace.models / "captioners" / model.name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return model.name


def test_every_operation_and_captioner_has_its_fields_on_the_page(place):
    assert 'href="/datasets/10_mycat/captions"' in place.client.get("/datasets/10_mycat").text
    for name, operation in caption_edits.operations().items():
        text = place.client.get(f"{URL}?do={name}").text
        for field, info in operation.Params.model_fields.items():
            assert f'name="{info.alias or field}"' in text
    for name, captioner in captioners.captioners().items():
        text = place.client.get(f"{URL}?captioner={name}").text
        assert all(f'name="option-{field}"' in text for field in captioner.Options.model_fields)
        assert all(model.label in text and "not here yet" in text for model in captioner.MODELS)


def test_an_edit_is_previewed_made_and_undone(place):
    before = texts(place)
    seen = place.client.post(f"{URL}/preview", data={"do": "replace", "find": "mycat", "with": "<b>zorp</b>"})
    assert seen.status_code == 200 and texts(place) == before
    assert "<ins" in seen.text and "&lt;b&gt;zorp" in seen.text and "<b>zorp" not in seen.text
    form = hidden(seen.text, f"{URL}/edit")
    assert form["find"] == "mycat" and form["seen"]
    made = place.client.post(f"{URL}/edit", data=form)
    assert made.status_code == 303
    assert texts(place) == [text.replace("mycat", "<b>zorp</b>") for text in before]
    assert "4 files written" in place.client.get(made.headers["Location"]).text
    assert place.client.post(f"{URL}/undo").status_code == 303
    assert texts(place) == before
    assert place.client.post(f"{URL}/redo").status_code == 303
    assert texts(place) != before


def test_what_is_not_what_was_seen_is_refused(place):
    form = {"do": "suffix", "text": "x"}
    agreed = hidden(place.client.post(f"{URL}/preview", data=form).text, f"{URL}/edit")
    (folder(place) / "p001.txt").write_text("mine")
    answer = place.client.post(f"{URL}/edit", data=agreed)
    assert answer.status_code == 409 and "changed since the preview" in answer.text
    assert texts(place)[1] == "mine" and ", x" not in texts(place)[0]


def test_an_undo_over_an_own_change_asks_first(place):
    place.client.post(f"{URL}/edit", data={"do": "suffix", "text": "x"})
    (folder(place) / "p001.txt").write_text("mine")
    answer = place.client.post(f"{URL}/undo")
    assert answer.status_code == 400 and "leave those files as they are" in answer.text
    assert place.client.post(f"{URL}/undo", data=hidden(answer.text, f"{URL}/undo")).status_code == 303
    assert texts(place) == ["mycat, picture 0", "mine", "mycat, picture 2", "mycat, picture 3"]


def test_ticked_tags_are_pruned_and_sets_come_back(place):
    before = texts(place)
    assert place.client.post(f"{URL}/keep", data={"set": "long"}).status_code == 303
    ticked = {"do": "prune", "tags": ["mycat", "picture 2"]}
    form = hidden(place.client.post(f"{URL}/preview", data=ticked).text, f"{URL}/edit")
    place.client.post(f"{URL}/edit", data={**form, "tags": ticked["tags"]})
    assert texts(place) == ["picture 0", "picture 1", "", "picture 3"]
    place.client.post(f"{URL}/edit", data={"do": "use", "sets": "long"})
    assert texts(place) == before
    assert place.client.post(f"{URL}/keep", data={"set": "../x"}).status_code == 400


@pytest.mark.parametrize(
    "form",
    [
        {"do": "replace", "find": "(", "pattern": "1"},
        {"do": "add-trigger", "word": ""},
        {"do": "nothing"},
        {"do": "use"},
    ],
)
def test_a_wrong_edit_comes_back_with_the_reason(place, form):
    before = texts(place)
    answer = place.client.post(f"{URL}/preview", data=form)
    assert answer.status_code == 400 and "Allowed:" in answer.text
    assert texts(place) == before


def test_a_captioner_is_a_job_with_the_forms_values(place):
    form = {
        "captioner": "wd14",
        "trigger": "mycat",
        "mode": "append",
        "option-general": "0.5",
        "option-exclude": "a, b",
    }
    missing = place.client.post(f"{URL}/write", data=form)
    assert missing.status_code == 409 and "not on disk" in missing.text
    form["model"] = model_here(place)
    assert place.client.post(f"{URL}/write", data=form | {"option-general": "7"}).status_code == 400
    assert jobdirs(place.workspace) == []
    assert place.client.post(f"{URL}/write", data=form).status_code == 303
    [path] = jobdirs(place.workspace)
    params = JobDir.open(path, place.workspace).params
    assert (params.dataset, params.mode, params.trigger) == ("10_mycat", "append", "mycat")
    assert params.options["general"] == 0.5 and params.options["exclude"] == ["a", "b"]
    assert place.client.post(f"{URL}/write", data=form).status_code == 409
    (path / "captions.jsonl").write_text(json.dumps({"image": "p000.png", "text": "<i>made</i>"}) + '\n{"torn')
    live = place.client.get(f"{URL}/job").text
    assert "p000.png" in live and "&lt;i&gt;made" in live
    assert place.client.post(f"{URL}/cancel/{path.name}").status_code == 303
    assert place.client.get(f"{URL}/job").headers["HX-Refresh"] == "true"


def test_a_model_is_fetched_by_a_job_of_the_courier(place):
    model = captioners.find("wd14").MODELS[1]
    form = {"captioner": "wd14", "model": model.name}
    assert place.client.post(f"{URL}/fetch", data=form).status_code == 303
    job = JobDir.open(jobdirs(place.workspace)[0], place.workspace)
    assert (job.resource, job.params.repo, job.params.to) == ("net", model.repo, f"captioners/{model.name}")
    assert place.client.post(f"{URL}/fetch", data=form).status_code == 409


def test_the_api_does_the_same(place):
    client, before = place.client, texts(place)
    assert client.get(API).json["captions"] == 4
    asked = {"do": "add-trigger", "params": {"word": "zorp"}}
    seen = client.post(f"{API}/preview", json=asked).json
    assert (seen["total"], texts(place)) == (4, before)
    assert client.post(f"{API}/edit", json={**asked, "seen": "other"}).status_code == 409
    assert client.post(f"{API}/edit", json={**asked, "seen": seen["seen"]}).json["files"] == 4
    assert texts(place) == [f"zorp, {text}" for text in before]
    assert client.post(f"{API}/undo", json={}).json["files"] == 4
    assert texts(place) == before
    assert client.post(f"{API}/sets", json={"name": "a"}).status_code == 201
    model_here(place)
    assert client.post(f"{API}/write", json={"captioner": "wd14"}).json["status"] == "queued"
    assert client.get("/api/v1/datasets/none/caption-tools").status_code == 404
