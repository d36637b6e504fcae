"""The house rules: linters, types, who may import whom, the README's tree, file sizes, and what is never written."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import trainpilot

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RULE = PROJECT["tool"]["importlinter"]["contracts"][0]
LINE_LIMIT = 600
TEXT = {".py", ".sh", ".md", ".toml", ".txt", ".ini", ".conf", ".css", ".js", ".html", ""}
# Not written line by line: the licence's text, the lock that a script makes, generated tables, measured results.
GIVEN = ("LICENSE", "requirements.lock", "benchmarks/results/")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL
    )


def files() -> list[Path]:
    """Every file of the project: tracked, or new and not ignored; relative to the root."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listed.returncode == 0, listed.stderr
    return sorted({Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()})


def written() -> list[Path]:
    return [path for path in files() if path.suffix in TEXT and not str(path).startswith(GIVEN)]


# --- linters and types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff_finds_nothing(command: list[str]) -> None:
    done = run(sys.executable, "-m", "ruff", *command, "--quiet", ".")
    assert done.returncode == 0, done.stdout + done.stderr


# Command lines that other trainers' users keep are read by our dialects; nobody runs them here.
SCRIPTS = [
    path
    for path in files()
    if (path.suffix == ".sh" or str(path) == ".ci/run") and "data/dialects" not in path.as_posix()
]


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_a_script_parses_and_may_be_run(path: Path) -> None:
    done = run("bash", "-n", str(path))
    assert done.returncode == 0, done.stderr
    assert os.access(ROOT / path, os.X_OK)
    assert "set -euo pipefail" in (ROOT / path).read_text()


def test_the_types_are_right() -> None:
    done = run(sys.executable, "-m", "mypy")
    assert done.returncode == 0, done.stdout + done.stderr


# --- who may import whom ----------------------------------------------------------------------------------------------


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on the package in `folder`, with the project's own contracts."""
    code = (
        "import sys; from importlinter.cli import lint_imports_command as c; c(['--no-cache', '--config', sys.argv[1]])"
    )
    return run(sys.executable, "-c", code, str(ROOT / "pyproject.toml"), cwd=folder, PYTHONPATH=str(folder))


def test_the_import_rule_holds() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_import_rule_can_be_broken(tmp_path: Path) -> None:
    for package in ("trainpilot", "controlpilot"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "vendor"))
    assert lint_imports(tmp_path).returncode == 0
    source = tmp_path / "trainpilot" / "workspace.py"
    # Inside a function and one module away: as hidden as it gets.
    source.write_text(source.read_text() + "\n\ndef hidden():\n    import torch\n    return torch\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    assert "trainpilot.workspace -> torch" in done.stdout
    assert "the panel never imports torch, nor the rooms that do, nor a family's adapter BROKEN" in done.stdout


def test_light_rooms_load_no_heavy_library() -> None:
    """At run time too: import every light module and every verb in one fresh process, and look who came along."""
    rooms = ["trainpilot.cli", *RULE["source_modules"]]
    heavy = [name for name in RULE["forbidden_modules"] if not name.startswith("trainpilot")]
    code = f"""
import importlib, pkgutil, sys
for room in {rooms!r}:
    module = importlib.import_module(room)
    inside = pkgutil.walk_packages(getattr(module, "__path__", []), room + ".")
    for name in [room, *(found.name for found in inside)]:
        importlib.import_module(name)
        brought = [library for library in {heavy!r} if library in sys.modules]
        if brought:
            sys.exit(f"import {{name}} brings {{brought}}")
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_importing_prints_and_writes_nothing(tmp_path: Path) -> None:
    found = pkgutil.walk_packages(trainpilot.__path__, "trainpilot.")
    names = [info.name for info in found if not info.name.endswith("__main__")]
    done = run(sys.executable, "-c", "; ".join(f"import {name}" for name in names), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert list(tmp_path.iterdir()) == []


# --- the README's tree ------------------------------------------------------------------------------------------------


def tree() -> dict[str, set[str]]:
    """Folder -> names listed under it in the README; "" is the top. Checks that each line says something."""
    block = (ROOT / "README.md").read_text().partition("## What is where")[2].split("```")[1]
    listed: dict[str, set[str]] = {"": set()}
    parent = ""
    for line in block.strip().splitlines():
        name, _, _note = line.strip().partition(" ")
        if line.startswith("  "):
            listed.setdefault(parent, set()).add(name)
        else:
            listed[""].add(name)
            parent = name
    return listed


def test_the_readme_lists_what_is_on_disk() -> None:
    on_disk: dict[str, set[str]] = {}
    for path in files():
        top, *rest = path.parts
        on_disk.setdefault("", set()).add(top + ("/" if rest else ""))
        if rest:
            on_disk.setdefault(f"{top}/", set()).add(rest[0] + ("/" if len(rest) > 1 else ""))
    for folder, names in tree().items():
        assert names == on_disk[folder], folder or "the top"


def test_every_line_of_the_readmes_tree_says_what_it_is() -> None:
    block = (ROOT / "README.md").read_text().partition("## What is where")[2].split("```")[1]
    bare = [
        line for line in block.splitlines() if line.strip() in {name for names in tree().values() for name in names}
    ]
    assert set(bare) <= {"scripts/", "tests/"}


# --- files ------------------------------------------------------------------------------------------------------------


def test_no_file_is_long() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in written()}
    assert {name: length for name, length in lengths.items() if length > LINE_LIMIT} == {}


def test_every_module_says_what_lives_in_it() -> None:
    # Empty __init__.py files of test folders hold nothing to be said.
    silent = [
        str(path)
        for path in files()
        if path.suffix == ".py"
        and (source := (ROOT / path).read_text()).strip()
        and not ast.get_docstring(ast.parse(source))
    ]
    assert silent == []


def swallowed(source: str) -> list[int]:
    """Lines of handlers that catch everything, do not raise again and do not say why in the linter's exemption."""
    found, lines = [], source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        broad = any(kind is None or ast.unparse(kind) in ("Exception", "BaseException") for kind in kinds)
        explained = re.search(r"# noqa: BLE001 - \w+", lines[node.lineno - 1])
        if broad and not explained and not any(isinstance(inner, ast.Raise) for inner in ast.walk(node)):
            found.append(node.lineno)
    return found


def test_nothing_is_caught_that_cannot_be_explained() -> None:
    found = {str(path): swallowed((ROOT / path).read_text()) for path in files() if path.suffix == ".py"}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("caught", ["", " Exception", " (ValueError, Exception)", " BaseException as error"])
def test_a_swallowed_exception_would_be_noticed(caught: str) -> None:
    assert swallowed(f"try:\n    a()\nexcept{caught}:\n    pass\n") == [3]
    assert swallowed(f"try:\n    a()\nexcept{caught}:\n    raise\n") == []
    assert swallowed("try:\n    a()\nexcept ValueError:\n    pass\n") == []


def test_nothing_is_left_for_later() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
    found = [
        f"{path}:{number}"
        for path in written()
        for number, line in enumerate((ROOT / path).read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert found == []


# --- what is installed ------------------------------------------------------------------------------------------------


def test_the_lock_holds_every_direct_dependency_at_its_version() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    extras = PROJECT["project"]["optional-dependencies"]
    named = [line for extra in ("train", "panel", "caption", "evaluate", "dev") for line in extras[extra]]
    for requirement in [*PROJECT["project"]["dependencies"], *named]:
        name, version = requirement.split("==")
        assert locked[name.lower()] == version, "run scripts/lock.py"
    assert "torchvision" not in locked


def test_what_is_installed_is_what_is_locked() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    wrong = {}
    for name, version in (line.split("==") for line in lines if "==" in line and not line.startswith("#")):
        if name == "setuptools":
            continue  # a virtual environment may bring its own
        installed = importlib.import_module("importlib.metadata").version(name).partition("+")[0]
        if installed != version:
            wrong[name] = installed
    assert wrong == {}
