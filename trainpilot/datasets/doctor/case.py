"""What every check sees: the dataset as it was read, and what the person wants of it. Made by `survey.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from trainpilot.datasets.buckets import Placement, Rules
from trainpilot.datasets.doctor.facts import Facts
from trainpilot.datasets.duplicates import Pair
from trainpilot.datasets.layouts import Found, Layout


@dataclass(frozen=True)
class Encoder:
    """A text encoder of the base model: how many tokens of a caption it reads, and how they are counted."""

    name: str
    kind: str
    limit: int
    count: Callable[[str], int]


@dataclass(frozen=True)
class Question:
    """What is to be judged. purpose: of `guides.PURPOSES` or ""; triggers: trigger words in their order.

    rules: how pictures will be placed; model: what for, in words; encoders: empty where there is no tokenizer, and
    no_tokens then says why.
    """

    rules: Rules
    model: str
    purpose: str = ""
    triggers: tuple[str, ...] = ()
    encoders: tuple[Encoder, ...] = ()
    no_tokens: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture with its caption. name: relative to the dataset; caption: None where there is none at all.

    caption_file: relative, "" where the caption is a row of metadata.jsonl; encoding: the caption file's, where it is
    not UTF-8; unreadable: why its caption file is no text.
    """

    name: str
    found: Found
    facts: Facts
    caption: str | None
    caption_file: str = ""
    encoding: str = ""
    unreadable: str = ""
    placement: Placement | None = None

    @property
    def whole(self) -> bool:
        return not self.facts.fault

    @property
    def enlarged(self) -> float:
        """By how much its sides are enlarged for its bucket; below 1 it shrinks."""
        return self.placement.resized[0] / self.facts.size[0] if self.placement else 1.0


@dataclass
class Case:
    """A dataset that was read. found_triggers: the tag most captions begin with, where none was given."""

    root: Path
    layout: Layout
    pictures: list[Picture]
    question: Question
    copies: list[Pair] = field(default_factory=list)
    trigger_source: str = "none"
    triggers: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    @cached_property
    def whole(self) -> list[Picture]:
        """The pictures that can be decoded: `Pair` counts these."""
        return [picture for picture in self.pictures if picture.whole]

    @cached_property
    def captioned(self) -> list[Picture]:
        """The pictures with a caption that says something."""
        return [picture for picture in self.pictures if picture.caption]

    @cached_property
    def concepts(self) -> dict[str, list[Picture]]:
        """Pictures by the folder that holds them: one concept a folder, in repeat folders and concept folders."""
        found: dict[str, list[Picture]] = {}
        for picture in self.pictures:
            found.setdefault(picture.found.folder, []).append(picture)
        return found
