"""The service files in a real supervisord: they start, stop within their seconds, fail with their reason in sight."""

from __future__ import annotations

import configparser
import os
import re
import socket
import sys
import time
from pathlib import Path

import pytest

from controlpilot.services import FOLDER, environment, read, services
from controlpilot.services.choices import choose, trouble
from controlpilot.services.health import healthy
from tests.services.stand_ins import free_port
from tests.services.supervised import ROOT, SUPERVISORD, supervised
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

CONFS = sorted(FOLDER.glob("*.conf"))
needs_supervisord = pytest.mark.skipif(not SUPERVISORD.exists(), reason="needs supervisor, of the extra dev")
needs_tensorboard = pytest.mark.skipif(
    not (Path(sys.executable).parent / "tensorboard").exists(), reason="needs tensorboard, of the extra train"
)


def parsed(conf: Path) -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(conf.read_text())
    return parser[f"program:{conf.stem}"]


@pytest.mark.parametrize("conf", CONFS, ids=lambda conf: conf.stem)
def test_every_program_stops_in_time_as_a_group_and_never_runs_as_root(conf: Path) -> None:
    program = parsed(conf)
    assert program["user"] in ("pilot", "panel", "gateway")
    assert 1 <= int(program["stopwaitsecs"]) <= 7
    assert program["killasgroup"] == "true" and program["stopsignal"] in ("TERM", "INT")
    # AI Toolkit's keeper stops its own: its children have to live until its jobs were asked to stop.
    assert program["stopasgroup"] == ("false" if conf.stem == "ai-toolkit" else "true")
    assert program["stdout_logfile"] == f"%(ENV_PILOT_LOGS)s/{conf.stem}.log" and program["redirect_stderr"] == "true"
    assert program["stdout_logfile_maxbytes"] == "5MB" and int(program["stdout_logfile_backups"]) <= 3
    if read(conf).install:
        assert program["user"] == "pilot"


def test_every_variable_of_the_files_is_given(tmp_path: Path) -> None:
    given = environment(Workspace(tmp_path), {})
    used = {name for conf in CONFS for name in re.findall(r"%\(ENV_([A-Z_]+)\)s", conf.read_text())}
    assert used <= set(given) and "PILOT_RUN" in used
    assert not any(word in name for name in given for word in ("TOKEN", "PASSWORD"))


def test_the_public_ports_are_the_contracts(tmp_path: Path) -> None:
    ports = {one.name: one.port for one in services(Workspace(tmp_path)) if one.port}
    names = ["panel", "tensorboard", "jupyterlab", "kohya", "ai-toolkit", "comfyui", "invokeai", "code-server"]
    assert ports == dict(zip(names, range(7878, 7886), strict=True))
    for one in services(Workspace(tmp_path)):
        assert one.upstream is None or one.upstream.startswith(("unix:", "http://127.0.0.1:"))
        assert one.install is None or (ROOT / "scripts" / "services" / f"{one.install}.sh").is_file()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (("label =", "lable ="), "lable"),
        (("port = 7879", "port = many"), "port"),
        (("autostart = yes", "autostart = perhaps"), "autostart"),
        (("[panel:tensorboard]", "[panel:other]"), "tensorboard.conf"),
        (("folders =", "seeds = a b\nfolders ="), "seeds"),
    ],
)
def test_a_file_that_nobody_could_read_is_named(tmp_path: Path, change: tuple[str, str], where: str) -> None:
    text = (FOLDER / "tensorboard.conf").read_text()
    assert change[0] in text
    (tmp_path / "tensorboard.conf").write_text(text.replace(*change))
    with pytest.raises(PilotError) as caught:
        services(Workspace(tmp_path), tmp_path)
    assert where in caught.value.message


def test_two_services_cannot_share_a_port(tmp_path: Path) -> None:
    text = (FOLDER / "tensorboard.conf").read_text()
    (tmp_path / "tensorboard.conf").write_text(text)
    (tmp_path / "another.conf").write_text(text.replace("tensorboard]", "another]"))
    with pytest.raises(PilotError, match="7879"):
        services(Workspace(tmp_path), tmp_path)


def test_a_choice_lasts_and_a_broken_file_of_choices_is_not_written_over(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    choose(workspace, "tensorboard", False)
    choose(workspace, "own-mine", True)
    assert environment(workspace, {})["PILOT_AUTOSTART_TENSORBOARD"] == "false"
    place = tmp_path / "config" / "services.toml"
    place.write_text("broken = [")
    assert environment(workspace, {})["PILOT_AUTOSTART_TENSORBOARD"] == "true"
    assert trouble(workspace)
    with pytest.raises(PilotError):
        choose(workspace, "tensorboard", True)
    assert place.read_text() == "broken = ["


@needs_supervisord
@needs_tensorboard
def test_tensorboard_starts_answers_and_stops_and_a_crash_takes_nobody_down() -> None:
    crash = (
        f"[program:crash]\ncommand={sys.executable} -c \"print('the reason is here'); raise SystemExit(3)\"\n"
        "autostart=false\nstartsecs=3\nstartretries=2\nredirect_stderr=true\n"
        "stdout_logfile=%(ENV_PILOT_LOGS)s/crash.log\n"
    )
    with supervised({"tensorboard": free_port()}, extra={"crash": crash}) as pod:
        pod.calls.startProcess("pilot:tensorboard", False)
        pod.calls.startProcess("pilot:crash", False)
        service = pod.service("tensorboard")
        deadline = time.monotonic() + 40
        while not healthy(service)[0]:
            assert time.monotonic() < deadline, pod.log("tensorboard")
            time.sleep(0.2)
        pod.until("crash", "FATAL")
        assert "the reason is here" in pod.calls.readProcessStdoutLog("pilot:crash", -200, 0)
        pod.until("tensorboard", "RUNNING")
        assert healthy(service) == (True, "answers 200")
        assert (Path(pod.places["PILOT_WORKSPACE"]) / "logs" / "tb").is_dir()
        begin = time.monotonic()
        pod.calls.stopProcess("pilot:tensorboard", True)
        assert time.monotonic() - begin < 5 and pod.state("tensorboard") == "STOPPED"
        assert not healthy(service)[0]


@needs_supervisord
def test_a_taken_port_is_named_and_the_others_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with supervised({"tensorboard": port}) as pod:
            pod.calls.startProcess("pilot:tensorboard", False)
            pod.until("tensorboard", "FATAL")
            log = pod.log("tensorboard")
            assert f"port {port} is taken by" in log and f"(process {os.getpid()})" in log


@needs_supervisord
def test_what_is_not_installed_says_how_to_install_it() -> None:
    with supervised({"comfyui": None}, PILOT_APPS="/nonexistent", PILOT_BUILT_APPS="/nonexistent") as pod:
        pod.calls.startProcess("pilot:comfyui", False)
        pod.until("comfyui", "FATAL")
        assert "controlpilot services install comfyui" in pod.log("comfyui")


@needs_supervisord
def test_one_group_stops_at_the_same_time() -> None:
    """Five programs that take three seconds each, and one that ignores the signal: seven seconds in all."""
    slow = (
        '[program:{name}]\ncommand={python} -c "import signal,sys,time; signal.signal(signal.SIGTERM, {how}); '
        "print('ready', flush=True); time.sleep(60)\"\n"
        "autostart=true\nstartsecs=0\nstopwaitsecs=7\nstopasgroup=true\nkillasgroup=true\n"
        "stdout_logfile=%(ENV_PILOT_LOGS)s/{name}.log\n"
    )
    polite = "lambda *_: (time.sleep(3), sys.exit(0))"
    extra = {f"slow{n}": slow.format(name=f"slow{n}", python=sys.executable, how=polite) for n in range(5)}
    extra["deaf"] = slow.format(name="deaf", python=sys.executable, how="signal.SIG_IGN")
    with supervised({}, extra=extra) as pod:
        for name in extra:
            while "ready" not in pod.log(name):
                time.sleep(0.05)
        begin = time.monotonic()
        pod.process.terminate()
        pod.process.wait(20)
        took = time.monotonic() - begin
        assert took < 9.5, took
        assert "slow4 (exit status 0)" in (pod.folder / "s.log").read_text().replace("stopped: ", "")
