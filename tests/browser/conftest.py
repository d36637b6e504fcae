"""A logged-in window for the tests of whole pages, and the panel of tests/panel/conftest.py, served."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

PANEL_TESTS = Path(__file__).resolve().parents[1] / "panel"
if str(PANEL_TESTS) not in sys.path:
    sys.path.append(str(PANEL_TESTS))  # makers of workspaces
_spec = importlib.util.spec_from_file_location("panel_fixtures", PANEL_TESTS / "conftest.py")
assert _spec is not None and _spec.loader is not None
_panel = importlib.util.module_from_spec(_spec)
sys.modules["panel_fixtures"] = _panel
_spec.loader.exec_module(_panel)
live_panel, settings, password_folder = _panel.live_panel, _panel.settings, _panel.password_folder


@contextmanager
def window(chromium: Browser, url: str, password: str, width: int = 1440) -> Iterator[Page]:
    """A window that is logged in; fails at its end on any error in its console and on any request elsewhere.

    `page.complaints` gathers them; a test that breaks something on purpose empties it afterwards.
    """
    context = chromium.new_context(base_url=url, viewport={"width": width, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    wrong: list[str] = []
    page.complaints = wrong  # type: ignore[attr-defined]
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    own = (url, "data:", "blob:")
    page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url))
    page.goto("/login")
    page.fill("input[name=password]", password)
    page.keyboard.press("Enter")
    page.wait_for_url(lambda there: "/login" not in there)
    yield page
    context.close()
    assert not wrong, wrong


@pytest.fixture
def tab(chromium: Browser, live_panel: object) -> Iterator[Page]:
    """A window on the panel that runs in this process."""
    with window(chromium, live_panel.url, live_panel.password) as page:  # type: ignore[attr-defined]
        yield page
