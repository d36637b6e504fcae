"""The memo of file facts: right after every change, shared by threads and processes, and never in the way."""

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trainpilot.datasets import hashes
from trainpilot.datasets.hashes import Memo, file_hash


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.fixture
def settled(monkeypatch):
    """Believe fresh files at once: a test cannot set back the time of change."""
    monkeypatch.setattr(hashes, "SETTLED_NS", -1)


def test_a_hash_is_learned_once(tmp_path, settled):
    path = written(tmp_path / "a", b"one")
    calls = []

    def learn(path):
        calls.append(path)
        return "fact"

    with Memo(tmp_path / "memo.sqlite") as memo:
        assert [memo.recall("k", path, learn) for _ in range(3)] == ["fact"] * 3
    with Memo(tmp_path / "memo.sqlite") as memo:
        assert memo.recall("k", path, learn) == "fact"
        assert len(calls) == 1
        memo.recall("other kind", path, learn)
    assert len(calls) == 2


def test_an_edit_that_keeps_size_and_time_is_noticed(tmp_path, settled):
    path = written(tmp_path / "a", b"one")
    with Memo(tmp_path / "memo.sqlite") as memo:
        before = path.stat()
        assert file_hash(path, memo) == hashlib.sha256(b"one").hexdigest()
        path.write_bytes(b"two")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert file_hash(path, memo) == hashlib.sha256(b"two").hexdigest()


def test_a_file_written_this_instant_is_not_believed_yet(tmp_path):
    path = written(tmp_path / "a", b"one")
    with Memo(tmp_path / "memo.sqlite") as memo:
        file_hash(path, memo)
        assert memo.known("sha256", [hashes.Stamp(path)]) == [None]


def test_a_damaged_memo_is_said_and_does_not_stop_anyone(tmp_path):
    (tmp_path / "memo.sqlite").write_bytes(b"this is no database" * 1000)
    path = written(tmp_path / "a", b"one")
    with Memo(tmp_path / "memo.sqlite") as memo:
        assert file_hash(path, memo) == hashlib.sha256(b"one").hexdigest()
        assert len(memo.notes) == 1 and "memo.sqlite" in memo.notes[0]
    (tmp_path / "file").touch()
    with Memo(tmp_path / "file" / "memo.sqlite") as memo:
        assert file_hash(path, memo) == file_hash(path)


def test_names_that_are_not_utf8(tmp_path, settled):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system wants UTF-8 names")
    with Memo(tmp_path / "memo.sqlite") as memo:
        assert file_hash(path, memo) == file_hash(path, memo) == hashlib.sha256(b"x").hexdigest()


def test_threads_and_processes_share_one_memo(tmp_path, settled):
    files = [written(tmp_path / f"f{number}", b"%d" % number) for number in range(40)]
    program = (
        "import sys; from pathlib import Path; from trainpilot.datasets import hashes; hashes.SETTLED_NS = -1\n"
        "with hashes.Memo(Path(sys.argv[1])) as memo:\n"
        "    for name in sys.argv[2:]: hashes.file_hash(Path(name), memo)\n"
        "    assert not memo.notes, memo.notes\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "memo.sqlite"), *map(str, files)]
    others = [subprocess.Popen(command) for _ in range(3)]
    with Memo(tmp_path / "memo.sqlite") as memo:
        threads = [threading.Thread(target=lambda: [file_hash(path, memo) for path in files]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in others] == [0, 0, 0]
        expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        assert memo.known("sha256", map(hashes.Stamp, files)) == expected
        assert not memo.notes
