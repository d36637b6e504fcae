"""From a fresh workspace to pictures of a LoRA of one's own: the real panel, worker, trainer and sampler in a browser.

The way to the start is by keyboard alone. Then the run is stopped and resumed, and the panel killed while it trains.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import window
from keys import arrow_to, step, tab_to
from picture_folders import with_demo
from playwright.sync_api import Browser, Page, expect
from served import PASSWORD, Served

from trainpilot.runs.job import Job
from trainpilot.runs.jobdir import jobdirs
from trainpilot.runs.rundir import RunDir

SLOW = 300_000  # ms: loading torch alone takes long where two cores are shared with the browser
RUN = "first-light"
STEPS = 60
# What makes a demo short enough for a test, as a person would set it in the third step.
SHORTER = {
    "sampling.evaluate_at_end": "off",
    "training.steps": str(STEPS),
    "training.batch_size": "1",
    "saving.every_steps": "30",
    "sampling.every_steps": "30",
    "sampling.steps": "2",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    panel = Served(with_demo(tmp_path / "workspace"), tmp_path)
    panel.start()
    yield panel
    panel.end()


@pytest.fixture
def desk(chromium: Browser, served: Served) -> Iterator[Page]:
    with window(chromium, served.url, PASSWORD) as page:
        page.set_default_timeout(SLOW)
        yield page


def until(tab: Page, true: Callable[[], bool], what: str) -> None:
    """Not wait_for_function: it needs eval, which the page forbids."""
    end = time.monotonic() + SLOW / 1000
    while not true():
        assert time.monotonic() < end, f"{what} did not happen"
        tab.wait_for_timeout(200)


def plan_a_run(tab: Page) -> None:
    """Through the wizard by keys."""
    tab.goto("/")
    tab_to(tab, text="Training")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/train")
    tab_to(tab, text="Start Training Automation")
    tab.keyboard.press("Enter")
    tab.wait_for_url("**/train/*")
    tab_to(tab, name="kind")
    arrow_to(tab, "character")
    tab.keyboard.press("Enter")
    step(tab, 2)
    tab_to(tab, name="datasets", value="10_zorp")
    tab.keyboard.press("Space")
    tab_to(tab, name="set.datasets.0.captions.trigger")
    tab.keyboard.type("zorp")
    tab.keyboard.press("Enter")
    step(tab, 3)
    tab_to(tab, name="profile")
    arrow_to(tab, "demo")
    for number, (path, value) in enumerate(SHORTER.items()):
        tab_to(tab, back=number > 0, id="find-text")
        tab.keyboard.press("Control+A")
        tab.keyboard.type(path)
        tab_to(tab, name=f"set.{path}")
        tab.keyboard.type(value)
    expect(tab.locator(".plan-figures")).to_contain_text(str(STEPS), timeout=SLOW)
    tab.keyboard.press("Enter")
    step(tab, 4)
    tab_to(tab, name="base")
    tab.keyboard.press("Enter")
    step(tab, 5)
    tab_to(tab, name="name")
    tab.keyboard.type(RUN)
    expect(tab.locator("#review")).to_contain_text(f"--name {RUN}", timeout=SLOW)
    tab.keyboard.press("Enter")
    step(tab, 6)
    expect(tab.locator("#plan .badge")).to_have_text("Ready", timeout=SLOW)
    expect(tab.locator("#start")).to_be_enabled()
    tab_to(tab, id="start")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/train/started/{RUN}")
    tab_to(tab, text=f"Watch {RUN}")
    tab.keyboard.press("Enter")
    tab.wait_for_url(f"**/runs/{RUN}")


def test_from_a_fresh_workspace_to_pictures_of_a_lora(served: Served, desk: Page) -> None:
    tab = desk
    plan_a_run(tab)
    chart = tab.locator("[data-chart=loss]")

    def points() -> int:
        return int(chart.get_attribute("data-points") or 0)

    # Samples of the untrained model, then the loss line, arrive on the open page.
    pictures = tab.locator("#pictures [data-sample] img")
    expect(pictures).to_have_count(4, timeout=SLOW)
    until(tab, lambda: bool(pictures.first.evaluate("one => one.complete && one.naturalWidth > 0")), "a picture")
    until(tab, lambda: points() > 0, "a loss line")
    seen = points()
    until(tab, lambda: points() > seen, "a longer loss line")

    # Stopped by a person: the last step is kept.
    tab.get_by_role("button", name="Stop").click()
    expect(tab.locator("#actions")).to_contain_text("Stopped", timeout=SLOW)
    run = RunDir.find(served.workspace, RUN)
    stopped_at = int(sorted(path.name for path in run.checkpoints.iterdir())[-1].removeprefix("step-"))
    assert 0 < stopped_at < STEPS

    # Resumed; then the panel is killed, and the run does not notice.
    tab.get_by_role("button", name="Resume").click()
    expect(tab.locator("#actions")).to_contain_text("Running", timeout=SLOW)
    trainer = run.job.process
    served.kill()
    expect(tab.locator("#connection")).to_be_visible(timeout=SLOW)
    told = run.events.path.stat().st_size
    until(tab, lambda: run.events.path.stat().st_size > told, "an event without a panel")
    assert run.job.process == trainer
    served.start()
    expect(tab.locator("#connection")).to_be_hidden(timeout=SLOW)
    tab.complaints.clear()  # what a browser says of a panel that does not answer

    # Done: every step is on the line once, whatever came between, and the samples of the later steps are there.
    expect(tab.locator("#actions")).to_contain_text("Done", timeout=SLOW)
    assert run.job.attempts == 2
    until(tab, lambda: points() == STEPS, "the whole loss line")
    answer = tab.request.get(f"/api/v1/runs/{RUN}/series").json()
    assert answer["steps"] == list(range(1, STEPS + 1))
    assert all(value is not None for value in answer["lines"]["loss"])
    assert run.result.is_file()
    expect(tab.locator("#pictures")).to_contain_text(f"step {STEPS}", timeout=SLOW)

    # Test it at four strengths, on the real sampler.
    tab.goto("/test")
    tab.get_by_label("Prompts").fill("zorp on a blue background")
    tab.get_by_label(RUN, exact=True).check()
    tab.get_by_label("Strengths").fill("0.25, 0.5, 0.75, 1")
    tab.get_by_label("Steps").fill("3")
    if tab.get_by_label("a first column with the base model alone").is_checked():
        tab.get_by_label("a first column with the base model alone").uncheck()
    expect(tab.locator("#test-count")).to_have_text("4 pictures in 4 columns")
    tab.get_by_role("button", name="Paint").click()
    painted = tab.locator("table.matrix [data-sample] img")
    expect(painted).to_have_count(4, timeout=SLOW)
    (job,) = (path for path in jobdirs(served.workspace) if (path / "pictures").is_dir())
    until(tab, lambda: (found := Job.read(job)) is not None and found.status == "done", "the end of the test")
    files = sorted((job / "pictures").glob("*.png"))
    for one, other in itertools.pairwise(path.read_bytes() for path in files):
        assert one != other, "another strength is another picture"


def test_the_demo_on_a_phone(served: Served, chromium: Browser) -> None:
    """By taps, at phone width: no page on the way is wider than the window."""
    with window(chromium, served.url, PASSWORD, width=390) as tab:
        tab.set_default_timeout(SLOW)

        def fits() -> None:
            assert tab.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, tab.url

        tab.goto("/train")
        tab.get_by_role("button", name="Try the demo").click()
        tab.wait_for_url("**/train/*")
        for word in ("Dataset", "Profile", "Base model", "Review", "Start"):
            fits()
            tab.get_by_role("button", name=f"Next: {word}").click()
        tab.get_by_role("button", name="Start training").click()
        tab.get_by_role("link", name="Watch").click()
        expect(tab.locator("#now")).to_contain_text("Training", timeout=SLOW)
        fits()
        tab.get_by_role("button", name="Stop").click()
        expect(tab.locator("#actions")).to_contain_text("Stopped", timeout=SLOW)
        fits()
