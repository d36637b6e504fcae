"""Pictures and captions through the VAE and the text encoders, once each, into the cache.

Used by the trainer before the first step. What cannot be cached (`dynamic_latent_reasons`, `dynamic_text_reasons`, both
of the plan) is encoded while training.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from trainpilot.datasets import images
from trainpilot.datasets.hashes import Memo
from trainpilot.datasets.table import Sample, Table
from trainpilot.engine.cache import LATENTS, TEXT, Cache, latents_key, text_key
from trainpilot.errors import PilotError, RunFailed
from trainpilot.families.protocol import Conditioning, Family, Parts, TextOptions
from trainpilot.plan.caching import dynamic_latent_reasons as dynamic_latent_reasons
from trainpilot.plan.caching import dynamic_text_reasons as dynamic_text_reasons

Told = Callable[[str], None]
Progress = Callable[[int, int], None]  # entries done, of
T = TypeVar("T")
_BLOCK = 1 << 24


class Stop(Protocol):
    """What a phase asks, often enough, whether it has to end."""

    def check(self) -> object:
        """Raise where a stop was asked for."""
        ...


def encoder_hash(base: Path, wanted: str, memo: Memo, stop: Stop, *, vae: Path | None = None) -> str:
    """Hash of the weights, configurations and vocabularies that encode pictures ("vae") or captions ("text").

    base, vae: a diffusers folder or a single file, of which the whole counts. Files that `memo` knows are not read;
    reading honours `stop`.
    """
    source = vae if wanted == "vae" and vae is not None else base
    if source.is_file():
        return _file_hash(source, memo, stop)
    names = ("vae",) if wanted == "vae" else ("text_encoder*", "tokenizer*")
    folders = sorted(folder for name in names for folder in source.glob(name) if folder.is_dir())
    # A replacement VAE is often a folder of its own, without the pipeline around it.
    files = sorted(path for folder in folders or [source] for path in folder.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(source)} {_file_hash(path, memo, stop)}\n" for path in files]
    return sha256("".join(lines).encode()).hexdigest()


def _file_hash(path: Path, memo: Memo, stop: Stop) -> str:
    def learn(path: Path) -> str:
        total = sha256()
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                stop.check()  # a base model of 24 GB takes longer to read than a stop may take
                total.update(block)
        return total.hexdigest()

    return memo.recall("sha256", path, learn)


@dataclass(frozen=True)
class LatentIndex:
    """Which entry holds which picture: (sample index, mirrored) -> key; entries made now and found."""

    keys: dict[tuple[int, bool], str]
    encoded: int
    reused: int

    def read(self, cache: Cache, sample: int, flip: bool) -> Tensor:
        """Moments [2C,h,w] in fp32."""
        return _read(cache, LATENTS, self.keys[sample, flip])["moments"]


@dataclass(frozen=True)
class TextIndex:
    """Which entry holds which caption: caption -> key; entries made now and found."""

    keys: dict[str, str]
    encoded: int
    reused: int

    def read(self, cache: Cache, caption: str) -> Conditioning:
        """The conditioning of one caption, without a batch dimension."""
        return _read(cache, TEXT, self.keys[caption])


def _read(cache: Cache, kind: str, key: str) -> dict[str, Tensor]:
    tensors = cache.get(kind, key)
    if tensors is None:
        raise RunFailed(
            "cache",
            f"the entry {kind}/{key} went missing or was damaged while the run used it",
            f"entries left in place in {cache.root} while a run is live",
            "Start the run again: it goes on from its last checkpoint and makes the entry anew.",
        )
    return tensors


def encode_images_now(family: Family, parts: Parts, pixels: Tensor) -> Tensor:
    """[B,3,H,W] in -1..1 -> moments [B,2C,h,w] in fp32, on the VAE's device and in its arithmetic.

    Moments leave in fp32: bf16 would move a mean of 3 by up to 0.008, and by the same at every draw, to save 0.05 to
    1 MB a picture.
    """
    assert parts.vae is not None
    weight = next(parts.vae.parameters())
    with torch.no_grad():
        return family.encode_images(parts, pixels.to(weight.device, weight.dtype)).float()


def _finite(moments: Tensor, dtype: torch.dtype) -> Tensor:
    """The moments on the CPU; what is not finite must never reach the cache."""
    if not bool(torch.isfinite(moments).all()):
        raise PilotError(
            "model.vae",
            f"NaN or inf from the VAE in {str(dtype).removeprefix('torch.')}",
            "finite latents",
            "Set precision.mixed to bf16 or fp32, or model.vae to one made for fp16.",
        )
    return moments.cpu()


def fill_latents(
    table: Table,
    family: Family,
    parts: Parts,
    cache: Cache,
    *,
    flips: Sequence[bool],
    vae_hash: str,
    batch: int,
    stop: Stop,
    progress: Progress,
    say: Told,
) -> LatentIndex:
    """Encode every picture that the cache does not hold, in batches of one bucket each.

    flips: for each dataset, whether its pictures are also needed mirrored. The number format is the VAE's. Where memory
    runs out the batch is halved, and `say` tells. Honours `stop` between batches. Raises PilotError at NaN or inf.
    """
    assert parts.vae is not None
    dtype = next(parts.vae.parameters()).dtype
    keys: dict[tuple[int, bool], str] = {}
    work: dict[str, tuple[Sample, bool]] = {}
    for sample in table.samples:
        for flip in (False, True) if flips[sample.dataset] else (False,):
            key = latents_key(
                sample.sha256,
                resized=sample.resized,
                crop=sample.crop,
                bucket=sample.bucket,
                flip=flip,
                vae_hash=vae_hash,
                dtype=dtype,
            )
            keys[sample.index, flip] = key
            work.setdefault(key, (sample, flip))
    missing = _missing(cache, LATENTS, work)
    groups: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key in missing:
        groups[work[key][0].bucket].append(key)
    chunks = [chunk for group in groups.values() for chunk in _chunks(group, batch)]
    encode = _Halving(lambda pixels: _finite(encode_images_now(family, parts, pixels), dtype), "latents", batch, say)

    def load(key: str) -> Tensor:
        sample, flip = work[key]
        return read_pixels(sample, sample.crop, flip)

    done = len(work) - len(missing)
    progress(done, len(work))
    for chunk, pixels in _ahead(chunks, load):
        stop.check()
        for part, moments in encode(chunk, torch.stack(pixels), stop):
            for key, one in zip(part, moments, strict=True):
                cache.put(LATENTS, key, {"moments": one})
            done += len(part)
            progress(done, len(work))
    return LatentIndex(keys, len(missing), len(work) - len(missing))


def fill_text(
    captions: Iterable[str],
    family: Family,
    parts: Parts,
    cache: Cache,
    *,
    options: TextOptions,
    hashed: str,
    dtype: torch.dtype,
    batch: int,
    stop: Stop,
    progress: Progress,
    say: Told,
) -> TextIndex:
    """Encode every distinct caption that the cache does not hold; hashed is the `encoder_hash` of the text encoders.

    Conditioning is stored in `dtype`, that of the arithmetic: at 4 MiB for 512 T5 tokens in bf16 it is worth halving,
    and the denoiser rounds it so anyway. Halves the batch and honours `stop` as `fill_latents` does.
    """
    keys = {
        caption: text_key(caption, encoder_hash=hashed, family=family.name, options=options, dtype=dtype)
        for caption in captions
    }
    missing = set(_missing(cache, TEXT, keys.values()))
    waiting = [caption for caption, key in keys.items() if key in missing]

    def read(texts: Sequence[str]) -> Conditioning:
        with torch.no_grad():
            found = family.encode_text(parts, texts, options)
        return {name: tensor.to("cpu", dtype if tensor.is_floating_point() else None) for name, tensor in found.items()}

    encode = _Halving(read, "captions", batch, say)
    done = len(keys) - len(waiting)
    progress(done, len(keys))
    for chunk in _chunks(waiting, batch):
        stop.check()
        for part, conditioning in encode(chunk, chunk, stop):
            for place, caption in enumerate(part):
                cache.put(TEXT, keys[caption], {name: tensor[place] for name, tensor in conditioning.items()})
            done += len(part)
            progress(done, len(keys))
    return TextIndex(keys, len(waiting), len(keys) - len(waiting))


def _missing(cache: Cache, kind: str, keys: Iterable[str]) -> list[str]:
    wanted = list(dict.fromkeys(keys))
    cache.pin(kind, wanted)  # before the look, so that what is there stays there
    return [key for key in wanted if not cache.has(kind, key)]


def _chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


class _Halving:
    """Calls an encoder on a batch, or on smaller and smaller parts of it where memory runs out."""

    def __init__(self, encode: Callable[[Any], Any], what: str, batch: int, say: Told) -> None:
        self._encode, self._what, self._size, self._say = encode, what, batch, say

    def __call__(self, names: Sequence[T], inputs: Any, stop: Stop) -> Iterator[tuple[Sequence[T], Any]]:
        """(names, encoder's result) of each part; names and inputs are sliced alike."""
        first = 0
        while first < len(names):
            part = slice(first, first + self._size)
            try:
                result = self._encode(inputs[part])
            except torch.OutOfMemoryError as error:
                if self._size == 1:
                    raise RunFailed(
                        f"encoding {self._what}",
                        "out of memory at a batch of one",
                        "enough free memory for one",
                        "Free the device of other programs, or lower the resolution.",
                    ) from error
                self._size = (min(self._size, len(names)) + 1) // 2
                self._say(f"encoding {self._what}: batch halved to {self._size}, because the device ran out of memory")
                torch.cuda.empty_cache()
                continue
            yield names[part], result
            first += self._size
            if first < len(names):
                stop.check()


def read_pixels(sample: Sample, crop: tuple[int, int], flip: bool) -> Tensor:
    """A picture as the VAE takes it: [3,H,W] in -1..1; crop is (left, top) in the resized picture."""
    return torch.tensor(images.prepare(sample, crop, flip)).permute(2, 0, 1).float().div(127.5).sub(1)


def _ahead(chunks: Sequence[list[str]], load: Callable[[str], Tensor]) -> Iterator[tuple[list[str], list[Tensor]]]:
    """Each chunk with its loaded tensors; threads decode the next chunk while the caller encodes this one."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), thread_name_prefix="decode") as pool:
        futures: list[Future[Tensor]] = [pool.submit(load, key) for key in chunks[0]] if chunks else []
        try:
            for number, chunk in enumerate(chunks):
                current = futures
                following = chunks[number + 1] if number + 1 < len(chunks) else []
                futures = [pool.submit(load, key) for key in following]
                yield chunk, [future.result() for future in current]
        finally:
            for future in futures:
                future.cancel()
