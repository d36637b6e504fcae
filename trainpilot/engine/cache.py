"""Tensors computed once and kept on disk, named by what they were computed from. Filled by `encode`, read by batches.

An entry's key is a hash of everything that decides its content (`latents_key`, `text_key`), so that nothing is ever
stale: an edited picture has another key, and its old entry ages out. The folder may be deleted at any time. Layout:
`<kind>/<first two digits>/<key>.safetensors`, `pins/<run>.keys` (entries that a live run needs), `trim.lock`.

Several processes and threads may use one folder. Entries appear whole, by rename. They are not synced to disk: after
a power cut a lost or half-written entry costs one encoding, and syncing thousands of small files costs minutes in every
run. What a power cut left behind is found by the header's sizes (`has`) or by the checksum (`get`) and made anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from trainpilot.datasets.images import PREPARE_VERSION
from trainpilot.errors import PilotError
from trainpilot.families.protocol import TextOptions

LATENTS, TEXT = "latents", "text"
# Raise these when the way pictures are encoded, or captions are read, changes.
LATENTS_VERSION = 1
TEXT_VERSION = 1

_ENDING = ".safetensors"
_MOST_HEADER = 1 << 20
_OLD_TEMPORARY = 3600.0  # seconds after which an unfinished file belongs to a process that died
_GB = 1e9


def latents_key(
    image_sha256: str,
    *,
    resized: tuple[int, int],
    crop: tuple[int, int],
    bucket: tuple[int, int],
    flip: bool,
    vae_hash: str,
    dtype: torch.dtype,
) -> str:
    """Name of the moments of one picture, placed as given (pixels, width first) and encoded in `dtype`."""
    return _key(
        LATENTS, LATENTS_VERSION, PREPARE_VERSION, image_sha256, resized, crop, bucket, flip, vae_hash, str(dtype)
    )


def text_key(caption: str, *, encoder_hash: str, family: str, options: TextOptions, dtype: torch.dtype) -> str:
    """Name of the conditioning of one caption, after every caption operation, stored in `dtype`."""
    return _key(TEXT, TEXT_VERSION, caption, encoder_hash, family, asdict(options), str(dtype))


def _key(*facts: object) -> str:
    # A caption decoded from broken bytes may hold lone surrogates; JSON's escapes carry them.
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class Cache:
    """The store of one cache folder.

    max_gb: gigabytes (1e9 bytes) beyond which the least recently used entries go, those of live runs excepted.
    say is given a sentence whenever something was decided that a person may want to know.
    """

    def __init__(self, root: Path, max_gb: float, *, say: Callable[[str], None]) -> None:
        self.root = root
        self._most = int(max_gb * _GB)
        self._say = say
        self._guard = threading.Lock()
        self._size: int | None = None  # bytes on disk as far as known here; None before the first look
        self._trim_beyond = self._most
        self._pinned: set[str] = set()
        self._pin_file: IO[str] | None = None

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / key[:2] / (key + _ENDING)

    def has(self, kind: str, key: str) -> bool:
        """Whether a whole entry is there; a truncated one is not."""
        path = self._path(kind, key)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                return _whole(file, size)
        except FileNotFoundError:
            return False

    def get(self, kind: str, key: str) -> dict[str, Tensor] | None:
        """The tensors of an entry on the CPU; None where it is missing or damaged (and then removed). Thread-safe."""
        path = self._path(kind, key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        tensors = _decode(data)
        if tensors is None:
            self._say(f"cache: the entry {path.name} was damaged and is made anew")
            path.unlink(missing_ok=True)
            return None
        with suppress(FileNotFoundError):  # trimmed meanwhile by another process; the tensors are in hand
            os.utime(path)  # the time of last use, by which `trim` goes
        return tensors

    def put(self, kind: str, key: str, tensors: dict[str, Tensor]) -> None:
        """Store tensors, replacing what is there. Raises PilotError where the disk is full or cannot be written."""
        path = self._path(kind, key)
        data = _encode(tensors)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{key}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise PilotError(
                "cache",
                f"{len(data)} bytes could not be written to {self.root}: {error.strerror}",
                "a folder that can be written, on a disk with room",
                "Free space, lower cache.max_gb, or point PILOT_CACHE at another disk.",
            ) from error
        with self._guard:
            self._size = self._measure() if self._size is None else self._size + len(data)
            full = self._size > self._trim_beyond
        if full:
            self.trim()

    @contextmanager
    def hold(self, run: str) -> Iterator[None]:
        """Keep everything that is pinned inside this block from being trimmed by any process.

        The pins are a file that this process holds locked; a file whose lock is free was left by one that died.
        """
        file = self._open_pins(run)
        with self._guard:
            self._pin_file = file
            self._write_pins(self._pinned)
        try:
            yield
        finally:
            with self._guard:
                self._pin_file = None
                self._pinned.clear()
            Path(file.name).unlink(missing_ok=True)
            file.close()

    def _open_pins(self, run: str) -> IO[str]:
        folder = self.root / "pins"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            path = folder / (f"{run}.keys" if number == 0 else f"{run}.{number}.keys")
            file = path.open("a", encoding="ascii")
            try:
                _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()  # another process of this run (they may be several) has this one
                continue
            if _same_file(file, path):
                file.truncate(0)
                return file
            file.close()  # removed as stale between opening and locking
        raise PilotError("cache", f"a thousand processes hold {run}", "fewer", "Stop some of them.")

    def pin(self, kind: str, keys: Iterable[str]) -> None:
        """Keep these entries, which need not exist yet. To be called before `has`, or a trim may come between."""
        new = {f"{kind}/{key}" for key in keys}
        with self._trimming(exclusive=False), self._guard:
            self._write_pins(new - self._pinned)
            self._pinned |= new

    def _write_pins(self, names: set[str]) -> None:
        if self._pin_file is not None and names:
            self._pin_file.write("".join(f"{name}\n" for name in sorted(names)))
            self._pin_file.flush()

    def trim(self) -> None:
        """Remove least recently used entries until the folder is within `max_gb`; pinned ones stay."""
        with self._trimming(exclusive=True):
            with self._guard:
                pinned = self._pinned | self._pins_of_others()
            entries = sorted(self._entries())
            size = sum(bytes_ for _, bytes_, _ in entries)
            removed = 0
            for _, bytes_, path in entries:
                if size <= self._most:
                    break
                if f"{path.parent.parent.name}/{path.stem}" in pinned:
                    continue
                path.unlink(missing_ok=True)
                size -= bytes_
                removed += 1
            with self._guard:
                self._size = size
                # Where live runs need more than the limit, looking again after every entry would be slow and futile.
                self._trim_beyond = max(self._most, size + size // 10)
        if removed:
            self._say(f"cache: {removed} least recently used entries removed, to stay within cache.max_gb")
        if size > self._most:
            self._say(
                f"cache: {size / _GB:.2f} GB, more than cache.max_gb = {self._most / _GB:g}, "
                "because live runs need all of it"
            )

    @contextmanager
    def _trimming(self, *, exclusive: bool) -> Iterator[None]:
        """Pins are written by many at once, but never while somebody trims by an older list of them."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "trim.lock").open("a") as file:
            _lock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield

    def _pins_of_others(self) -> set[str]:
        """Entries that live processes pinned; the files of dead ones are removed."""
        found: set[str] = set()
        mine = self._pin_file.name if self._pin_file is not None else None
        for path in (self.root / "pins").glob("*.keys"):
            if str(path) == mine:
                continue
            try:
                with path.open(encoding="ascii") as file:
                    try:
                        _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        found.update(file.read().split())
                    else:
                        path.unlink()
            except FileNotFoundError:
                continue  # its run ended meanwhile
        return found

    def _entries(self) -> Iterator[tuple[int, int, Path]]:
        """(time of last use, bytes, path) of each entry; unfinished files of dead writers are removed."""
        for kind in (LATENTS, TEXT):
            for path in (self.root / kind).glob("*/*"):
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                if path.suffix == _ENDING:
                    yield status.st_mtime_ns, status.st_size, path
                elif path.suffix == ".tmp" and time.time() - status.st_mtime > _OLD_TEMPORARY:
                    path.unlink(missing_ok=True)

    def _measure(self) -> int:
        return sum(size for _, size, _ in self._entries())


def _lock(file: IO[str], how: int) -> None:
    """flock; BlockingIOError where another process has it, PilotError where the file system has no locks."""
    try:
        fcntl.flock(file, how)
    except BlockingIOError:
        raise
    except OSError as error:
        raise PilotError(
            "cache",
            f"{file.name} cannot be locked: {error.strerror}",
            "a file system with locks",
            "Point PILOT_CACHE at a local disk.",
        ) from error


def _same_file(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _whole(file: IO[bytes], size: int) -> bool:
    """Whether a safetensors file is as long as its header says."""
    header = _header(file.read(8), file.read)
    if header is None:
        return False
    length, entries = header
    ends = [entry["data_offsets"][1] for name, entry in entries.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def _header(prefix: bytes, read: Callable[[int], bytes]) -> tuple[int, dict[str, Any]] | None:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or not 0 < length <= _MOST_HEADER:
        return None
    try:
        entries = json.loads(read(length))
    except ValueError:
        return None
    return (length, entries) if isinstance(entries, dict) else None


def _encode(tensors: dict[str, Tensor]) -> bytes:
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain, metadata={"crc32": str(_checksum(plain))})


def _decode(data: bytes) -> dict[str, Tensor] | None:
    """The tensors, or None where a byte is not as it was written."""
    header = _header(data[:8], lambda length: data[8 : 8 + length])
    if header is None:
        return None
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except SafetensorError:
        return None
    written = header[1].get("__metadata__", {}).get("crc32")
    return tensors if written == str(_checksum(tensors)) else None


def _checksum(tensors: dict[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, total)
    return total
