"""The doctor's page: a real check and a real fix, run as the worker runs them, shown, and taken back."""

from __future__ import annotations

import shutil

import pytest
from picture_folders import make_pictures, settle

from controlpilot.views import doctor
from controlpilot.views.refusals import Conflict, NotFound
from trainpilot.cli import main


@pytest.fixture
def place(panel):
    """A panel with a dataset of six pictures, one of them twice."""
    root = panel.workspace.datasets / "images" / "5_toy"
    paths = make_pictures(root, 6, size=(640, 512))
    shutil.copy(paths[0], root / "twice.png")
    settle(root)
    return panel


def work(place, kind: str) -> None:
    """Run the newest job of a kind, in this process."""
    newest = max(place.workspace.jobs.glob(f"{kind}-*"), key=lambda path: path.stat().st_mtime)
    assert main(["run", str(newest)]) == 0


def test_a_dataset_is_examined_mended_and_taken_back(place) -> None:
    client, root = place.client, place.workspace.datasets / "images" / "5_toy"
    page = "/datasets/5_toy/doctor"
    assert "Examine" in client.get(page).text
    assert client.post(page, data={"type": "object", "trigger": "mycat"}).status_code == 303
    with pytest.raises(Conflict):
        doctor.ask(place.workspace, "5_toy")
    assert "Nobody takes it" in client.get(f"{page}?part=said").text
    work(place, "dataset-check")
    assert client.get(f"{page}?part=said").headers["HX-Refresh"] == "true"

    report = doctor.consultation(place.workspace, "5_toy").report
    assert report is not None and not report.stale and report.triggers == ["mycat"]
    doubles = next(one for one in report.findings if one.fix and one.fix.kind and "twice.png" in str(one.model_dump()))
    shown = client.get(page).text
    assert doubles.title in shown and f"fix/{doubles.number}" in shown and f"<strong>{report.score}</strong>" in shown

    assert client.post(f"{page}/fix/{doubles.number}").status_code == 303
    work(place, "dataset-fix")
    assert len(list(root.glob("*.png"))) == 6
    mended = doctor.consultation(place.workspace, "5_toy")
    assert mended.report is not None and mended.report.stale and mended.fix is not None and mended.fix.trash
    assert client.post(f"{page}/undo").status_code == 303
    assert len(list(root.glob("*.png"))) == 7
    with pytest.raises(NotFound):
        doctor.take_back(place.workspace, "5_toy")


def test_what_is_not_there_is_refused(place) -> None:
    assert place.client.get("/datasets/none/doctor").status_code == 404
    assert place.client.post("/datasets/5_toy/doctor/fix/0").status_code == 404
    wrong = place.client.post("/datasets/5_toy/doctor", data={"type": "landscape"})
    assert wrong.status_code == 400 and doctor.consultation(place.workspace, "5_toy").check is None
