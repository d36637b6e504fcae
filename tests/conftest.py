"""What holds for every test: no network, no settings of the caller's, property tests without deadlines."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def pytest_configure() -> None:
    # A test that needs the network is a mistake and must fail at once, also in the processes it starts.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Two cores shared by several processes make any deadline a coin toss; CI draws the same examples every time.
    hypothesis.settings.register_profile("pilot", deadline=None, derandomize="CI" in os.environ)
    hypothesis.settings.load_profile("pilot")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `matrix` have to be asked for; those marked `gpu` are skipped, by name, without a CUDA device."""
    if "matrix" not in config.option.markexpr:
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("matrix")])
        items[:] = [item for item in items if not item.get_closest_marker("matrix")]
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True)
def _own_environment() -> Iterator[None]:
    """No PILOT_* variable of the caller's reaches a test, and none that a test sets outlives it."""
    before = {name: value for name, value in os.environ.items() if name.startswith("PILOT_")}
    for name in before:
        del os.environ[name]
    yield
    for name in [name for name in os.environ if name.startswith("PILOT_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The one browser of a test process: playwright's synchronous driver runs once in a process."""
    if not Path(CHROMIUM).is_file():
        pytest.skip("there is no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()
