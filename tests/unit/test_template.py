"""Seeding a workspace: what a person wrote is never changed, what they left alone is kept up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trainpilot.config.prompts import read_prompts
from trainpilot.errors import PilotError
from trainpilot.template import WORKSPACE_VERSION, check_writable, seed, workspace_version
from trainpilot.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def template(tmp_path: Path) -> Path:
    folder = tmp_path / "template"
    (folder / "config").mkdir(parents=True)
    (folder / "VERSION").write_text(f"{WORKSPACE_VERSION}\n")
    (folder / "README.txt").write_text("first\n")
    (folder / "config" / "go.sh").write_text("#!/bin/sh\n")
    (folder / "config" / "go.sh").chmod(0o755)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "workspace")


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_new_workspace_has_everything_of_the_template(template: Path, workspace: Workspace) -> None:
    done = seed(template, workspace)
    assert sorted(done.created) == ["README.txt", "config/go.sh"]
    assert {name: text for name, text in contents(workspace.root).items() if name in contents(template)} == contents(
        template
    )
    assert (workspace.root / "config" / "go.sh").stat().st_mode & 0o111
    assert workspace_version(workspace) == WORKSPACE_VERSION


def test_seeding_again_changes_nothing(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    before = contents(workspace.root)
    done = seed(template, workspace)
    assert (done.created, done.upgraded, done.beside, done.deleted) == ([], [], [], [])
    assert contents(workspace.root) == before


def test_an_untouched_file_is_upgraded(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    (template / "README.txt").write_text("second\n")
    assert seed(template, workspace).upgraded == ["README.txt"]
    assert (workspace.root / "README.txt").read_text() == "second\n"
    (template / "README.txt").write_text("third\n")
    assert seed(template, workspace).upgraded == ["README.txt"]


def test_an_edited_file_stays_and_gets_the_new_one_beside_it_once(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    mine = workspace.root / "README.txt"
    mine.write_text("mine\n")
    assert seed(template, workspace).beside == []  # nothing new to offer
    (template / "README.txt").write_text("second\n")
    assert seed(template, workspace).beside == ["README.txt.new"]
    assert mine.read_text() == "mine\n"
    new = workspace.root / "README.txt.new"
    assert new.read_text() == "second\n"
    new.unlink()  # merged by hand: the same version is not offered again
    assert seed(template, workspace).beside == []
    assert not new.exists()


def test_an_offer_that_was_edited_is_not_overwritten(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    (workspace.root / "README.txt").write_text("mine\n")
    for text in ("second\n", "third\n"):
        (template / "README.txt").write_text(text)
        assert seed(template, workspace).beside == ["README.txt.new"]  # an unread offer gives way to the next
    (workspace.root / "README.txt.new").write_text("half merged\n")
    (template / "README.txt").write_text("fourth\n")
    assert seed(template, workspace).beside == ["README.txt.new.2"]
    assert (workspace.root / "README.txt.new").read_text() == "half merged\n"
    assert (workspace.root / "README.txt.new.2").read_text() == "fourth\n"


def test_a_file_that_was_there_before_is_a_persons(template: Path, workspace: Workspace) -> None:
    workspace.root.mkdir()
    (workspace.root / "README.txt").write_text("mine\n")
    assert seed(template, workspace).beside == ["README.txt.new"]
    assert (workspace.root / "README.txt").read_text() == "mine\n"


def test_a_link_in_a_files_place_is_kept(template: Path, workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.txt"
    elsewhere.write_text("mine\n")
    workspace.root.mkdir()
    (workspace.root / "README.txt").symlink_to(elsewhere)
    seed(template, workspace)
    assert (workspace.root / "README.txt").is_symlink()
    assert elsewhere.read_text() == "mine\n"


def test_a_deleted_file_comes_back_only_when_asked_for(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    (workspace.root / "README.txt").unlink()
    assert seed(template, workspace).deleted == ["README.txt"]
    assert not (workspace.root / "README.txt").exists()
    assert seed(template, workspace, restore=True).created == ["README.txt"]


def test_a_newer_workspace_is_read_only(template: Path, workspace: Workspace) -> None:
    seed(template, workspace)
    (workspace.root / "VERSION").write_text(f"{WORKSPACE_VERSION + 1}\n")
    (template / "README.txt").write_text("second\n")
    before = contents(workspace.root)
    with pytest.raises(PilotError, match="read-only"):
        check_writable(workspace)
    with pytest.raises(PilotError, match="read-only"):
        seed(template, workspace)
    assert contents(workspace.root) == before


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5"])
def test_a_version_that_is_no_number_is_named(workspace: Workspace, text: str) -> None:
    workspace.root.mkdir()
    (workspace.root / "VERSION").write_text(text)
    with pytest.raises(PilotError, match="VERSION"):
        workspace_version(workspace)


@pytest.mark.parametrize("text", ["{", "[]", '{"files": []}', '{"files": {"a": {}}}', "3"])
def test_a_broken_record_is_named_and_nothing_is_touched(template: Path, workspace: Workspace, text: str) -> None:
    seed(template, workspace)
    (workspace.root / "config" / "template.json").write_text(text)
    before = contents(workspace.root)
    with pytest.raises(PilotError, match=r"template\.json"):
        seed(template, workspace)
    assert contents(workspace.root) == before


def test_no_template_is_named(tmp_path: Path, workspace: Workspace) -> None:
    with pytest.raises(PilotError, match="nowhere"):
        seed(tmp_path / "nowhere", workspace)
    assert not workspace.root.exists()


def test_the_command_seeds_from_the_projects_own_template(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainpilot.template", ROOT / "workspace-template", tmp_path / "w"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(tmp_path / "w") in done.stdout
    assert (tmp_path / "w" / "datasets" / "images" / "10_zorp" / "zorp_01.png").is_file()
    (tmp_path / "w" / "VERSION").write_text("99")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "version 99" in refused.stderr


def test_the_templates_version_is_the_codes() -> None:
    assert (ROOT / "workspace-template" / "VERSION").read_text() == f"{WORKSPACE_VERSION}\n"


def test_the_templates_prompts_can_be_read() -> None:
    prompts = read_prompts(ROOT / "workspace-template" / "config" / "prompts" / "demo.txt")
    assert [prompt.seed for prompt in prompts] == [1, 2, 3, 4]
    assert all("--" not in prompt.text and prompt.text for prompt in prompts)
