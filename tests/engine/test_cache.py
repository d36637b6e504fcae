"""The store of encoded pictures and captions: whole entries or none, never stale, bounded, shared by processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainpilot.engine.cache import LATENTS, TEXT, Cache, latents_key, text_key
from trainpilot.errors import PilotError
from trainpilot.families.protocol import TextOptions

KIB = 1024


def make(root: Path, max_bytes: float = 1e9, said: list[str] | None = None) -> Cache:
    return Cache(root, max_bytes / 1e9, say=[].append if said is None else said.append)


def name(number: int) -> str:
    return f"{number:064x}"


def block(number: int = 0, kib: int = 8) -> dict[str, torch.Tensor]:
    return {"moments": torch.full((kib * KIB // 4,), float(number))}


def files(root: Path) -> list[Path]:
    return sorted(path for kind in (LATENTS, TEXT) for path in (root / kind).rglob("*") if path.is_file())


def age(cache: Cache, number: int, seconds: float) -> None:
    path = cache._path(LATENTS, name(number))
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime - seconds))


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]),
    shape=st.lists(st.integers(0, 4), max_size=3),
    transposed=st.booleans(),
)
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, dtype: torch.dtype, shape: list[int], transposed: bool
) -> None:
    cache = make(tmp_path_factory.mktemp("cache"))
    tensor = torch.randint(0, 2, tuple(shape)).to(dtype)
    tensor = tensor.transpose(0, -1) if transposed and tensor.dim() else tensor
    cache.put(TEXT, name(1), {"context": tensor, "pooled": torch.tensor(2.5)})
    found = cache.get(TEXT, name(1))
    assert found is not None and set(found) == {"context", "pooled"}
    assert found["context"].dtype == dtype and torch.equal(found["context"], tensor)
    assert cache.has(TEXT, name(1)) and not cache.has(LATENTS, name(1))


def test_a_missing_entry_is_none(tmp_path: Path) -> None:
    cache = make(tmp_path)
    assert not cache.has(LATENTS, name(1)) and cache.get(LATENTS, name(1)) is None


@pytest.mark.parametrize("keep", [0, 4, 8, 40, -1])
def test_a_truncated_entry_counts_as_missing(tmp_path: Path, keep: int) -> None:
    said: list[str] = []
    cache = make(tmp_path, said=said)
    cache.put(LATENTS, name(1), block())
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:keep])
    assert not cache.has(LATENTS, name(1))
    assert cache.get(LATENTS, name(1)) is None
    assert len(said) == 1 and "damaged" in said[0]
    cache.put(LATENTS, name(1), block(7))
    found = cache.get(LATENTS, name(1))
    assert found is not None and torch.equal(found["moments"], block(7)["moments"])


def test_a_changed_byte_is_found_on_reading(tmp_path: Path) -> None:
    # A power cut may leave a file of the right length whose last pages are zero: only the checksum tells.
    cache = make(tmp_path)
    cache.put(LATENTS, name(1), block(3))
    path = files(tmp_path)[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert cache.has(LATENTS, name(1))
    assert cache.get(LATENTS, name(1)) is None
    assert not cache.has(LATENTS, name(1))


def test_the_key_depends_on_everything_that_decides_the_latents() -> None:
    base = {
        "image_sha256": "a" * 64,
        "resized": (70, 64),
        "crop": (3, 0),
        "bucket": (64, 64),
        "flip": False,
        "vae_hash": "b" * 64,
        "dtype": torch.float32,
    }
    changes = [
        {"image_sha256": "c" * 64},
        {"resized": (71, 64)},
        {"crop": (0, 3)},
        {"bucket": (64, 56)},
        {"flip": True},
        {"vae_hash": "d" * 64},
        {"dtype": torch.bfloat16},
    ]
    keys = {latents_key(**(base | change)) for change in [{}, *changes]}  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changes)
    assert latents_key(**base) == latents_key(**base)  # type: ignore[arg-type]
    assert all(len(key) == 64 for key in keys)


def test_the_key_depends_on_everything_that_decides_the_text() -> None:
    base = {
        "caption": "a cat",
        "encoder_hash": "b" * 64,
        "family": "sdxl",
        "options": TextOptions(),
        "dtype": torch.float32,
    }
    changes = [
        {"caption": "a cat "},
        {"caption": "\udcff"},
        {"encoder_hash": "c" * 64},
        {"family": "flux"},
        {"options": TextOptions(clip_skip=2)},
        {"options": TextOptions(clip_tokens=150)},
        {"options": TextOptions(t5_tokens=256)},
        {"dtype": torch.bfloat16},
    ]
    keys = {text_key(**(base | change)) for change in [{}, *changes]}  # type: ignore[arg-type]
    assert len(keys) == 1 + len(changes)


def test_least_recently_used_entries_go_beyond_the_limit(tmp_path: Path) -> None:
    said: list[str] = []
    cache = make(tmp_path, 30 * KIB, said)  # three entries of a little over 8 KiB
    for number in range(3):
        cache.put(LATENTS, name(number), block(number))
        age(cache, number, 100 - number)
    assert cache.get(LATENTS, name(0)) is not None  # the oldest, used again
    cache.put(LATENTS, name(3), block(3))
    held = [cache.has(LATENTS, name(number)) for number in range(4)]
    assert held == [True, False, True, True]
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 30 * KIB
    assert "1 least recently used" in said[0]


def test_pinned_entries_stay_and_the_limit_gives_way_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    cache = make(tmp_path, 20 * KIB, said)
    with cache.hold("run"):
        cache.pin(LATENTS, [name(number) for number in range(4)])
        for number in range(4):
            cache.put(LATENTS, name(number), block(number))
        assert all(cache.has(LATENTS, name(number)) for number in range(4))
        assert any("live runs need all of it" in line for line in said)
    cache.trim()
    assert len(files(tmp_path)) == 2  # two entries of a little over 8 KiB are within 20 KiB
    assert not list((tmp_path / "pins").iterdir())


HOLDER = """
import sys
from pathlib import Path
from trainpilot.engine.cache import Cache, LATENTS
cache = Cache(Path(sys.argv[1]), 1, say=print)
with cache.hold("other"):
    cache.pin(LATENTS, [f"{number:064x}" for number in range(3)])
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_pins_of_a_live_process_hold_and_those_of_a_killed_one_do_not(tmp_path: Path) -> None:
    cache = make(tmp_path)
    for number in range(4):
        cache.put(LATENTS, name(number), block(number))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        tight = make(tmp_path, 1)
        tight.trim()
        assert [tight.has(LATENTS, name(number)) for number in range(4)] == [True, True, True, False]
    finally:
        holder.kill()
        holder.communicate()
    assert (tmp_path / "pins" / "other.keys").exists()  # left behind by the kill
    tight.trim()
    assert files(tmp_path) == [] and not (tmp_path / "pins" / "other.keys").exists()


def test_two_processes_of_one_run_pin_apart(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    with first.hold("run"):
        with second.hold("run"):
            first.pin(LATENTS, [name(0)])
            second.pin(LATENTS, [name(1)])
            for number in range(3):
                first.put(LATENTS, name(number), block(number))
            make(tmp_path, 1).trim()
            assert [first.has(LATENTS, name(number)) for number in range(3)] == [True, True, False]
        make(tmp_path, 1).trim()
        assert [first.has(LATENTS, name(number)) for number in range(3)] == [True, False, False]


def write(root: Path) -> None:
    cache = make(root)
    for number in range(300):
        cache.put(LATENTS, name(number % 6), {"moments": torch.full((20_000,), float(number % 6))})


def test_readers_and_writers_of_several_processes_never_see_half_an_entry(tmp_path: Path) -> None:
    said: list[str] = []
    cache = make(tmp_path, said=said)
    seen, wrong = [], []
    over = threading.Event()

    def read() -> None:
        while not over.wait(0.002):  # leaves the writers some of the processor
            for number in range(6):
                found = cache.get(LATENTS, name(number))
                if found is not None:
                    seen.append(number)
                    if not torch.equal(found["moments"], torch.full((20_000,), float(number))):
                        wrong.append(number)

    # Forked before any thread starts, which spares two imports of torch.
    writers = [multiprocessing.get_context("fork").Process(target=write, args=(tmp_path,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for writer in writers:
        writer.join(timeout=60)
    over.set()
    for thread in threads:
        thread.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and seen and not wrong and not said
    assert not [path for path in files(tmp_path) if path.suffix == ".tmp"]


def test_unfinished_files_of_dead_writers_are_swept_and_fresh_ones_left(tmp_path: Path) -> None:
    cache = make(tmp_path)
    cache.put(LATENTS, name(1), block())
    folder = files(tmp_path)[0].parent
    old, fresh = folder / ".old.tmp", folder / ".fresh.tmp"
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    cache.trim()
    assert not old.exists() and fresh.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_says_where_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make(tmp_path)
    real = Path.write_bytes

    def to_a_full_disk(self: Path, data: bytes) -> int:
        real(self, data[:10])
        return real(Path("/dev/full"), data)  # the kernel's own ENOSPC

    monkeypatch.setattr(Path, "write_bytes", to_a_full_disk)
    with pytest.raises(PilotError, match=r"No space left.*PILOT_CACHE"):
        cache.put(LATENTS, name(1), block())
    assert files(tmp_path) == []
