"""An operation on the captions of a dataset, first as a preview and then for good. Used by `captions` and the panel."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainpilot.datasets.caption_edits import Operation
from trainpilot.datasets.caption_files import CaptionFiles, Replacement
from trainpilot.datasets.caption_journal import Edit, Journal
from trainpilot.errors import PilotError


@dataclass(frozen=True)
class Change:
    """One caption before and after; None: there is none. picture: its path in the dataset."""

    picture: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class Preview:
    """What an edit would do. seen: stands for exactly these changes, and lets `apply` refuse others."""

    about: str
    changes: list[Change]
    replacements: list[Replacement]
    notes: list[str] = field(default_factory=list)

    @property
    def seen(self) -> str:
        rows = [(change.picture, change.before, change.after) for change in self.changes]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:32]


def preview(files: CaptionFiles, operation: Operation, params: Any) -> Preview:
    """What an operation would do to these captions. Nothing is written."""
    return of_texts(files, operation.about(params), operation.edit(files.texts, params))


def of_texts(files: CaptionFiles, about: str, texts: Mapping[str, str | None]) -> Preview:
    """What these texts would change. Raises PilotError where one cannot be stored."""
    before = len(files.notes)
    replacements = files.rewritten(texts)
    changes = [Change(name, files.places[name].text, text) for name, text in texts.items()]
    return Preview(about, changes, replacements, files.notes[before:])


def apply(files: CaptionFiles, wanted: Preview, seen: str = "") -> Edit | None:
    """Make the changes of a preview, as one edit that can be undone; None where there are none.

    seen: the preview that a person looked at; PilotError where this is another one.
    """
    if seen and seen != wanted.seen:
        raise PilotError("captions", "changed since the preview", "the captions that were seen", "Look at it again.")
    return Journal(files.root).apply(wanted.about, wanted.replacements)
