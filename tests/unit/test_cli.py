"""The command line's own behaviour: verbs found by scanning, help with examples, errors in both forms."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainpilot import __version__, cli
from trainpilot.errors import ExitCode

VERB = '''
"""A verb for these tests."""
from trainpilot.errors import PilotError, Problems

HELP = "Fail in several ways"
EXAMPLE = "trainpilot go-wrong --json"

def arguments(parser):
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--how", default="one")

def run(args):
    rank = PilotError("network.rank", -4, "1 to 1024", "Set it to 16.")
    if args.how == "one":
        raise rank
    if args.how == "two":
        raise Problems([rank, PilotError("model.base", "/nowhere", "a folder", "Name one.")])
    if args.how == "pipe":
        raise BrokenPipeError
    return 4
'''


@pytest.fixture
def go_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A verb added the way a verb is added: one file in a folder that is scanned."""
    (tmp_path / "go_wrong.py").write_text(VERB)
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    yield
    sys.modules.pop("trainpilot.cli.go_wrong", None)


def test_a_file_is_a_verb(go_wrong: None) -> None:
    assert cli.verbs()["go-wrong"] == "trainpilot.cli.go_wrong"
    assert all(not verb.startswith("_") for verb in cli.verbs())


def test_an_error_is_one_message_on_stderr(go_wrong: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["go-wrong"]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error in network.rank",
        "  given    -4",
        "  allowed  1 to 1024",
        "  remedy   Set it to 16.",
    ]


def test_an_error_is_json_where_a_program_reads(go_wrong: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["go-wrong", "--json", "--how", "two"]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert [problem["where"] for problem in error["problems"]] == ["network.rank", "model.base"]
    assert err == ""


def test_the_verbs_result_is_the_exit_status(go_wrong: None) -> None:
    assert cli.main(["go-wrong", "--how", "stop"]) == 4


@pytest.mark.parametrize("given", [[], ["nonsense"], ["go-wrong", "--nonsense"]])
def test_a_wrong_command_line_is_bad_input(go_wrong: None, given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(given)
    assert ended.value.code == ExitCode.BAD_INPUT


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"trainpilot {__version__}\n"


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for verb, name in cli.verbs().items():
        assert f"    {verb} " in shown
        assert importlib.import_module(name).HELP.split()[0] in shown


@pytest.mark.parametrize("verb", cli.verbs())
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([verb, "--help"])
    assert ended.value.code == 0
    example = importlib.import_module(cli.verbs()[verb]).EXAMPLE
    assert example.startswith(f"trainpilot {verb}")
    assert f"example: {example}" in capsys.readouterr().out
