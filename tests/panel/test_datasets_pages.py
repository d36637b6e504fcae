"""The Datasets tab and its API over HTTP."""

from __future__ import annotations

import re
import urllib.parse

import pytest
from picture_folders import make_pictures, measured, settle

from controlpilot.views.datasets import page


@pytest.fixture
def place(panel):
    make_pictures(panel.workspace.datasets / "images" / "10_mycat", 4)
    settle(panel.workspace.datasets)
    measured(panel.workspace, panel.workspace.datasets)
    return panel


def test_the_tab_shows_thumbnails_that_may_be_kept_for_ever(place):
    text = place.client.get("/datasets").text
    assert "4 pictures, 4 captions, 10 repeats" in text
    thumb = re.search(r'src="([^"]*thumbs[^"]*)"', text)[1]
    answer = place.client.get(thumb)
    assert answer.mimetype == "image/webp" and "immutable" in answer.headers["Cache-Control"]
    for wrong in ("0" * 64, "../../../../etc/passwd", "x"):
        assert place.client.get(f"/datasets/-/thumbs/{urllib.parse.quote(wrong, safe='')}.webp").status_code == 404


def test_the_panel_itself_decodes_no_picture(place, monkeypatch):
    make_pictures(place.workspace.datasets / "images" / "new", 3)
    monkeypatch.setattr("PIL.Image.open", lambda *_, **__: pytest.fail("the panel opened a picture"))
    assert place.client.get("/datasets/new").status_code == 200
    assert place.client.get("/api/v1/datasets/new/check").status_code == 200
    choices = {"datasets": ["new"], "profile": "demo"}
    assert place.client.post("/api/v1/plan", json=choices).json["state"] == "choose"


def test_a_caption_is_edited_and_taken_back_by_form_and_by_script(place):
    client = place.client
    file = place.workspace.datasets / "images" / "10_mycat" / "p001.txt"
    form = {"text": "a new caption", "was": "mycat, picture 1"}
    answer = client.post("/datasets/10_mycat/caption/p001.png?page=1", data=form)
    assert answer.status_code == 303 and file.read_text() == "a new caption\n"
    undo = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.headers["Location"]).query)["undo"][0]
    assert f"/datasets/-/undo/{undo}" in client.get(answer.headers["Location"]).text
    assert client.post(f"/datasets/-/undo/{undo}").status_code == 303
    assert file.read_text() == "mycat, picture 1\n"
    script = client.post("/datasets/10_mycat/caption/p001.png", data=form, headers={"X-Fragment": "1"})
    assert script.status_code == 200 and "a new caption" in script.text and "<html" not in script.text
    stale = client.post("/datasets/10_mycat/caption/p001.png", data=form, headers={"X-Fragment": "1"})
    assert stale.status_code == 409


def test_a_picture_is_removed_and_brought_back(place):
    client = place.client
    answer = client.post("/datasets/10_mycat/remove/p002.png")
    assert page(place.workspace, "10_mycat").total == 3
    undo = urllib.parse.parse_qs(urllib.parse.urlsplit(answer.headers["Location"]).query)["undo"][0]
    client.post(f"/datasets/-/undo/{undo}")
    assert page(place.workspace, "10_mycat").total == 4


def test_an_original_is_sent_as_a_picture_that_can_run_nothing(place):
    answer = place.client.get("/datasets/10_mycat/picture/p000.png")
    assert answer.mimetype == "image/png" and "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    for wrong in ("p000.txt", "../10_mycat/p000.png", "%2e%2e/%2e%2e/VERSION"):
        assert place.client.get(f"/datasets/10_mycat/picture/{wrong}").status_code in (404, 308)


def test_the_api_lists_pages_checks_renames_and_restores(place):
    client = place.client
    (one,) = client.get("/api/v1/datasets").json["datasets"]
    assert (one["name"], one["images"], one["repeats"]) == ("10_mycat", 4, 10)
    found = client.get("/api/v1/datasets/10_mycat/pictures?q=picture+3").json
    assert [picture["file"] for picture in found["pictures"]] == ["p003.png"] and not found["pending"]
    assert client.get("/api/v1/datasets/10_mycat/pictures?page=0").status_code == 400
    assert client.get("/api/v1/datasets/10_mycat/check?trigger=mycat").json["findings"] == []
    renamed = client.patch("/api/v1/datasets/10_mycat", json={"repeats": 3})
    assert renamed.json["dataset"] == "3_mycat"
    written = client.put("/api/v1/datasets/3_mycat/captions/p000.png", json={"text": "x", "was": "other"})
    assert written.status_code == 409
    gone = client.delete("/api/v1/datasets/3_mycat").json["undo"]
    assert client.get("/api/v1/datasets/3_mycat").status_code == 404
    assert [entry["id"] for entry in client.get("/api/v1/trash").json["entries"]] == [gone]
    assert client.post(f"/api/v1/trash/{gone}/restore").status_code == 200
    assert client.post(f"/api/v1/trash/{gone}/restore").status_code == 404
    assert client.get("/api/v1/datasets/3_mycat").json["images"] == 4
