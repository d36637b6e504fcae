"""Notifications of the browser and the countdown, in Chromium: asked for by a click, shown while nobody looks."""

from __future__ import annotations

import json
import time
from typing import Any

from panel_fixtures import LivePanel
from playwright.sync_api import Page, expect
from run_folders import finished

from controlpilot.idle import FILE, REQUESTS, IdleState
from tests.browser.test_look import violations
from trainpilot.runs.process import Identity

# What the window would show, written down; the page is told that it is in the background, which no headless window is.
RECORD = """
window.shown = [];
const theirs = window.Notification;
window.Notification = class { constructor(title, more) { window.shown.push([title, more.body, more.tag]); }
  addEventListener() {}
  static requestPermission() { window.asked = (window.asked || 0) + 1; return theirs.requestPermission(); }
  static get permission() { return theirs.permission; } };
"""
HIDE = """(hidden) => { Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange")); }"""

WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


def says(live_panel: LivePanel, **state: Any) -> None:
    path = live_panel.settings.workspace.jobs / FILE
    path.parent.mkdir(exist_ok=True)
    told = IdleState(**state).model_dump() | {"process": Identity.own().as_dict()}
    path.write_text(json.dumps(told))


def test_a_run_that_ends_while_nobody_looks_is_shown_by_the_browser(
    tab: Page, live_panel: LivePanel, monkeypatch
) -> None:
    monkeypatch.setattr("controlpilot.views.endings.SETTLE", 0.0)
    tab.add_init_script(RECORD)
    tab.goto("/settings")
    expect(tab.locator("[data-notify]")).to_have_text("Show in this browser")
    assert tab.evaluate("window.asked") is None, "nothing is asked for without a click"
    tab.context.grant_permissions(["notifications"])
    with tab.expect_response(lambda answer: "/api/v1/endings" in answer.url):
        tab.click("[data-notify]")
    expect(tab.locator("[data-notify][aria-pressed=true]")).to_have_text("Turn off in this browser")
    tab.evaluate(HIDE, True)
    finished(live_panel.settings.workspace, "zorp-v3", 20)
    time.sleep(0.05)
    with tab.expect_response(lambda answer: "/api/v1/endings?after" in answer.url):
        tab.evaluate(HIDE, True)
    for _ in range(100):
        if tab.evaluate("window.shown.length"):
            break
        tab.wait_for_timeout(50)
    assert tab.evaluate("window.shown.map(([title]) => title)") == ["zorp-v3 is done"]
    tab.evaluate(HIDE, False)
    finished(live_panel.settings.workspace, "seen", 20)
    with tab.expect_response(lambda answer: "/api/v1/endings?after" in answer.url):
        tab.evaluate(HIDE, False)
    assert tab.evaluate("window.shown.length") == 1, "who looks sees it on the page"
    tab.goto("/settings")
    tab.wait_for_selector("[data-notify][aria-pressed=true]")
    tab.click("[data-notify]")
    tab.wait_for_selector("[data-notify][aria-pressed=false]")


def test_a_countdown_appears_on_an_open_page_and_is_cancelled_there(tab: Page, live_panel: LivePanel) -> None:
    tab.goto("/runs")
    says(live_panel, phase="countdown", why="nothing was going on for 30 min", at=time.time() + 100)
    tab.wait_for_selector("text=This pod is stopped soon", timeout=20_000)
    assert tab.inner_text("#pod [role=timer]").startswith("in 1 min")
    tab.goto("/settings")
    tab.click("summary:has-text('Change it')")
    for scheme, width in (("light", 1440), ("dark", 390)):
        tab.emulate_media(color_scheme=scheme)
        tab.set_viewport_size({"width": width, "height": 900})
        assert violations(tab, "light") == [] and tab.evaluate(WIDER) <= 0, (scheme, width)
    tab.click("#pod >> text=Keep it on")
    tab.wait_for_selector("#pod >> text=The pod stays on.")
    assert (live_panel.settings.workspace.jobs / REQUESTS / "stay").is_file()
