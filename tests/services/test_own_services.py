"""A person's own services: whatever a file says, supervisord's text stays ours, and the command never runs as root."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlpilot.services import compile, environment, services
from controlpilot.services.own import PROGRAM, declared
from controlpilot.services.own import compile as compile_own
from trainpilot.workspace import Workspace

ROOT = Path(__file__).parents[2]
GOOD = {"command": ["python3", "-m", "http.server"], "label": "Files", "autostart": True, "stop_wait": 3}
KEYS = [line.split("=")[0] for line in PROGRAM.splitlines()[1:]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "config" / "services"
    place.mkdir(parents=True)
    return place


def put(folder: Path, name: str, **said: object) -> None:
    (folder / f"{name}.toml").write_text(tomli_w.dumps(said))


def holds(text: str) -> None:
    """Nothing in the text but whole programs of ours, each of which runs as pilot."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)  # strict: a section twice is an error
    for section in parser.sections():
        assert re.fullmatch(r"program:own-[a-z][a-z0-9-]{0,30}", section)
        assert list(parser[section]) == KEYS
        assert parser[section]["user"] == "pilot"
        name = section.removeprefix("program:own-")
        assert parser[section]["command"] == f"%(ENV_PILOT_PYTHON)s -m controlpilot.services.launch_own {name}"
        assert parser[section]["stdout_logfile"] == f"%(ENV_PILOT_LOGS)s/own-{name}.log"
        assert parser[section]["autostart"] in ("true", "false") and 1 <= int(parser[section]["stopwaitsecs"]) <= 7
    assert "\r" not in text and text.isascii()


def test_a_file_becomes_a_program_of_the_one_group(folder: Path) -> None:
    put(folder, "files", **GOOD)
    text, notes = compile(Workspace(folder.parents[1]))
    assert notes == []
    group = next(line for line in text.splitlines() if line.startswith("programs="))
    assert {"own-files", "panel", "gateway", "trainpilot"} <= set(group.removeprefix("programs=").split(","))
    assert text.count("[group:") == 1
    holds(text.split("\n\n", 1)[1])
    mine = [one for one in services(Workspace(folder.parents[1])) if one.own]
    assert [(one.name, one.program, one.label, one.autostart) for one in mine] == [
        ("files", "own-files", "Files", True)
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"user": "root"}, "unknown keys"),
        ({"stdout_logfile": "/etc/passwd"}, "unknown keys"),
        ({"serverurl": "unix:///run/pilot/supervisor.sock"}, "unknown keys"),
        ({"command": "sh -c id"}, "command"),
        ({"command": []}, "command"),
        ({"command": ["a\nuser=root"]}, "command"),
        ({"command": ["a", 1]}, "command"),
        ({"label": "x\n[program:evil]\ncommand=id"}, "label"),
        ({"directory": "/root"}, "directory"),
        ({"directory": "../.."}, "directory"),
        ({"environment": {"A\nuser": "root"}}, "environment"),
        ({"environment": {"A": 'x",user="root'}, "stop_signal": "KILL"}, "stop_signal"),
        ({"environment": {"LD_PRELOAD": "x.so"}}, "environment"),
        ({"environment": {"PILOT_SECRETS": "/"}}, "environment"),
        ({"environment": "A=1"}, "environment"),
        ({"stop_wait": 99}, "stop_wait"),
        ({"stop_wait": True}, "stop_wait"),
        ({"autostart": "true\nuser=root"}, "autostart"),
    ],
)
def test_what_a_file_may_not_say_is_named(folder: Path, said: dict[str, object], why: str) -> None:
    put(folder, "hostile", **(GOOD | said))
    text, notes = compile_own(folder)
    assert text == "" and len(notes) == 1 and why in notes[0]
    assert "\n" not in notes[0]


@pytest.mark.parametrize(
    "name", ["Panel", "a b", "a\nuser=root", "a]", "%(here)s", "ä", "-x", ".hidden", "a" * 40, "x;y"]
)
def test_a_name_is_small_letters(folder: Path, name: str) -> None:
    put(folder, name, **GOOD)
    text, notes = compile_own(folder)
    assert text == "" and len(notes) == 1 and "\n" not in notes[0]


def test_a_name_of_ours_stays_apart(folder: Path) -> None:
    for name in ("panel", "gateway", "own-panel", "pilot"):
        put(folder, name, **GOOD)
    text, _ = compile_own(folder)
    holds(text)
    assert "[program:panel]" not in text


def test_what_is_not_a_plain_file_is_not_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.toml"
    secret.write_text('command = ["secret-word"]\nsecret_key = 1')
    (folder / "link.toml").symlink_to(secret)
    os.mkfifo(folder / "pipe.toml")
    (folder / "folder.toml").mkdir()
    (folder / "large.toml").write_text("#" * 70_000)
    (folder / "deep.toml").write_text("a = " + "[" * 60_000)
    (folder / "binary.toml").write_bytes(b"\xff\xfe\x00")
    put(folder, "good", **GOOD)
    text, notes = compile_own(folder)
    holds(text)
    assert len(notes) == 6 and "[program:own-good]" in text
    assert "secret" not in text + " ".join(notes)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(folder)
    assert compile_own(elsewhere)[0] == ""


def test_many_files_do_not_hold_up_the_boot(folder: Path) -> None:
    for number in range(60):
        put(folder, f"s{number:02}", **GOOD)
    taken, notes = declared(folder)
    assert len(taken) == 32 and "60 files" in notes[0]


text_like = st.text(max_size=40) | st.sampled_from(
    ["root", "a\nuser=root", "%(ENV_HOME)s", "; x", " #x", '"', "'", "\\"]
)
values = st.recursive(
    text_like | st.booleans() | st.integers(-5, 10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text_like, inner, max_size=3),
    max_leaves=6,
)
known = ["command", "label", "help", "directory", "environment", "autostart", "stop_signal", "stop_wait", "user"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.text(max_size=12).filter(lambda name: "/" not in name and "\0" not in name and name.isprintable()),
        st.dictionaries(st.sampled_from(known) | text_like, values, max_size=6).map(lambda said: {**GOOD, **said})
        | st.binary(max_size=60),
        max_size=3,
    )
)
def test_no_file_changes_more_than_its_switch_its_signal_and_its_wait(
    files: dict[str, dict[str, object] | bytes],
) -> None:
    with tempfile.TemporaryDirectory() as place:
        for name, said in files.items():
            data = said if isinstance(said, bytes) else tomli_w.dumps(said).encode("utf-8", "surrogatepass")
            Path(place, f"{name}.toml").write_bytes(data)
        text, notes = compile_own(Path(place))
    holds(text)
    assert text.count("[program:own-") + len(notes) == len(files)
    assert not any("\n" in note for note in notes)


def start(folder: Path, name: str, **more: object) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PILOT_WORKSPACE": str(folder.parents[1]), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "controlpilot.services.launch_own", name]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, **more)  # type: ignore[call-overload,no-any-return]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try to start it as root")
def test_root_does_not_start_it(folder: Path) -> None:
    put(folder, "who", command=["id", "-u"])
    done = start(folder, "who")
    assert done.returncode == 126 and "never runs as root" in done.stderr and done.stdout == ""


def test_it_becomes_the_command_as_given(folder: Path) -> None:
    put(folder, "say", command=["printf", "%s|", "a b", "; x", "$(id)", "%(here)s"], environment={"A": "1"})
    # Tests may run as root, who would be refused: the one answer that is not the real one.
    program = (
        "import os, sys; os.geteuid = lambda: 1000; from controlpilot.services.launch_own import main; main(['say'])"
    )
    environ = {"PATH": os.environ["PATH"], "PILOT_WORKSPACE": str(folder.parents[1]), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout == "a b|; x|$(id)|%(here)s|", done.stderr


def test_the_choices_of_a_hostile_file_are_switches(tmp_path: Path) -> None:
    place = tmp_path / "config" / "services.toml"
    place.parent.mkdir()
    place.write_text(
        '[tensorboard]\nautostart = false\n["x\\nuser=root"]\nautostart = true\n[gateway]\nautostart = false\n'
    )
    given = environment(Workspace(tmp_path), {})
    assert given["PILOT_AUTOSTART_TENSORBOARD"] == "false" and given["PILOT_AUTOSTART_GATEWAY"] == "true"
    assert not any("\n" in name + value for name, value in given.items())
    place.write_text('[tensorboard]\nautostart = "false\\nuser=root"')
    assert environment(Workspace(tmp_path), {})["PILOT_AUTOSTART_TENSORBOARD"] == "true"
