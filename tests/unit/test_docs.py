"""docs/ and the README: what they say to type exists, what they link to is there, what they list can be loaded."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from trainpilot import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)(?:#([^)\s]+))?\)")


def blocks(kind: str | None = None) -> Iterator[tuple[Path, str, str]]:
    """(page, language, text) of every fenced block."""
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text("utf-8")):
            if kind is None or language == kind:
                yield page, language, text


def commands() -> Iterator[tuple[str, str]]:
    """(page, command) of every line in a block that calls trainpilot or controlpilot."""
    for page, _, text in blocks():
        for line in text.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:\S*/)?((?:trainpilot|controlpilot) .*)", line)
            if found:
                yield page.name, found[1]


def test_every_setting_is_on_the_options_page() -> None:
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        options = importlib.import_module("options_reference")
    finally:
        sys.path.pop(0)
    assert options.PAGE.read_text("utf-8") == options.page(), "run: python scripts/options_reference.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in LINK.findall(page.read_text("utf-8")):
        path = (page.parent / target).resolve()
        assert path.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, anchor


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_exist_as_they_are_written(page: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, *given = shlex.split(re.sub(r"[<>|;&].*", "", command), comments=True)
    known = cli.verbs(importlib.import_module(f"{program}.cli"))
    if given[0].startswith("-"):
        return
    assert given[0] in known, f"{page}: {program} has no verb {given[0]}"
    module = importlib.import_module(known[given[0]])
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    try:
        parser.parse_args(given[1:])
    except SystemExit as ended:
        assert ended.code in (0, None), f"{page}: {command}: {capsys.readouterr().err}"


@pytest.mark.parametrize(
    ("page", "language", "text"), list(blocks("toml")) + list(blocks("json")) + list(blocks("yaml"))
)
def test_configurations_can_be_read(page: Path, language: str, text: str) -> None:
    reader = {"toml": tomllib.loads, "json": json.loads, "yaml": yaml.safe_load}[language]
    assert reader(text), page.name
