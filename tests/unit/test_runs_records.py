"""What a run leaves for people: its log, its progress, and what is needed to make it again, without secrets."""

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.runs import repro, segments
from trainpilot.runs.devices import devices
from trainpilot.runs.progress import Progress, duration
from trainpilot.runs.rundir import RunDir
from trainpilot.runs.secrets import redact
from trainpilot.workspace import Workspace


@dataclass
class Picture:
    image: Path
    sha256: str
    repeats: int = 10
    caption: str = ""


@dataclass
class Table:
    samples: list

    def fingerprint(self):
        return "f" * 64


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    return RunDir.create(Workspace(tmp_path / "workspace"), Resolved(RunConfig(run={"name": "zorp", "seed": 9}), {}))


TABLE = Table([Picture(Path("/data/ä.png"), "a" * 64)])


def test_the_four_records_are_there_before_the_first_step_and_hold_no_secret(run, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_planted_canary")
    monkeypatch.setenv("REVISION", "abc123")
    run.begin_attempt()
    paths = repro.write(
        run, TABLE, command=["trainpilot", "train", "--set", "token=planted_canary_two", "hf_planted_canary"]
    )
    assert [path.name for path in paths] == [
        "zorp_command.txt", "zorp_repro.json", "zorp_pip_freeze.txt", "zorp_dataset_hash.txt",
    ]  # fmt: skip
    assert all(path.parent == run.workspace.logs for path in paths)
    command, record, freeze, data = (path.read_text() for path in paths)
    assert "trainpilot train" in command and f"trainpilot run {run.path}" in command
    found = json.loads(record)
    assert (found["seed"], found["attempt"], found["dataset_hash"]) == (9, 1, "f" * 64)
    assert found["hyperparameters"]["run"]["name"] == "zorp"
    assert f"pydantic=={__import__('pydantic').VERSION}" in freeze.splitlines()
    assert data.splitlines()[1] == "a" * 64 + "    10x  /data/ä.png"
    for path in run.workspace.root.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes()


def test_a_later_attempt_keeps_the_records_of_the_earlier_one(run):
    for _ in range(2):
        run.begin_attempt()
        repro.write(run, TABLE, command=[f"attempt-{run.attempt}"])
    logs = run.workspace.logs
    assert "attempt-2" in (logs / "zorp_command.txt").read_text()
    assert "attempt-1" in (logs / "zorp_attempt1_command.txt").read_text()


def test_the_revision_comes_from_git_or_from_the_environment(tmp_path, monkeypatch):
    def git(*words):
        setting = ["-c", "user.name=x", "-c", "user.email=x@y"]
        subprocess.run(["git", *setting, "-C", str(tmp_path), *words], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "trainpilot").mkdir()
    file = tmp_path / "trainpilot" / "a.py"
    file.write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    head, source = repro.revision_of(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{40}", head) and source == "git"
    file.write_text("2")
    assert repro.revision_of(tmp_path)[0] == head + "-dirty"
    monkeypatch.setenv("REVISION", "abc")
    assert repro.revision_of(tmp_path / "trainpilot") == ("abc", "environment REVISION")


SECRET = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=40)


@given(SECRET, st.sampled_from(["HF_TOKEN", "WANDB_API_KEY", "MY_WEBHOOK_URL", "db_password"]))
def test_a_secret_of_the_environment_never_comes_through(secret, name):
    assert secret not in redact(f"a {secret} b, https://x/{secret}?q", {name: secret})


@pytest.mark.parametrize(
    "text",
    [
        "--set notify.token=CANARY", "password: 'CANARY'", "api_key=\"CANARY\"", "https://me:CANARY@host/x",
        "hf_" + "CANARY" * 4, "Authorization token: CANARY",
    ],
)  # fmt: skip
def test_shapes_of_secrets_are_blotted_out(text):
    assert "CANARY" not in redact(text, {})


def test_ordinary_text_is_left_alone():
    text = "captions.keep_tokens=2 token_warmup_min=3 --set text_encoder.rank=8 step 4: 225 tokens, /data/secretary.png"
    assert redact(text, {"HOME": "/data", "PATH": "tokens"}) == text


def test_progress_on_no_terminal_is_plain_lines_now_and_then(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    out = io.StringIO()
    progress = Progress(out)
    progress.phase("loading")
    progress.phase("train", 100)
    for step in range(1, 101):
        now[0] += 0.5
        progress.update(step, loss=0.5, rate=1e-4, epoch=2, memory_gb=1.5)
    progress.say("done")
    progress.close()
    lines = out.getvalue().splitlines()
    assert lines[0] == "loading" and lines[-1] == "done"
    train = [line for line in lines if line.startswith("train ")]
    assert 9 <= len(train) <= 12  # 50 seconds, a line every five
    assert "train 51/100  epoch 2  0:24 left  loss 0.5000  rate 1.00e-04  2.00/s  1.5 GB" in train
    assert train[-1].startswith("train 100/100")
    assert "\x1b" not in out.getvalue()


def test_time_left_counts_from_where_a_resumed_run_began(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress(io.StringIO())
    progress.phase("train", 1000, done=500)
    assert progress.eta is None
    now[0] = 10.0
    progress.update(520)
    assert progress.speed == 2.0 and progress.eta == 240.0
    assert [duration(s) for s in (0, 61.4, 3723)] == ["0:00", "1:01", "1:02:03"]


PAINTER = """
import sys
from pathlib import Path
from trainpilot.runs.log import RunLog
from trainpilot.runs.progress import Progress
with RunLog(Path(sys.argv[1])) as log:
    progress = Progress(sys.__stdout__, log.text); log.show = progress.above
    progress.phase("train", 3)
    for step in (1, 2, 3): progress.update(step, loss=0.1234)
    print("a line of somebody's"); progress.close(); log.show = None
print("after")
"""


def test_a_terminal_gets_a_bar_and_the_log_gets_lines(tmp_path):
    reader, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", PAINTER, str(tmp_path / "log.txt")], stdout=terminal, stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "140"},
    )  # fmt: skip
    os.close(terminal)
    seen = b""
    while True:
        try:
            part = os.read(reader, 4096)
        except OSError:
            break  # the terminal's other end is closed
        if not part:
            break
        seen += part
    assert child.wait(20) == 0
    os.close(reader)
    assert b"3/3" in seen and b"loss 0.1234" in seen and b"a line of somebody's" in seen and b"after" in seen
    log = (tmp_path / "log.txt").read_text()
    assert "train 3/3" in log and "a line of somebody's" in log and "\x1b" not in log and "after" not in log


RUNAWAY = """
import sys; from trainpilot.runs.log import RunLog; from pathlib import Path; import os, time
with RunLog(Path(sys.argv[1]), segment_bytes=20_000, keep=int(sys.argv[2])) as log:
    for number in range(12000):
        os.write(1, b"%08d\\n" % number)
        if number % 2000 == 0: time.sleep(0.3)
"""


def runaway(path, keep):
    with path.open("ab") as out:
        subprocess.run([sys.executable, "-c", RUNAWAY, str(path), str(keep)], stdout=out, check=True)


def test_a_log_is_cut_without_losing_a_byte(tmp_path):
    path = tmp_path / "log.txt"
    runaway(path, 100)
    assert len(segments.archived(path)) >= 1
    data, cursor = b"", segments.START
    while part := segments.read(path, cursor, 5000):
        data, cursor = data + part[0], part[1]
        if not part[0]:
            break
    assert data == b"".join(b"%08d\n" % number for number in range(12000))


def test_a_runaway_log_is_bounded_and_a_reader_that_fell_behind_goes_on(tmp_path):
    path = tmp_path / "log.txt"
    runaway(path, 1)
    assert len(segments.archived(path)) == 1
    oldest = min(segments.archived(path))
    data, cursor, _ = segments.read(path, "1:100")
    assert oldest > 1 and data and segments.parse(cursor)[0] == oldest


def test_devices_are_named_or_the_cpu_with_a_reason():
    for chosen in ("", "-1"):
        assert devices({"CUDA_VISIBLE_DEVICES": chosen}) == (["cpu"], "CUDA_VISIBLE_DEVICES hides all GPUs")
    names, why = devices({})
    assert why and (names == ["cpu"] or all(name.startswith(("GPU-", "MIG-")) for name in names))
