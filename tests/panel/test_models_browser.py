"""The Models and Test tabs in Chromium: a download stopped, cut and resumed; a test watched as it is painted."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from file_server import Page, serving
from model_places import lora_bytes, with_base, with_lora
from PIL import Image

from trainpilot.errors import ExitCode
from trainpilot.runs.atomic import write_json
from trainpilot.runs.jobdir import JobDir, jobdirs


@pytest.fixture
def page(live_panel, chromium):
    """A page of a browser that is logged in; fails where the console or another origin was used."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(20_000)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith(live_panel.url) else None)
    page.goto(f"{live_panel.url}/login")
    page.fill("input[name=password]", live_panel.password)
    page.press("input[name=password]", "Enter")
    page.wait_for_url(lambda url: "/login" not in url)
    yield page
    page.context.close()
    assert wrong == []


@pytest.fixture
def courier(live_panel):
    words = ["--workspace", str(live_panel.settings.workspace.root), "--secrets", str(live_panel.settings.secrets)]
    process = subprocess.Popen([sys.executable, "-m", "controlpilot", "courier", *words], stdout=subprocess.DEVNULL)
    yield process
    process.terminate()
    process.wait(20)


@pytest.fixture
def site(monkeypatch):
    with serving() as found:
        monkeypatch.setenv("PILOT_TEST_LOCAL_DOWNLOADS", found.place)
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def large_lora() -> bytes:
    """A LoRA of three megabytes, so that there is something to watch."""
    return lora_bytes(rank=700)


def test_a_download_is_watched_stopped_cut_and_resumed(site, tmp_path, monkeypatch, request):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    live_panel, page = request.getfixturevalue("live_panel"), request.getfixturevalue("page")
    request.getfixturevalue("courier")
    workspace = live_panel.settings.workspace
    body = large_lora()
    served = site.pages["/files/zorp.safetensors"] = Page(body, etag='"1"', pace=0.2)
    page.goto(f"{live_panel.url}/models")
    page.get_by_label("Address or repository").fill(f"{site.url}/files/zorp.safetensors")
    page.get_by_label("Folder in models/").fill("loras")
    page.locator("#elsewhere").get_by_role("button", name="Download").click()
    downloads = page.locator("#downloads")
    downloads.get_by_text("left", exact=False).wait_for()
    # Not wait_for_function: it needs eval, which the page forbids.
    ends = time.monotonic() + 20
    while page.evaluate("document.querySelector('#downloads progress')?.value ?? 0") <= 300_000:
        assert time.monotonic() < ends
        page.wait_for_timeout(100)
    downloads.get_by_role("button", name="Cancel").click()
    downloads.get_by_text("Stopped", exact=True).wait_for()
    part = workspace.loras / ".zorp.safetensors.part"
    kept = part.stat().st_size
    assert 0 < kept < len(body)
    served.cuts, served.pace = [400_000], 0.0
    downloads.get_by_role("button", name="Resume").click()
    downloads.get_by_text("Done", exact=True).wait_for()
    assert (workspace.loras / "zorp.safetensors").read_bytes() == body and not part.exists()
    asked = [headers.get("range") for headers in site.asked("/files/zorp.safetensors")]
    assert f"bytes={kept}-" in asked and f"bytes={kept + 400_000}-" in asked
    page.reload()
    assert page.locator("#loras").get_by_text("zorp", exact=True).is_visible()


def test_a_test_is_filled_in_watched_and_looked_at_large(tmp_path, monkeypatch, live_panel, page):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    workspace = with_base(live_panel.settings.workspace)
    with_lora(workspace)
    page.goto(f"{live_panel.url}/test?lora=models/loras/zorp.safetensors")
    page.get_by_label("Prompts").fill("a zorp\na hill")
    assert page.locator("#test-count").inner_text() == "10 pictures in 5 columns"
    page.get_by_role("button", name="Paint").click()
    page.get_by_text("10 pictures wait for their turn").wait_for()
    (folder,) = jobdirs(workspace)
    job = JobDir.open(folder, workspace)
    # The worker's part, without a model: what matters here is that pictures appear as they are made.
    job.begin_attempt("cpu")
    shown = {"negative": "", "steps": 20, "guidance": 7.5, "width": 64, "height": 64, "seed": 42}
    columns = [{"label": f"column {number}", "lora": "", "strength": 1.0} for number in range(5)]
    rows = [{"text": text, **shown} for text in ("a zorp", "a hill")]
    write_json(folder / "matrix.json", {"columns": columns, "rows": rows})
    (folder / "pictures").mkdir()
    for column, row in ((0, 0), (1, 0), (0, 1)):
        Image.new("RGB", (64, 64), (80 * column, 90 * row, 120)).save(folder / "pictures" / f"c0{column}_r00{row}.png")
    job.state.write("sample", 3, 10, force=True)
    page.get_by_text("3 of 10").wait_for()
    assert page.locator("table.matrix img").count() == 3 and page.get_by_text("not yet").count() == 7
    page.locator("[data-sample]").first.click()
    large = page.locator("dialog")
    assert "column 0 · seed 42" in large.inner_text() and "a zorp" in large.inner_text()
    page.keyboard.press("ArrowRight")
    assert "column 1" in large.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert "a hill" in large.inner_text()
    page.keyboard.press("Escape")
    assert not large.is_visible()
    job.finish("stopped", "stopped by a person", ExitCode.STOPPED)
    page.get_by_role("button", name="Resume").wait_for()
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
