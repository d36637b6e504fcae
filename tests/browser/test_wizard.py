"""The wizard and the datasets tab in Chromium: keyboard alone from a fresh workspace to a queued run, and an upload."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from keys import arrow_to, focused, step, tab_to
from picture_folders import make_pictures, measured, with_demo
from playwright.sync_api import expect

from controlpilot.views.drafts import Choices
from controlpilot.views.plan import look
from controlpilot.words import bytes_text
from trainpilot.runs.rundir import RunDir
from trainpilot.workspace import Workspace

STEPS = 6


def file_of(workspace: Workspace, rank: int) -> str:
    """What the plan says of the demo's LoRA file at a rank; another than the demo's own gives another size."""
    choices = Choices(profile="demo", base="pilot-tiny", datasets=["10_zorp"], settings={"network.rank": str(rank)})
    plan = look(workspace, choices).live.plan
    assert plan is not None
    return f"{bytes_text(plan['file_bytes'])}, {plan['modules']} modules"


def test_keyboard_alone_from_a_fresh_workspace_to_a_queued_run(tab, live_panel):
    workspace = with_demo(live_panel.settings.workspace.root)
    tab.goto("/train")
    tab_to(tab, text="Start Training Automation")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/train/*")
    tab_to(tab, name="kind")
    arrow_to(tab, "character")
    tab.keyboard.press("Enter")
    step(tab, 2)
    tab_to(tab, name="datasets", value="10_zorp")
    tab.keyboard.press("Space")
    expect(tab.locator("#preview")).to_contain_text("Nothing wrong found", timeout=60_000)
    expect(tab.locator("#preview img.thumb")).to_have_count(8)
    tab_to(tab, name="set.datasets.0.captions.trigger")
    tab.keyboard.type("zorp")
    tab.keyboard.press("Enter")
    step(tab, 3)
    tab_to(tab, name="profile")
    arrow_to(tab, "demo")
    tab_to(tab, id="find-text")
    tab.keyboard.type("network.rank")
    tab_to(tab, name="set.network.rank")
    tab.keyboard.type("8")
    expect(tab.locator("#plan")).to_contain_text(file_of(workspace, rank=8))
    tab.keyboard.press("Enter")
    step(tab, 4)
    expect(tab.locator("input[name=base]")).to_be_checked()
    expect(tab.locator("#fits")).to_contain_text("Every picture is large enough")
    tab_to(tab, name="base")
    tab.keyboard.press("Enter")
    step(tab, 5)
    tab_to(tab, name="name")
    tab.keyboard.type("by-keys")
    tab_to(tab, name="price_per_hour")
    tab.keyboard.type("0.5")
    expect(tab.locator(".plan-figures")).to_contain_text("$")
    expect(tab.locator("#review")).to_contain_text("--name by-keys")
    tab.keyboard.press("Enter")
    step(tab, 6)
    tab_to(tab, id="start")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/train/started/by-keys")
    expect(tab.get_by_role("link", name="Watch by-keys")).to_be_visible()
    run = RunDir.find(workspace, "by-keys")
    assert run.job is not None and run.job.status == "queued"
    assert (run.config.network.rank, run.config.datasets[0].captions.trigger) == (8, "zorp")


def test_the_plan_follows_problems_stand_at_their_fields_and_a_reload_keeps_all(tab, live_panel):
    workspace = with_demo(live_panel.settings.workspace.root)
    measured(workspace, workspace.datasets)
    tab.goto("/train?demo=1")
    draft = tab.url.split("?")[0]
    tab.goto(f"{draft}?step=3")
    tab.locator("summary", has_text="The adapter").click()
    tab.fill("#f-network-rank", "64")
    expect(tab.locator("#plan")).to_contain_text(file_of(workspace, rank=64))
    expect(tab.locator("#f-network-alpha")).to_have_attribute("placeholder", "64")
    tab.fill("#f-network-rank", "sixty")
    tab.locator("summary", has_text="The optimizer").click()
    tab.fill("#f-optimizer-learning_rate", "fast")
    expect(tab.locator("#f-network-rank-problem")).to_contain_text("a whole number")
    expect(tab.locator("#f-optimizer-learning_rate-problem")).to_contain_text("a number")
    tab.reload()
    expect(tab.locator("#f-network-rank")).to_have_value("sixty")
    expect(tab.locator("#f-network-rank")).to_have_attribute("aria-invalid", "true")
    tab.goto(f"{draft}?step=6")
    expect(tab.locator("#start")).to_be_disabled()
    tab.locator("#plan").get_by_role("link", name="network.rank").click()
    tab.wait_for_url("**step=3#f-network-rank")
    expect(tab.locator("#f-network-rank")).to_be_focused()
    tab.fill("#f-network-rank", "")
    tab.fill("#f-optimizer-learning_rate", "")
    expect(tab.locator("#plan .badge")).to_have_text("Ready")
    tab.fill("#find-text", "snr")
    expect(tab.locator("#find-count")).to_have_text("3 settings")
    assert tab.locator(".setting:visible").count() == 3


@pytest.mark.parametrize("width", [1440, 390])
def test_no_step_overflows_its_window(tab, live_panel, width):
    workspace = with_demo(live_panel.settings.workspace.root)
    measured(workspace, workspace.datasets)
    tab.set_viewport_size({"width": width, "height": 844})
    tab.goto("/train?demo=1")
    draft = tab.url.split("?")[0]
    pages = [f"{draft}?step={number}" for number in range(1, STEPS + 1)]
    for url in (*pages, "/train", "/datasets", "/datasets/10_zorp"):
        tab.goto(url)
        assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, url
        plan = tab.locator("#plan .plan-figures")
        if "step=" in url:
            tab.evaluate("scrollTo(0, 600)")
            expect(plan).to_be_in_viewport()


def test_a_folder_is_uploaded_and_a_caption_written_by_keys_and_taken_back(tab, live_panel, tmp_path):
    folder = tmp_path / "7_toy"
    make_pictures(folder, 3)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "notes.pdf").write_bytes(b"x")
    tab.goto("/datasets")
    tab.set_input_files("#pick-folder", str(folder))
    expect(tab.locator("#upload-words")).to_contain_text("6 files")
    expect(tab.locator("#upload-words")).to_contain_text("1 left out")
    expect(tab.locator("#upload-name")).to_have_value("7_toy")
    tab.keyboard.press("Enter")
    tab.get_by_role("link", name="Open the dataset").click(timeout=30_000)
    place: Path = live_panel.settings.workspace.datasets / "images" / "7_toy"
    assert sorted(path.name for path in place.iterdir()) == sorted(
        f"p{number:03d}{ending}" for number in range(3) for ending in (".png", ".txt")
    )
    assert (place / "p001.png").read_bytes() == (folder / "p001.png").read_bytes()
    expect(tab.locator("#grid img.thumb")).to_have_count(3, timeout=60_000)
    text = tab.locator("#grid textarea").first
    text.fill("a red toy")
    tab.keyboard.press("Control+Enter")
    expect(tab.locator(".picture").first.locator("[data-said]")).to_contain_text("saved")
    assert (place / "p000.txt").read_text() == "a red toy\n"
    assert focused(tab)["id"] == "c-p001.png"
    tab.locator(".picture").first.get_by_role("button", name="Undo").click()
    expect(tab.locator("#grid textarea").first).to_have_value("mycat, picture 0")
    assert (place / "p000.txt").read_text() == "mycat, picture 0\n"


def test_an_upload_that_was_left_goes_on_where_it_stopped(tab, live_panel, tmp_path):
    folder = tmp_path / "3_car"
    make_pictures(folder, 4)
    files = [{"path": f"3_car/{path.name}", "size": path.stat().st_size} for path in sorted(folder.iterdir())]
    begun = tab.request.post(
        "/api/v1/uploads",
        data=json.dumps({"dataset": "3_car", "files": files}),
        headers={"Content-Type": "application/json", "Origin": live_panel.url},
    ).json()
    first = sorted(folder.iterdir())[0].read_bytes()
    chunk = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    tab.request.patch(f"/api/v1/uploads/{begun['id']}/files/0", data=first, headers=chunk | {"Origin": live_panel.url})
    tab.goto("/datasets")
    expect(tab.locator("#unfinished")).to_contain_text("1 of 8 files")
    patched: list[str] = []
    tab.on("request", lambda asked: patched.append(asked.url) if asked.method == "PATCH" else None)
    tab.set_input_files("#pick-folder", str(folder))
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("link", name="Open the dataset")).to_be_visible(timeout=30_000)
    assert len(patched) == 7 and not any(url.endswith("/files/0") for url in patched)
    assert len(list((live_panel.settings.workspace.datasets / "images" / "3_car").iterdir())) == 8
