"""Checkpoints hold everything exactly, the good ones survive bad disks, and nested state comes back as it was."""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from trainpilot.engine import checkpoints
from trainpilot.engine.checkpoints import MARKER, Snapshot, committed, load, newest, save
from trainpilot.engine.nested import flatten, unflatten
from trainpilot.errors import PilotError, RunFailed


def snapshot(step: int, size: int = 8) -> Snapshot:
    """A state that is a function of its step, of `size` numbers a tensor."""
    adapter = {"denoiser:a:lora_A.weight": torch.full((size,), float(step)), "denoiser:a:lora_B.weight": torch.rand(2)}
    return Snapshot(
        step=step,
        adapter=adapter,
        average={name: tensor / 3 for name, tensor in adapter.items()},
        optimizer={
            "state": {0: {"step": torch.tensor(float(step)), "exp_avg": torch.rand(size), "d": 0.1 + step}},
            "param_groups": [{"lr": 1e-3 / 3, "betas": (0.9, 0.999), "params": [0], "fused": None}],
        },
        schedule={"last_epoch": step, "_last_lr": [1e-3 / 7]},
        scaler={},
        rate_factor=0.1,
        rollbacks=1,
        clock={"began": 1.5, "seconds": 2.25},
    )


def nothing(folder: Path) -> None:
    """A LoRA file that is not written."""


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, NaN equal to NaN, through containers."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        # As bytes: NaN, minus zero and the shape count too.
        return (one.dtype, one.shape) == (other.dtype, other.shape) and torch.equal(
            one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    return bool(one == other)


_tensors = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=torch.float32).to(dtype),
    st.lists(st.floats(width=32), max_size=4) | st.floats(width=32),
    st.sampled_from([torch.float32, torch.bfloat16, torch.uint8, torch.int64]),
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | _tensors
    | st.sampled_from([torch.float16, torch.bfloat16])
)
_states = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_states)
def test_nested_state_survives_json_and_safetensors(state: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    document = json.loads(json.dumps(flatten(state, tensors, "optimizer")))
    assert same(unflatten(document, tensors), state)


def test_what_a_checkpoint_cannot_hold_is_named() -> None:
    with pytest.raises(TypeError, match=r"set at optimizer"):
        flatten({"state": {1, 2}}, {}, "optimizer")


def test_a_checkpoint_gives_back_the_state(tmp_path: Path) -> None:
    given_state = snapshot(3)
    path = save(tmp_path, given_state, lambda folder: (folder / "lora.safetensors").write_bytes(b"lora"), keep=3)
    assert same(vars(load(path)), vars(given_state))
    assert (path / "lora.safetensors").read_bytes() == b"lora"
    assert sorted(p.name for p in path.iterdir()) == [MARKER, "lora.safetensors", "state.safetensors", "training.json"]


@pytest.mark.parametrize(("keep", "left"), [(0, [1, 2, 3, 4, 5]), (1, [5]), (2, [4, 5])])
def test_the_oldest_go_by_count(tmp_path: Path, keep: int, left: list[int]) -> None:
    for step in range(1, 6):
        save(tmp_path, snapshot(step), nothing, keep=keep)
    assert [load(path).step for path in committed(tmp_path)] == left
    assert len(list(tmp_path.iterdir())) == len(left)


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):  # one digit more than the names are padded to
        save(tmp_path, snapshot(step), nothing, keep=0)
    found = newest(tmp_path)
    assert found is not None and found[0].step == 100_000_000


def test_a_step_that_is_passed_again_replaces_the_older_one(tmp_path: Path) -> None:
    save(tmp_path, snapshot(2), nothing, keep=3)
    again = snapshot(2)
    again.rate_factor = 0.01
    save(tmp_path, again, nothing, keep=3)
    assert [load(path).rate_factor for path in committed(tmp_path)] == [0.01]


def test_the_old_one_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1), nothing, keep=1)
    seen: list[list[str]] = []
    save(tmp_path, snapshot(2), lambda folder: seen.append([path.name for path in committed(tmp_path)]), keep=1)
    assert seen == [["step-00000001"]]


def test_what_a_killed_process_left_is_neither_taken_nor_kept(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1), nothing, keep=3)
    for name in (".writing-step-00000002-77", ".leaving-step-00000000-77", "step-00000009"):
        (tmp_path / name).mkdir()
        save_file({"adapter/x": torch.ones(1)}, tmp_path / name / "state.safetensors")
    (tmp_path / ".writing-step-00000002-77" / MARKER).write_text("2\n")
    found = newest(tmp_path)
    assert found is not None and (found[0].step, found[2]) == (1, [])
    save(tmp_path, snapshot(2), nothing, keep=3)
    assert not list(tmp_path.glob(".*"))


def _truncate(path: Path) -> None:
    file = path / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def _empty_json(path: Path) -> None:
    (path / "training.json").write_text("")


def _shorten_json(path: Path) -> None:
    file = path / "training.json"
    document = json.loads(file.read_text())
    del document["optimizer"]
    file.write_text(json.dumps(document))


def _lose_a_tensor(path: Path) -> None:
    file = path / "state.safetensors"
    save_file({n: t for n, t in load_file(file).items() if not n.startswith("optimizer/")}, file)


def _lose_the_file(path: Path) -> None:
    (path / "state.safetensors").unlink()


@pytest.mark.parametrize("damage", [_truncate, _empty_json, _shorten_json, _lose_a_tensor, _lose_the_file])
def test_a_damaged_newest_checkpoint_is_passed_over_with_a_note(tmp_path: Path, damage: Any) -> None:
    save(tmp_path, snapshot(1), nothing, keep=3)
    damage(save(tmp_path, snapshot(2), nothing, keep=3))
    found = newest(tmp_path)
    assert found is not None and found[0].step == 1
    assert len(found[2]) == 1 and "step-00000002" in found[2][0]


@pytest.mark.parametrize("name", ["state.safetensors", "training.json", "lora.safetensors", MARKER])
def test_one_changed_byte_is_noticed_by_its_file(tmp_path: Path, name: str) -> None:
    save(tmp_path, snapshot(1), nothing, keep=3)
    path = save(tmp_path, snapshot(2), lambda to: (to / "lora.safetensors").write_bytes(b"lora" * 64), keep=3)
    data = bytearray((path / name).read_bytes())
    # A digit in the document, which stays a document; the last number of the tensors; a digit of a checksum.
    place = data.rindex(b"2.25") if name == "training.json" else 3 if name == MARKER else len(data) - 1
    data[place] ^= 1
    (path / name).write_bytes(data)
    found = newest(tmp_path)
    assert found is not None and found[0].step == 1
    [note] = found[2]
    assert "step-00000002" in note and "checksum" in note
    assert name in note or name == MARKER


def test_the_marker_is_what_sha256sum_reads(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot(1), lambda to: (to / "lora.safetensors").write_bytes(b"lora"), keep=3)
    checked = subprocess.run(["sha256sum", "-c", MARKER], cwd=path, capture_output=True, text=True, check=True)
    assert checked.stdout.splitlines() == [
        f"{n}: OK" for n in ("lora.safetensors", "state.safetensors", "training.json")
    ]


def test_a_checkpoint_from_before_the_checksums_is_still_read(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot(1), nothing, keep=3)
    document = json.loads((path / "training.json").read_text())
    (path / "training.json").write_text(json.dumps(document | {"schema": 1}))
    (path / MARKER).write_text("1\n")
    assert load(path).step == 1


@pytest.mark.parametrize("where", ["adapter", "average", "optimizer"])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_what_is_not_finite_is_passed_over(tmp_path: Path, where: str, value: float) -> None:
    save(tmp_path, snapshot(1), nothing, keep=3)
    bad = snapshot(2)
    assert bad.average is not None
    tensors = {"adapter": bad.adapter, "average": bad.average, "optimizer": bad.optimizer["state"][0]}[where]
    next(tensor for tensor in tensors.values() if isinstance(tensor, torch.Tensor) and tensor.dim())[1] = value
    save(tmp_path, bad, nothing, keep=3)
    found = newest(tmp_path)
    assert found is not None and found[0].step == 1
    assert "step-00000002" in found[2][0] and f"{where}/" in found[2][0] and "NaN or infinity" in found[2][0]


def test_what_was_passed_over_does_not_push_out_what_was_gone_back_to(tmp_path: Path) -> None:
    save(tmp_path, snapshot(4), nothing, keep=2)
    _truncate(save(tmp_path, snapshot(8), nothing, keep=2))
    for step in (5, 6):
        save(tmp_path, snapshot(step), nothing, keep=1)
        found = newest(tmp_path)
        assert found is not None and found[0].step == step
    assert [path.name for path in committed(tmp_path)] == ["step-00000006", "step-00000008"]
    save(tmp_path, snapshot(8), nothing, keep=1)  # passed again, and whole now
    assert [load(path).step for path in committed(tmp_path)] == [8]


def test_going_back_to_before_a_step(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save(tmp_path, snapshot(step), nothing, keep=0)
    found = newest(tmp_path, before=6)
    assert found is not None and found[0].step == 4 and "step-00000006" in found[2][0]
    with pytest.raises(PilotError, match="step-00000002 was passed over"):
        newest(tmp_path, before=2)
    for _ in range(2):  # a second time over names that are there
        assert [path.name for path in checkpoints.set_aside(tmp_path, 4)] == ["bad-step-00000006"]
        assert [path.name for path in committed(tmp_path)] == ["step-00000002", "step-00000004"]
        save(tmp_path, snapshot(6), nothing, keep=0)
    assert load(tmp_path / "step-00000006").step == 6


def test_where_none_can_be_read_the_run_does_not_begin_again_by_itself(tmp_path: Path) -> None:
    for step in (1, 2):
        _truncate(save(tmp_path, snapshot(step), nothing, keep=3))
    with pytest.raises(PilotError, match=r"step-00000002.*step-00000001.*begins again"):
        newest(tmp_path)
    assert newest(tmp_path / "none") is None


def test_a_newer_schema_is_refused_by_number(tmp_path: Path) -> None:
    path = save(tmp_path, snapshot(1), nothing, keep=3)
    document = json.loads((path / "training.json").read_text())
    (path / "training.json").write_text(json.dumps(document | {"schema": checkpoints.SCHEMA + 1}))
    for read in (load, lambda path: newest(path.parent)):
        with pytest.raises(PilotError, match=f"schema {checkpoints.SCHEMA + 1}"):
            read(path)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes; writing more fails with EFBIG."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_fails_leaves_the_earlier_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    save(tmp_path, snapshot(1), nothing, keep=1)
    with _largest_file(2000), pytest.raises(Exception, match="File too large"):
        save(tmp_path, snapshot(2, size=1000), nothing, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    found = newest(tmp_path)
    assert found is not None and found[0].step == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a file system: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", ["the state", "the LoRA file"])
def test_a_full_disk_is_said_and_costs_no_earlier_checkpoint(small_disk: Path, what: str) -> None:
    save(small_disk, snapshot(1), nothing, keep=1)
    big = snapshot(2, size=40_000 if what == "the state" else 8)

    def lora(folder: Path) -> None:
        if what == "the LoRA file":
            (folder / "lora.safetensors").write_bytes(bytes(100_000))

    with pytest.raises(RunFailed, match=r"the disk is full \(\d+ MB free\).*earlier checkpoints are untouched"):
        save(small_disk, big, lora, keep=1)
    assert [path.name for path in small_disk.iterdir()] == ["step-00000001"]
    assert same(load(small_disk / "step-00000001").adapter["denoiser:a:lora_A.weight"], torch.ones(8))
