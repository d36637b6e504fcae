"""The captions page in a real browser: readable in both themes and on a phone, edits by keyboard, live results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.test_look import AXE, VENDOR, ended, opened, violations
from tests.panel.conftest import LivePanel
from tests.panel.picture_folders import make_pictures, settle
from trainpilot.datasets import caption_files
from trainpilot.runs.jobdir import JobDir

pytestmark = pytest.mark.skipif(
    not AXE.is_file() or not VENDOR.is_dir(), reason="no front-end files: PILOT_FRONT_END=dev scripts/front_end.sh"
)
TOO_WIDE = """() => {
  const wide = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= wide) return [];
  return [...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > wide + 1)
    .map((one) => `${one.tagName}.${one.className} ${one.textContent.trim().slice(0, 40)}`).slice(0, 12);
}"""
LONG = "long_hair_that_goes_on_and_on_without_any_space_until_the_edge_of_every_telephone_that_there_is"


@pytest.fixture
def place(live_panel: LivePanel) -> LivePanel:
    folder = live_panel.settings.workspace.datasets / "images" / "10_mycat"
    make_pictures(folder, 6)
    (folder / "p000.txt").write_text(f"mycat, {LONG}\n")
    settle(folder)
    return live_panel


def texts(place: LivePanel) -> list[str]:
    folder = place.settings.workspace.datasets / "images" / "10_mycat"
    return list(caption_files.read(folder).texts.values())


@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 1440), ("light", 360)])
def test_the_page_is_readable(chromium: Browser, place: LivePanel, theme: str, width: int) -> None:
    page = opened(chromium, place, theme, width)
    page.goto(f"{place.url}/datasets/10_mycat/captions?captioner=wd14&do=replace&trigger=mycat")
    assert page.input_value("#f-with") == "", "the captioner's name is no field of an edit"
    page.fill("#f-find", LONG)
    page.get_by_role("button", name="Preview", exact=True).click()
    page.get_by_role("region", name="Preview").wait_for()
    page.locator("summary").filter(has_text="Options of").click()
    assert page.evaluate(TOO_WIDE) == []
    assert violations(page, theme) == []
    assert page.complaints == []
    if shots := os.environ.get("CAPTIONS_SHOTS"):
        page.screenshot(path=str(Path(shots) / f"captions-{theme}-{width}.png"), full_page=True)
    ended(page)


def test_all_captions_are_changed_and_brought_back_by_keyboard_alone(chromium: Browser, place: LivePanel) -> None:
    page = opened(chromium, place)
    before = texts(place)
    page.goto(f"{place.url}/datasets/10_mycat/captions?do=prefix")
    page.focus("#f-text")
    page.keyboard.type("a photo of")
    page.keyboard.press("Enter")  # previews
    page.get_by_role("region", name="Preview").wait_for()
    assert texts(place) == before
    assert page.evaluate("() => document.activeElement.innerText.trim()") == "Make these changes"
    page.keyboard.press("Enter")
    page.get_by_text("6 files written").wait_for()
    assert texts(place) == [f"a photo of, {text}" for text in before]
    undo = page.get_by_role("button", name="Undo", exact=True)
    undo.focus()
    page.keyboard.press("Enter")
    page.get_by_text("undone, 6 files").wait_for()
    assert texts(place) == before and page.complaints == []
    ended(page)


def test_captions_appear_while_a_captioner_works(chromium: Browser, place: LivePanel) -> None:
    workspace = place.settings.workspace
    job = JobDir.create(workspace, "caption", {"dataset": "10_mycat", "captioner": "wd14"})
    job.begin_attempt()
    job.state.write("caption", 1, 6, eta=5.0, force=True)
    page = opened(chromium, place)
    page.goto(f"{place.url}/datasets/10_mycat/captions")
    page.get_by_text("1 of 6").wait_for()
    with (job.path / "captions.jsonl").open("a") as out:
        out.write(json.dumps({"image": "p001.png", "text": "one that was just made"}) + "\n")
    job.state.write("caption", 2, 6, eta=4.0, force=True)
    page.get_by_text("one that was just made").wait_for()
    page.get_by_text("2 of 6").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_timeout(300)
    assert job.requests.take("stop")
    job.finish("done", "6 captions written", 0)
    page.get_by_text("6 captions written").wait_for()
    assert page.complaints == []
    ended(page)
