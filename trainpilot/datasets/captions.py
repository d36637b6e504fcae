"""Reading a caption file, and what is done to a caption at each draw, in sd-scripts' order.

prefix and suffix, trigger, whole-caption dropout, wildcards, kept tags, tag warm-up, shuffle, tag dropout, secondary
separator. Pure: the same text, rules and generator give the same caption. Used by the table (reading), the engine
(each draw) and the plan (which options keep captions from being encoded once).
"""

from __future__ import annotations

import codecs
import math
import re
from pathlib import Path

import numpy as np

from trainpilot.config.schema import Captions
from trainpilot.errors import PilotError

LARGEST_CAPTION = 1 << 20  # bytes; a longer file is no caption
_WILDCARD = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_caption(path: Path, *, strict: bool = False) -> tuple[str, str | None]:
    """A caption file's whole text, and a note where it was not plain UTF-8 or is empty.

    UTF-8 (with or without byte order mark), UTF-16 with byte order mark, else Windows-1252. Raises PilotError where
    the file is not text, is larger than 1 MiB, cannot be read, or, under `strict`, is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_CAPTION + 1)
    except OSError as problem:
        raise PilotError(
            path, problem.strerror or problem, "a readable text file", "Check the file's permissions."
        ) from problem
    if len(data) > LARGEST_CAPTION:
        raise PilotError(path, "more than 1 MiB", "a caption of a few sentences", "Is this file really a caption?")
    encoding, text = decode(path, data)
    note = None
    if encoding not in ("utf-8", "utf-8-sig"):
        if strict:
            raise PilotError(path, f"text in {encoding}", "UTF-8, since datasets.strict is on", "Save it as UTF-8.")
        note = f"is not UTF-8: read as {encoding}"
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    if not text:
        note = "is empty: its image is trained with the empty caption"
    return text, note


def decode(path: Path, data: bytes) -> tuple[str, str]:
    """(encoding, text) of a caption file's bytes, without byte order mark. PilotError where they are no text."""
    marked = next((name for mark, name in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    try:
        text = data.decode(marked or "utf-8")
        # UTF-16 of plain letters without a byte order mark is valid UTF-8 with a zero beside every letter.
        return ("UTF-16 without mark", text.replace("\0", "")) if "\0" in text else (marked or "utf-8", text)
    except UnicodeDecodeError:
        if b"\0" in data:
            raise PilotError(path, "bytes that are not text", "a text file", "Save the caption as UTF-8.") from None
    try:
        return "Windows-1252", data.decode("cp1252")
    except UnicodeDecodeError:
        return "Latin-1", data.decode("latin-1")


def is_dynamic(rules: Captions) -> list[str]:
    """Options that make a caption differ from draw to draw, so that its encoding cannot be kept.

    Dropping whole captions is not among them: it alternates between the caption and the empty one, both of which can
    be kept (`fixed` gives the former).
    """
    return [
        name
        for name, changing in (
            ("wildcards", rules.wildcards),
            ("token_warmup_step", rules.token_warmup_step > 0),
            ("shuffle", rules.shuffle),
            ("tag_dropout_rate", rules.tag_dropout_rate > 0),
        )
        if changing
    ]


def fixed(text: str, rules: Captions) -> str:
    """The caption with nothing drawn: what `apply` returns, when it does not drop it and `is_dynamic` is empty."""
    return _finish(_with_tags(_framed(_first_line(text), rules), rules, None, 0, 0), rules)


def apply(text: str, rules: Captions, rng: np.random.Generator, *, step: int, total_steps: int, epoch: int) -> str:
    """The caption of one draw.

    step: optimizer updates done; total_steps: of the run, for a warm-up given as a share; epoch: counted from 0
    (`dropout_every_n_epochs` counts from 1, as sd-scripts does). Without wildcards only the first line counts.
    """
    every = rules.dropout_every_n_epochs
    dropped = rules.dropout_rate > 0 and rng.random() < rules.dropout_rate
    if dropped or (every > 0 and (epoch + 1) % every == 0):
        return ""
    line = _chosen_line(text, rng) if rules.wildcards else _first_line(text)
    caption = _framed(line, rules)
    if rules.wildcards:
        caption = _WILDCARD.sub(lambda match: _chosen(match, rng), caption)
    return _finish(_with_tags(caption, rules, rng, step, total_steps), rules)


def _first_line(text: str) -> str:
    return text.split("\n", 1)[0].strip()


def _chosen_line(text: str, rng: np.random.Generator) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    return lines[int(rng.integers(len(lines)))] if lines else ""


def _chosen(match: re.Match[str], rng: np.random.Generator) -> str:
    """One of {a|b}; doubled braces stand for themselves."""
    if match[1] is None:
        return match[0][0]
    choices = match[1].split("|")
    return choices[int(rng.integers(len(choices)))]


def _framed(line: str, rules: Captions) -> str:
    """prefix and suffix joined by a space, as sd-scripts does; then the trigger as the first tag."""
    caption = " ".join(part for part in (rules.prefix, line, rules.suffix) if part)
    trigger = rules.trigger.strip()
    if not trigger or _starts_with(caption, trigger):
        return caption
    return f"{trigger}{rules.separator} {caption}" if caption else trigger


def _starts_with(caption: str, trigger: str) -> bool:
    """True also where the case differs; a longer word that begins like the trigger is another word."""
    head, rest = caption[: len(trigger)], caption[len(trigger) :]
    return head.casefold() == trigger.casefold() and not rest[:1].isalnum()


def _tags(text: str, rules: Captions) -> list[str]:
    return [tag.strip() for tag in text.split(rules.separator) if tag.strip()]


def _with_tags(caption: str, rules: Captions, rng: np.random.Generator | None, step: int, total_steps: int) -> str:
    """Keep, warm up, shuffle and drop tags; without any of these the caption stays as it was written.

    The trigger's own tags are kept like `keep_tokens`: a trigger that moved or went missing would teach nothing.
    """
    marker = rules.keep_tokens_separator
    marked = bool(marker) and marker in caption
    if not marked and not (rules.shuffle or rules.token_warmup_step > 0 or rules.tag_dropout_rate > 0):
        return caption
    if marked:
        first, flexible_text, *last = caption.split(marker, 2)
        head, flexible, tail = _tags(first, rules), _tags(flexible_text, rules), _tags("".join(last), rules)
    else:
        tags = _tags(caption, rules)
        kept = max(rules.keep_tokens, len(_tags(rules.trigger, rules)))
        head, flexible, tail = tags[:kept], tags[kept:], []
    if rng is not None:
        flexible = _warmed_up(flexible, rules, step, total_steps)
        if rules.shuffle:
            flexible = [flexible[i] for i in rng.permutation(len(flexible))]
        if rules.tag_dropout_rate > 0:
            flexible = [tag for tag, draw in zip(flexible, rng.random(len(flexible)), strict=True)
                        if draw >= rules.tag_dropout_rate]  # fmt: skip
    return ", ".join(head + flexible + tail)


def _warmed_up(tags: list[str], rules: Captions, step: int, total_steps: int) -> list[str]:
    """The leading tags: `token_warmup_min` at step 0, all of them from the step where the warm-up ends."""
    end = rules.token_warmup_step
    if end < 1:
        end = math.floor(end * total_steps)
    if not end or step >= end:
        return tags
    # sd-scripts' line also where there are fewer tags than the minimum: it then starts above and loses none.
    used = math.floor(step * (len(tags) - rules.token_warmup_min) / end) + rules.token_warmup_min
    return tags[: max(0, used)]


def _finish(caption: str, rules: Captions) -> str:
    second = rules.secondary_separator
    return caption.replace(second, rules.separator) if second else caption
