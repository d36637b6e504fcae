"""A run in a browser: the real worker runs a trainer that only counts; its line, samples, log and buttons are used."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import run_folders as made
from playwright.sync_api import Page, expect

from trainpilot.runs.job import Job
from trainpilot.runs.rundir import RunDir, folders

WORKER = Path(__file__).resolve().parents[1] / "faults" / "worker_process.py"
# What stands out of the window to the right, unless a frame of its own scrolls it.
TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
    [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
        .map((one) => one.outerHTML.slice(0, 100))"""
SLOW = 60_000  # ms: two cores are shared with the worker, the trainer and the browser


def wait_past(tab: Page, number: Callable[[], int], past: int) -> None:
    """Until a number on the page is greater. Not wait_for_function: it needs eval, which the page forbids."""
    for _ in range(SLOW // 200):
        if number() > past:
            return
        tab.wait_for_timeout(200)
    raise AssertionError(f"{number()} is not greater than {past}")


@pytest.fixture
def workspace(live_panel, tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    made.with_time(monkeypatch)
    return live_panel.settings.workspace


@pytest.fixture
def live(workspace) -> Iterator[RunDir]:
    """A run under a worker, past its first steps, with samples of two steps and two prompts."""
    run = made.new(workspace, "counting", 5000, plan={"seconds_per_step": 0.05})
    (run.path / "behaviour.json").write_text(json.dumps({"pace": 0.05, "every": 20}))
    for step in (100, 200):
        for number in range(2):
            made.picture(run, step, number, made.PROMPTS[number], seed=7 + number, tell=False)
    run.queue()
    worker = subprocess.Popen([sys.executable, str(WORKER), str(workspace.root), "cpu"])
    yield run
    worker.terminate()
    worker.wait(60)
    for folder in folders(workspace):
        job = Job.read(folder)
        if job is not None and job.process is not None:
            job.process.signal(9)


def test_a_live_run_is_watched_looked_at_and_stopped(live: RunDir, tab: Page) -> None:
    tab.goto("/runs")
    expect(tab.locator("#queue")).to_contain_text("counting", timeout=SLOW)
    tab.locator("#history").get_by_role("link", name="counting").click()

    # The line grows by itself.
    chart = tab.locator("[data-chart=loss]")
    expect(chart.locator("canvas")).to_be_visible(timeout=SLOW)

    def points() -> int:
        return int(chart.get_attribute("data-points") or 0)

    wait_past(tab, points, 20)
    wait_past(tab, points, points())
    expect(tab.locator("#now")).to_contain_text("Training", timeout=SLOW)

    # A zoom by dragging, and back.
    over = chart.locator(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + box["width"] * 0.3, middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    tab.mouse.up()
    tab.get_by_role("button", name="Whole run").click(timeout=SLOW)
    expect(tab.get_by_role("button", name="Whole run")).to_be_hidden()

    # An open menu is not closed by what is polled around it.
    tab.locator("details[data-menu] summary").click()
    tab.wait_for_timeout(2500)
    expect(tab.get_by_role("link", name="Clone in the wizard")).to_be_visible()
    tab.keyboard.press("Escape")

    # Samples: one large, then by keys through prompts and steps.
    tab.get_by_role("link", name="Samples", exact=True).click()
    tab.locator("[data-sample]").first.click()
    light = tab.locator("[data-lightbox]")
    expect(light).to_contain_text("step 200 · seed 7")
    expect(light.locator("[data-caption]")).to_have_text(made.PROMPTS[0])
    tab.keyboard.press("ArrowRight")
    expect(light).to_contain_text("step 200 · seed 8")
    tab.keyboard.press("ArrowDown")
    expect(light).to_contain_text("step 100 · seed 8")
    tab.keyboard.press("ArrowDown")  # there is no older one
    expect(light).to_contain_text("step 100 · seed 8")
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("ArrowUp")
    expect(light).to_contain_text("step 200 · seed 7")
    tab.keyboard.press("Escape")
    expect(light).to_be_hidden()
    assert tab.evaluate("document.activeElement.dataset.step") == "200"

    # The log follows.
    tab.get_by_role("link", name="Log", exact=True).click()
    lines = tab.locator("[data-lines]")

    def told() -> int:
        return lines.inner_text().count("line")

    wait_past(tab, told, told())
    tab.fill("[data-log-search] input", "line 1:3")
    tab.keyboard.press("Enter")
    expect(tab.locator(".match").last).to_have_text("line 1:3", timeout=SLOW)

    # Stop, and what is offered then.
    tab.get_by_role("link", name="Overview", exact=True).click()
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#said")).to_contain_text("Asked to stop", timeout=SLOW)
    expect(tab.locator("#actions")).to_contain_text("Stopped", timeout=SLOW)
    assert Job.read(live.path).status == "stopped"
    tab.get_by_role("button", name="Resume").click()
    expect(tab.locator("#said")).to_contain_text("waits in the queue", timeout=SLOW)
    expect(tab.locator("#actions")).to_contain_text("Running", timeout=SLOW)


def test_the_order_is_changed_by_drag_and_by_keys(workspace, tab: Page) -> None:
    for name in "abc":
        made.new(workspace, name).queue()
    tab.goto("/runs")
    waiting = tab.locator("[data-order] > li")
    names = "list => list.map(item => item.dataset.run)"
    expect(waiting).to_have_count(3, timeout=SLOW)
    assert waiting.evaluate_all(names) == ["a", "b", "c"]
    tab.locator("[data-grip]").nth(2).focus()
    tab.keyboard.press("ArrowUp")
    expect(tab.locator("[data-order] > li[data-run=c] .place")).to_have_text("2", timeout=SLOW)
    waiting.nth(0).locator("[data-grip]").drag_to(waiting.nth(2), target_position={"x": 120, "y": 40})
    expect(tab.locator("[data-order] > li[data-run=a] .place")).to_have_text("3", timeout=SLOW)
    assert waiting.evaluate_all(names) == ["c", "b", "a"]
    tab.get_by_role("button", name="Pause the queue").click()
    expect(tab.get_by_text("The queue is paused").first).to_be_visible(timeout=SLOW)


def test_a_run_goes_to_the_trash_and_comes_back(workspace, tab: Page) -> None:
    made.finished(workspace, "old", 30)
    tab.goto("/runs/old")
    tab.locator("details[data-menu] summary").click()
    tab.get_by_role("button", name="Move to trash").click()
    tab.get_by_role("button", name="Undo").click(timeout=SLOW)
    expect(tab.get_by_role("heading", name="old", level=1)).to_be_visible(timeout=SLOW)


def test_a_run_of_one_step_is_drawn_and_grows(workspace, tab: Page) -> None:
    run = made.new(workspace, "young")
    run.begin_attempt("cpu")
    made.train(run, 1, 1)
    tab.goto("/runs/young")
    chart = tab.locator("[data-chart=loss]")
    expect(chart).to_have_attribute("data-points", "1", timeout=SLOW)
    made.train(run, 2, 5)
    expect(chart).to_have_attribute("data-points", "5", timeout=SLOW)


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_its_window(workspace, tab: Page, width: int) -> None:
    made.finished(
        workspace, "a_run_with_a_very_long_name_without_any_space_in_it_which_goes_on_and_on", 40, samples=True
    )
    made.new(workspace, "waiting").queue()
    tab.set_viewport_size({"width": width, "height": 844})
    name = "a_run_with_a_very_long_name_without_any_space_in_it_which_goes_on_and_on"
    for url in ("/runs", *(f"/runs/{name}{page}" for page in ("", "/samples", "/log", "/configuration"))):
        tab.goto(url)
        tab.wait_for_timeout(300)
        assert tab.evaluate(TOO_WIDE) == [], url
