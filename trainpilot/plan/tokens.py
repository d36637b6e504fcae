"""How many tokens captions have, by the base model's own tokenizers, without torch. Used by the plan and the doctor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from trainpilot.config.schema import RunConfig, TextEncoder
from trainpilot.families.card import Card
from trainpilot.models.detect import Base

CLIP_CHUNK = 75


@dataclass(frozen=True)
class CaptionLengths:
    """Tokens of the captions for one encoder, special tokens apart. over: captions longer than limit."""

    encoder: str
    kind: str
    limit: int
    longest: int
    mean: float
    over: int


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """A tokenizer folder's tokenizer.json, else CLIP's vocab.json and merges.txt; None where there is neither."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        found: Tokenizer = Tokenizer.from_file(str(whole))
        found.no_truncation()
        found.no_padding()
        return found
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocabulary.is_file() and merges.is_file()):
        return None
    lines = merges.read_text(encoding="utf-8").splitlines()
    pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
    words: dict[str, int] = json.loads(vocabulary.read_text(encoding="utf-8"))
    # CLIP: lower case, words by its pattern, bytes as letters, a word's last piece marked.
    found = Tokenizer(
        models.BPE(
            vocab=words,
            merges=[(pair[0], pair[1]) for pair in pairs if len(pair) == 2],
            unk_token="<|endoftext|>",
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
        )
    )
    found.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    found.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True), pre_tokenizers.ByteLevel(False)]
    )
    return found


def _inner_length(folder: Path) -> int:
    """Tokens between start and end that one pass of a CLIP takes: 75, or fewer for a miniature."""
    file = folder / "tokenizer_config.json"
    given = json.loads(file.read_text(encoding="utf-8")).get("model_max_length") if file.is_file() else None
    return int(given) - 2 if isinstance(given, int) and given <= CLIP_CHUNK + 2 else CLIP_CHUNK


@dataclass(frozen=True)
class Reader:
    """A text encoder that reads whole captions: its component, kind, the tokens it takes, and its tokenizer."""

    encoder: str
    kind: str
    limit: int
    tokenizer: Tokenizer

    def count(self, text: str) -> int:
        """Tokens of a caption, special ones apart."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


def readers(settings: TextEncoder, card: Card, base: Base) -> tuple[list[Reader], list[str]]:
    """The encoders of a base model that read whole captions, and why there are none for the others."""
    if base.layout == "file":
        return [], ["caption lengths are unknown: a single file carries no tokenizer"]
    has_t5 = any(encoder["kind"] == "t5" for encoder in card.text_encoders)
    found, notes = [], []
    for encoder in card.text_encoders:
        if has_t5 and encoder["kind"] == "clip":
            continue  # only its pooled vector is used, and T5 reads the caption
        folder = base.path / encoder["component"].replace("text_encoder", "tokenizer")
        tokenizer = read_tokenizer(folder)
        if tokenizer is None:
            notes.append(f"caption lengths are unknown: {folder.name} has no tokenizer.json")
            continue
        if encoder["kind"] == "t5":
            limit = settings.t5_tokens - 1  # the end token takes one
        else:
            limit = settings.clip_tokens // CLIP_CHUNK * _inner_length(folder)
        found.append(Reader(str(encoder["component"]), str(encoder["kind"]), limit, tokenizer))
    return found, notes


def caption_lengths(
    config: RunConfig, card: Card, base: Base, captions: Iterable[str]
) -> tuple[list[CaptionLengths], list[str]]:
    """Lengths for every encoder that reads whole captions, and why there are none for the others."""
    texts: Sequence[str] = sorted(set(captions))
    found, notes = readers(config.text_encoder, card, base)
    lengths = []
    for reader in found:
        counts = [reader.count(text) for text in texts]
        over = sum(count > reader.limit for count in counts)
        mean = sum(counts) / len(counts) if counts else 0.0
        longest = max(counts, default=0)
        lengths.append(CaptionLengths(reader.encoder, reader.kind, reader.limit, longest, mean, over))
    return lengths, notes
