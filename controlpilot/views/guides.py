"""The guides in docs/: rendered from Markdown, cut into sections, searched. Used by the Help page.

Raw HTML in a guide is shown as text and links lead to other guides, to the web or to a heading, nowhere else, so that
a guide that somebody put there can do nothing. Files are read anew when they change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from controlpilot.views.refusals import NotFound

FOLDER = Path(__file__).resolve().parents[2] / "docs"
FIRST = ("first-lora", "panel")  # the order in which a newcomer reads; others follow by title
LONGEST_QUERY = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
_AROUND = 90  # letters of text shown before and after what was found


@dataclass(frozen=True)
class Section:
    """A heading and the plain text below it. anchor: "" before the first heading."""

    heading: str
    anchor: str
    text: str


@dataclass(frozen=True)
class Guide:
    """One guide. summary: its first paragraph."""

    name: str
    title: str
    summary: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Hit:
    """A section that a search found: where, and the words before, at and after the place."""

    guide: Guide
    section: Section
    before: str
    match: str
    after: str


def guides(folder: Path = FOLDER) -> list[Guide]:
    """All guides, those for newcomers first."""
    if not folder.is_dir():
        return []
    found = [guide(path.stem, folder) for path in folder.glob("*.md") if _NAME.fullmatch(path.stem)]
    return sorted(found, key=lambda one: (FIRST.index(one.name) if one.name in FIRST else len(FIRST), one.title))


def guide(name: str, folder: Path = FOLDER) -> Guide:
    """One guide by name. NotFound where there is none."""
    path = _path(name, folder)
    return _read(path, path.stat().st_mtime_ns)


def html(name: str, link: Callable[[str], str], folder: Path = FOLDER) -> str:
    """A guide as HTML. link: the address of another guide by its name."""
    path = _path(name, folder)
    tokens = _tokens(path.read_text(encoding="utf-8"))
    known = {one.stem for one in folder.glob("*.md")}
    for token in tokens:
        for part in token.children or ():
            if part.type == "link_open":
                _lead(part, link, known)
    return str(_markdown().renderer.render(tokens, _markdown().options, {}))


def search(text: str, folder: Path = FOLDER) -> list[Hit]:
    """Sections that hold every word of `text`, in any case; those whose heading does come first."""
    words = text[:LONGEST_QUERY].casefold().split()
    if not words:
        return []
    found: list[tuple[int, Hit]] = []
    for one in guides(folder):
        for section in one.sections:
            heading = section.heading.casefold()
            whole = f"{heading} {section.text}".casefold()
            if all(word in whole for word in words):
                better = sum(word in heading for word in words)
                found.append((-better, Hit(one, section, *_around(section.text, words))))
    return [hit for _, hit in sorted(found, key=lambda pair: pair[0])]


def _path(name: str, folder: Path) -> Path:
    path = folder / f"{name}.md"
    if not _NAME.fullmatch(name) or not path.is_file():
        names = ", ".join(sorted(one.stem for one in folder.glob("*.md")))
        raise NotFound("guide", repr(name[:60]), names or "none is here", "Choose one from the list.")
    return path


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> Guide:
    """changed: nanoseconds; a part of the key, so that a new version is read."""
    sections: list[Section] = []
    heading, anchor, lines = "", "", list[str]()
    summary = ""
    tokens = _tokens(path.read_text(encoding="utf-8"))
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            sections.append(Section(heading, anchor, " ".join(lines)))
            heading, anchor, lines = tokens[place + 1].content, str(token.attrs["id"]), []
        elif token.type == "inline" and tokens[place - 1].type != "heading_open":
            plain = "".join(part.content or " " for part in token.children or ())
            lines.append(plain)
            summary = summary or plain
        elif token.type in ("fence", "code_block"):
            lines.append(token.content)
    sections.append(Section(heading, anchor, " ".join(lines)))
    kept = tuple(one for one in sections if one.heading or one.text)
    title = next((one.heading for one in kept if one.heading), path.stem)
    return Guide(path.stem, title, summary, kept)


@lru_cache(maxsize=1)
def _markdown() -> MarkdownIt:
    # "commonmark" alone would pass raw HTML through.
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def _tokens(text: str) -> list[Token]:
    """Parsed, with an id at every heading; the same heading twice gets a number."""
    tokens = _markdown().parse(text)
    taken: dict[str, int] = {}
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            slug = re.sub(r"[^\w]+", "-", tokens[place + 1].content.casefold()).strip("-") or "section"
            taken[slug] = taken.get(slug, 0) + 1
            token.attrSet("id", slug if taken[slug] == 1 else f"{slug}-{taken[slug]}")
        if token.type == "fence":
            token.info = ""  # no highlighting, so no class of a language
        if token.type == "table_open":
            token.attrSet("tabindex", "0")  # it scrolls where it is too wide, with the keyboard as well
    return tokens


def _lead(token: Token, link: Callable[[str], str], known: set[str]) -> None:
    """Point a link to where it may lead: markdown-it has refused scripts and the like already."""
    target, mark, anchor = str(token.attrs.get("href", "")).partition("#")
    name = target.removeprefix("./").removesuffix(".md")
    if target.endswith(".md") and name in known:
        token.attrSet("href", link(name) + mark + anchor)
    elif target.startswith(("https://", "http://")):
        token.attrSet("rel", "noreferrer noopener")
        token.attrSet("target", "_blank")
    elif target:
        token.attrs.pop("href")  # a file that is not part of the guides here


def _around(text: str, words: list[str]) -> tuple[str, str, str]:
    lower = text.casefold()
    places = [(lower.find(word), len(word)) for word in words if word in lower]
    if not places or len(lower) != len(text):  # casefold may change lengths; then the beginning is shown
        return text[: 2 * _AROUND], "", ""
    at, length = min(places)
    start = max(0, at - _AROUND)
    before = ("… " if start else "") + text[start:at]
    after = text[at + length : at + length + _AROUND]
    return before, text[at : at + length], after + (" …" if at + length + _AROUND < len(text) else "")
