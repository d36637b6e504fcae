"""Every tab in a real browser, in both themes and at two widths: nothing breaks, leaves the origin, overflows or shuts
anybody out; live parts follow, and say so when they cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from scripts.screenshots import THEMES, WIDTHS
from tests.panel import run_folders
from tests.panel.conftest import LivePanel

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
VENDOR = ROOT / "controlpilot" / "static" / "vendor"

pytestmark = pytest.mark.skipif(
    not AXE.is_file() or not VENDOR.is_dir(), reason="no front-end files: PILOT_FRONT_END=dev scripts/front_end.sh"
)


@pytest.fixture
def filled(live_panel: LivePanel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LivePanel:
    """A workspace with a finished, a failed, a waiting and a running run, and a service's log."""
    logs = tmp_path / "pod-logs"
    logs.mkdir()
    monkeypatch.setenv("PILOT_LOGS", str(logs))
    (logs / "comfyui.log").write_text("\x1b[32mstarted\x1b[0m\n" * 300)
    place = live_panel.settings.workspace
    run_folders.finished(place, "cat-v1", 20, samples=True)
    failed = run_folders.new(place, "dog-with-a-name-that-is-much-longer-than-any-phone-is-wide-v2")
    failed.begin_attempt("cpu")
    failed.finish("failed", "out of memory", run_folders.ExitCode.FAILED)
    run_folders.new(place, "waits").queue("a test")
    running = run_folders.new(place, "runs-now", 400)
    running.begin_attempt("cpu")
    run_folders.train(running, 1, 120, of=400, samples=True, every=60)
    running.state.write("train", 120, 400, eta=300, force=True, loss=0.08, it_s=1.5, vram_gb=7.4)
    return live_panel


def opened(chromium: Browser, panel: LivePanel, theme: str = "light", width: int = 1440) -> Any:
    """A page of a browser that has logged in; `page.complaints` gathers what must not be."""
    context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    page = context.new_page()
    page.complaints = []
    page.on("console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    # ERR_ABORTED: a poll that was under way when the page was left.
    page.on(
        "requestfailed",
        lambda asked: (
            None if "ERR_ABORTED" in asked.failure else page.complaints.append(f"{asked.url} {asked.failure}")
        ),
    )
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith((panel.url, "data:", "blob:"))
            else page.complaints.append(f"left the origin: {asked.url}")
        ),
    )
    page.goto(panel.url)
    page.fill("input[type=password]", panel.password)
    page.press("input[type=password]", "Enter")
    page.wait_for_selector("nav.side", state="attached")
    page.complaints.clear()  # the first answer, 401 with the login, is one to a browser
    return page


def ended(page: Any) -> None:
    """Leave before the server goes, so that no poll of the page fails."""
    page.goto("about:blank")
    page.context.close()


def violations(page: Any, theme: str) -> list[str]:
    """Serious and critical findings of axe-core; in the dark only what depends on colours, the rest being the same."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    only = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    if theme == "dark":
        only = {"type": "rule", "values": ["color-contrast"]}
    asked = {"resultTypes": ["violations"], "runOnly": only}
    found = page.evaluate("asked => axe.run(document, asked)", asked)["violations"]
    return [
        f"{one['id']}: {node['html'][:160]} {node['failureSummary'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("theme", THEMES)
def test_every_tab(chromium: Browser, filled: LivePanel, theme: str, width: int) -> None:
    page = opened(chromium, filled, theme, width)
    tabs = page.eval_on_selector_all("nav.side a.tab", "links => links.map(link => link.getAttribute('href'))")
    assert len(tabs) >= 6, "the tabs come from the pages' own declarations"
    more = ["/logs/service/comfyui.log", "/help/first-lora", "/help?text=checkpoint"]
    for path in dict.fromkeys([*tabs, *more]):
        answer = page.goto(filled.url + path)
        assert answer.status == 200, path
        page.wait_for_timeout(100)
        too_wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert too_wide <= 0, f"{path} at {width} px is {too_wide} px too wide"
        assert violations(page, theme) == [], path
        assert page.complaints == [], path
        assert page.locator("h1").count() == 1, f"{path} has one heading that names it"
        ground = page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor")
        assert ground == {"light": "rgb(243, 245, 248)", "dark": "rgb(14, 20, 27)"}[theme]
    ended(page)


def test_the_page_of_all_components(chromium: Browser, live_panel: LivePanel) -> None:
    page = opened(chromium, live_panel, width=360)
    assert page.goto(f"{live_panel.url}/design").status == 404
    page.complaints.clear()
    object.__setattr__(live_panel.settings, "debug", True)
    assert page.goto(f"{live_panel.url}/design").status == 200
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    assert violations(page, "light") == [] and page.complaints == []
    ended(page)


def test_the_theme_switch_is_kept(chromium: Browser, live_panel: LivePanel) -> None:
    page = opened(chromium, live_panel, "light")
    switch = page.locator(".side [data-theme-switch]")
    assert switch.inner_text().strip() == "Theme: system"
    switch.click()
    switch.click()
    assert switch.inner_text().strip() == "Theme: dark"
    page.goto(f"{live_panel.url}/help")
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    assert page.complaints == []
    ended(page)


def test_the_keyboard_skips_the_tabs_and_reaches_more_on_a_phone(chromium: Browser, live_panel: LivePanel) -> None:
    page = opened(chromium, live_panel, width=390)
    page.goto(f"{live_panel.url}/help")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    page.locator(".tab-bar summary").focus()
    page.keyboard.press("Enter")
    drawer = page.locator(".tab-bar .drawer")
    assert drawer.is_visible() and drawer.get_by_text("Help").get_attribute("aria-current") is None
    assert drawer.locator("a[aria-current=page]").inner_text().strip() == "Help"
    ended(page)


def test_the_dashboard_draws_and_follows_a_run(chromium: Browser, filled: LivePanel) -> None:
    page = opened(chromium, filled)
    page.goto(filled.url + "/")
    page.wait_for_selector("[data-loss] canvas")
    assert page.locator("[data-tile] canvas").count() == page.locator("[data-tile]").count() >= 3
    page.evaluate("() => { document.querySelector('[data-loss] canvas').dataset.mine = '1'; }")
    run = run_folders.RunDir.find(filled.settings.workspace, "runs-now")
    run.state.write("train", 240, 400, eta=100, force=True, loss=0.07, it_s=1.5)
    page.get_by_text("240 of 400").wait_for(timeout=8000)
    assert page.locator("[data-loss] canvas[data-mine]").count() == 1, "a poll leaves the chart alone"
    assert page.get_by_text("dog-with-a-name").first.is_visible()
    assert page.complaints == []
    ended(page)


def test_a_poll_that_fails_says_so_and_recovers(chromium: Browser, filled: LivePanel) -> None:
    page = opened(chromium, filled)
    page.goto(filled.url + "/")
    notice = page.locator("#connection")
    assert notice.is_hidden()
    page.route("**/*", lambda route: route.abort())
    notice.wait_for(state="visible", timeout=8000)
    assert "No answer from the panel since" in notice.inner_text()
    assert page.get_by_text("runs-now").first.is_visible(), "what was shown stays"
    page.unroute("**/*")
    notice.wait_for(state="hidden", timeout=15000)
    ended(page)


def test_a_hidden_window_asks_for_nothing(chromium: Browser, filled: LivePanel) -> None:
    page = opened(chromium, filled)
    page.goto(filled.url + "/")
    page.wait_for_timeout(500)
    page.evaluate("""() => {
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => true});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    page.wait_for_timeout(500)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert asked == []
    page.evaluate("""() => {
        Object.defineProperty(document, 'hidden', {configurable: true, get: () => false});
        document.dispatchEvent(new Event('visibilitychange'));
    }""")
    page.wait_for_timeout(1000)
    assert any("part=now" in url for url in asked), "shown again, it asks at once"
    ended(page)


def test_a_log_follows_and_is_searched(chromium: Browser, filled: LivePanel, tmp_path: Path) -> None:
    page = opened(chromium, filled)
    page.goto(f"{filled.url}/logs")
    page.get_by_role("link", name="comfyui.log").click()
    page.wait_for_selector("[data-log-reader]")
    with (tmp_path / "pod-logs" / "comfyui.log").open("a") as log:
        log.write("\x1b[31ma <b>fresh</b> line\x1b[0m\n")
    page.get_by_text("a <b>fresh</b> line").wait_for(timeout=8000)
    page.fill("[data-log-search] input", "FRESH")
    page.press("[data-log-search] input", "Enter")
    page.get_by_text("1 line with").wait_for(timeout=8000)
    assert page.complaints == []
    ended(page)
