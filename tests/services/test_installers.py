"""The installers, against local repositories: resumable, checked, removable; and Kohya's Gradio for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controlpilot.services import FOLDER
from controlpilot.services.health import healthy
from controlpilot.views.trash import Trash
from tests.services.stand_ins import free_port
from tests.services.supervised import ROOT, SUPERVISORD, supervised
from trainpilot.workspace import Workspace

SCRIPTS = ROOT / "scripts" / "services"
pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="needs git")

# Kohya's own flags; Gradio at Kohya's pin where it is installed, else a server of the standard library.
PAGE = """
import argparse, http.server, tomllib
flags = argparse.ArgumentParser()
flags.add_argument("--listen"); flags.add_argument("--server_port", type=int); flags.add_argument("--config")
for name in ("--headless", "--noverify", "--do_not_share", "--do_not_use_shell"):
    flags.add_argument(name, action="store_true")
given = flags.parse_args()
assert given.headless and given.noverify and given.do_not_share and given.do_not_use_shell
print("output", tomllib.load(open(given.config, "rb"))["output_dir"], flush=True)
open("setup.log", "a").close()
try:
    import gradio
except ModuleNotFoundError:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers()
    http.server.ThreadingHTTPServer((given.listen, given.server_port), Answer).serve_forever()
else:
    with gradio.Blocks() as page:
        gradio.Markdown("kohya stand-in")
    page.launch(server_name=given.listen, server_port=given.server_port, share=False)
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A repository like Kohya's."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "kohya_gui.py").write_text(PAGE)
    (folder / "requirements_linux.txt").write_text("")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def run(
    script: str, verb: str, workspace: Path, upstream: Path | str = "", pin: str = "main", **more: str
) -> tuple[int, str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(workspace),
        "PILOT_WORKSPACE": str(workspace),
        "PILOT_BASE_PYTHON": sys.executable,
        "PILOT_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "PILOT_SOURCE": str(upstream),
        "PILOT_PIN": pin,
    }
    for name in ("PIP_CONFIG_FILE", "PIP_FIND_LINKS", "XDG_CONFIG_HOME", "SSL_CERT_FILE"):
        if name in os.environ:
            environ[name] = os.environ[name]
    done = subprocess.run(
        [str(SCRIPTS / f"{script}.sh"), verb],
        env=environ | more,
        cwd=workspace,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
    )
    return done.returncode, done.stdout


def test_a_failed_installation_goes_on_and_another_pin_is_another_installation(tmp_path: Path, upstream: Path) -> None:
    pytest.importorskip("pip")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    app = workspace / "apps" / "kohya"
    first = git(upstream, "rev-parse", "--short=8", "HEAD")
    # A package that is not there yet: as when the network goes away.
    (upstream / "requirements_linux.txt").write_text(f"-r {tmp_path}/later.txt\n")
    git(upstream, "commit", "-qam", "needs a package")
    pin = git(upstream, "rev-parse", "--short=8", "HEAD")
    code, said = run("kohya", "install", workspace, upstream, pin)
    assert code == 3 and "the step packages failed" in said, said
    assert not (app / "INSTALLED").exists()
    assert run("kohya", "version", workspace, upstream, pin)[1].startswith("not installed")
    (tmp_path / "later.txt").write_text("")
    code, said = run("kohya", "install", workspace, upstream, pin)
    assert code == 0 and "fetch: done before" in said and "environment: done before" in said, said
    assert run("kohya", "version", workspace, upstream, pin) == (0, f"Kohya SS {pin}\n")
    assert "is installed" in run("kohya", "install", workspace, upstream, pin)[1]
    assert run("kohya", "size", workspace)[0] == 0
    # Another pin: its files, and only its files.
    code, said = run("kohya", "install", workspace, upstream, first)
    assert code == 0 and "== packages\n" in said, said
    assert (app / "src" / "requirements_linux.txt").read_text() == ""
    # Removing: to the trash, data stays, and back.
    (app / "data").mkdir()
    (app / "data" / "mine").write_text("mine")
    (workspace / "datasets").mkdir()
    (app / "src" / "datasets").symlink_to(workspace / "datasets")
    code, said = run("kohya", "remove", workspace)
    assert code == 0 and (app / "data" / "mine").exists() and not (app / "src").exists(), said
    assert (workspace / "datasets").is_dir()
    assert run("kohya", "remove", workspace)[0] == 2
    trash = Trash(Workspace(workspace))
    trash.restore(trash.entries()[0].id)
    assert run("kohya", "version", workspace, upstream, first) == (0, f"Kohya SS {first}\n")


@pytest.mark.parametrize("script", sorted(path.stem for path in SCRIPTS.glob("[a-z]*.sh")))
def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path: Path, script: str) -> None:
    (tmp_path / "bin").mkdir()
    df = tmp_path / "bin" / "df"
    df.write_text("#!/bin/sh\necho Avail; echo 0\n")
    df.chmod(0o755)
    code, said = run(script, "install", tmp_path, "/nonexistent", PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert code == 2 and "0 GB are free; free some" in said.splitlines()[-1]
    assert not (tmp_path / "apps").exists()
    assert run(script, "everything", tmp_path)[0] == 2
    assert run(script, "version", tmp_path)[1].startswith("not installed")


def test_two_installations_do_not_meet(tmp_path: Path, upstream: Path) -> None:
    app = tmp_path / "apps" / "kohya"
    app.mkdir(parents=True)
    with subprocess.Popen(["flock", str(app / ".lock"), "sleep", "30"]) as holder:
        time.sleep(0.3)
        code, said = run("kohya", "install", tmp_path, upstream)
        holder.kill()
    assert code == 2 and "another installation" in said


def test_an_archive_is_checked_and_a_damaged_one_is_not_unpacked(tmp_path: Path) -> None:
    inner = tmp_path / "code-server-1" / "bin"
    inner.mkdir(parents=True)
    (inner / "code-server").write_text("#!/bin/sh\n")
    (inner / "code-server").chmod(0o755)
    archive = tmp_path / "a.tar.gz"
    subprocess.run(["tar", "-czf", archive, "-C", tmp_path, "code-server-1"], check=True)
    digest = subprocess.run(["sha256sum", archive], check=True, capture_output=True, text=True).stdout.split()[0]
    app = tmp_path / "apps" / "code-server"
    code, said = run("code-server", "install", tmp_path, archive.as_uri(), PILOT_SHA256="0" * 64)
    assert code == 3 and not (app / "code-server").exists(), said
    code, said = run("code-server", "install", tmp_path, archive.as_uri(), PILOT_SHA256=digest)
    assert code == 0 and os.access(app / "code-server" / "bin" / "code-server", os.X_OK), said


def opened(workspace: Path, wait: float) -> None:
    """Kohya's service file starts what was installed; it answers, and stops in its seven seconds."""
    port = free_port()
    with supervised({"kohya": port}, PILOT_APPS=str(workspace / "apps"), PILOT_BUILT_APPS="/nonexistent") as pod:
        home = Path(pod.places["PILOT_WORKSPACE"])
        pod.calls.startProcess("pilot:kohya", False)
        service = pod.service("kohya")
        deadline = time.monotonic() + wait
        while not healthy(service)[0]:
            assert time.monotonic() < deadline, pod.log("kohya")
            time.sleep(0.2)
        assert f"output {home}/outputs/kohya" in pod.log("kohya")
        assert (home / "config" / "kohya" / "config.toml").is_file() and (home / "logs" / "tb" / "kohya").is_dir()
        assert (workspace / "apps" / "kohya" / "src" / "setup.log").is_file()
        begin = time.monotonic()
        pod.calls.stopProcess("pilot:kohya", True)
        assert time.monotonic() - begin < 7.5
        assert not healthy(service)[0]


@pytest.mark.skipif(not SUPERVISORD.exists(), reason="needs supervisor, of the extra dev")
def test_an_installed_service_finds_the_workspace(tmp_path: Path, upstream: Path) -> None:
    app = tmp_path / "apps" / "kohya"
    shutil.copytree(upstream, app / "src")
    (app / "venv" / "bin").mkdir(parents=True)
    (app / "venv" / "bin" / "python").symlink_to(sys.executable)
    (app / "INSTALLED").write_text("a stand-in")
    opened(tmp_path, 30)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("PILOT_REAL_SERVICES") != "1", reason="PILOT_REAL_SERVICES=1 fetches Gradio")
@pytest.mark.skipif(not SUPERVISORD.exists(), reason="needs supervisor, of the extra dev")
def test_kohyas_gradio_is_installed_started_and_stopped(tmp_path: Path, upstream: Path) -> None:
    (upstream / "requirements_linux.txt").write_text("gradio==6.17.3\n")
    git(upstream, "commit", "-qam", "Gradio")
    code, said = run("kohya", "install", tmp_path, upstream)
    assert code == 0, said[-3000:]
    opened(tmp_path, 90)


def test_the_seeds_are_there() -> None:
    """Every first settings file that a service names, and no other."""
    from controlpilot.services import read

    named = {seed for conf in FOLDER.glob("*.conf") for seed, _ in read(conf).seeds}
    assert named == {path.name for path in (FOLDER / "seeds").iterdir()}
