"""The keyboard alone: where the focus is, and how to bring it somewhere. For the tests of whole pages."""

from __future__ import annotations

from playwright.sync_api import Page, expect


def focused(tab: Page) -> dict[str, str]:
    """tag, name, value, id and text of the element that has the focus."""
    found: dict[str, str] = tab.evaluate(
        "() => { const e = document.activeElement; return {tag: e.tagName, name: e.name ?? '', value: e.value ?? '', "
        "id: e.id, text: (e.textContent ?? '').trim()} }"
    )
    return found


def tab_to(tab: Page, *, back: bool = False, **wanted: str) -> None:
    """Press Tab (back: with Shift) until an element with these properties has the focus."""
    for _ in range(80):
        tab.keyboard.press("Shift+Tab" if back else "Tab")
        here = focused(tab)
        if all(here[key] == value for key, value in wanted.items()):
            return
    raise AssertionError(f"Tab never reached {wanted}; the last was {here}")


def arrow_to(tab: Page, value: str) -> None:
    """Choose a radio button of the focused group."""
    for _ in range(20):
        if focused(tab)["value"] == value:
            tab.keyboard.press("Space")
            return
        tab.keyboard.press("ArrowDown")
    raise AssertionError(f"the arrows never reached {value}")


def step(tab: Page, number: int) -> None:
    """The wizard shows this step."""
    tab.wait_for_url(f"**step={number}")
    expect(tab.locator("[aria-current=step]")).to_have_count(1)
