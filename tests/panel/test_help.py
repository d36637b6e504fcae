"""Help: guides are rendered, found, and can do nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlpilot.views import guides
from controlpilot.views.refusals import NotFound
from tests.panel.conftest import Panel

GUIDE = """# A guide

The <b>first</b> paragraph & <script>alert(1)</script>.

## Same
[bad](javascript:alert(1)) [data](data:text/html,x) [file](../secret.md) [other](./other.md#part) [web](https://example.com)

![picture](javascript:alert(1))

## Same
| a | b |
|---|---|
| checkpoint | Straße |

```sh onclick=x
echo needle
```
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "guide.md").write_text(GUIDE)
    (tmp_path / "other.md").write_text("# Other\n\nAbout checkpoints.\n")
    (tmp_path / "UPPER.md").write_text("# Not a guide's name\n")
    (tmp_path.parent / "secret.md").write_text("secret")
    return tmp_path


def test_a_guide_can_do_nothing(folder: Path) -> None:
    html = guides.html("guide", lambda name: f"/help/{name}", folder)
    assert "<script" not in html and "<b>" not in html and "&lt;script&gt;" in html
    assert 'href="javascript' not in html and 'src="javascript' not in html and 'href="data:' not in html
    assert "onclick" not in html and "secret.md" not in html.replace("[file]", "")
    assert '<a href="/help/other#part">other</a>' in html
    assert 'href="https://example.com" rel="noreferrer noopener" target="_blank"' in html


def test_headings_have_places_of_their_own(folder: Path) -> None:
    html = guides.html("guide", str, folder)
    assert '<h2 id="same">' in html and '<h2 id="same-2">' in html
    assert [section.anchor for section in guides.guide("guide", folder).sections] == ["a-guide", "same", "same-2"]


def test_search_finds_sections_with_every_word(folder: Path) -> None:
    assert [hit.guide.name for hit in guides.search("CHECKPOINT", folder)] == ["guide", "other"]
    found = guides.search("needle straße", folder)
    assert [(hit.guide.name, hit.section.anchor) for hit in found] == [("guide", "same-2")]
    assert guides.search("needle missing", folder) == [] and guides.search("  ", folder) == []
    assert guides.search("other", folder)[0].section.heading == "Other", "a heading counts more than its text"


def test_a_changed_guide_is_read_again(folder: Path) -> None:
    assert guides.guide("other", folder).title == "Other"
    path = folder / "other.md"
    path.write_text("# New\n")
    stat = path.stat()
    import os

    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert guides.guide("other", folder).title == "New"


@pytest.mark.parametrize("name", ["../secret", "UPPER", "", "missing", "guide.md"])
def test_only_guides_are_read(folder: Path, name: str) -> None:
    with pytest.raises(NotFound):
        guides.guide(name, folder)


def test_the_pages(panel: Panel) -> None:
    every = guides.guides()
    assert [one.name for one in every][:2] == ["first-lora", "panel"]
    for one in every:
        page = panel.client.get(f"/help/{one.name}")
        assert page.status_code == 200 and "<h1" in page.text
        assert one.summary, f"{one.name} begins with a paragraph that says what it is about"
    found = panel.client.get("/help?text=checkpoint").text
    assert "<mark>checkpoint</mark>" in found and "/help/first-lora#" in found
    hostile = panel.client.get("/help?text=<script>alert(1)</script>").text
    assert "<script>alert" not in hostile and "Nothing found" in hostile
    assert panel.client.get("/help/missing").status_code == 404
    assert panel.anonymous.get("/help").status_code in (302, 303, 401)
