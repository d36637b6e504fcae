"""What can be said about a dataset without training: counts, captions, broken and double pictures, sizes.

Facts only, and at once; the doctor's report (`trainpilot.datasets.doctor`) looks at the pictures themselves. Used by
the Datasets pages, the wizard's second step and the API.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from pathlib import Path

from pydantic import BaseModel

from controlpilot.measuring import measuring
from controlpilot.views.dataset_folders import Signature, caption_of, folder, layout_of, signature_of
from trainpilot.datasets.images import Inspection
from trainpilot.datasets.layouts import Layout, listed_names
from trainpilot.workspace import Workspace

HOLDS = 20.0  # seconds
_KEPT = 64


class Finding(BaseModel):
    """Something about a dataset. level: "error", "warning" (worth a look) or "note"."""

    level: str
    text: str
    remedy: str = ""


class Check(BaseModel):
    """What can be said about a dataset without opinions. measured, of: pictures whose size is known."""

    findings: list[Finding]
    images: int
    captioned: int
    measured: int
    of: int
    sizes: list[tuple[str, int]] = []
    smallest: int | None = None


_checks: OrderedDict[tuple[Path, tuple[int, int] | None, str], tuple[Signature, float, Check]] = OrderedDict()
_guard = threading.Lock()


def check(workspace: Workspace, name: str, recommended: tuple[int, int] | None = None, trigger: str = "") -> Check:
    """Validate a dataset by what is known without training: counts, captions, broken and double pictures, sizes.

    recommended: number of pictures, from and to, of the training type. Pictures not measured yet are being measured.
    A finished check holds until a file comes, goes or is replaced, and for `HOLDS` seconds at most: what an editor
    writes into a caption in place changes no folder.
    """
    root = folder(workspace, name)
    key, signature = (root, recommended, trigger), signature_of(root)
    with _guard:
        kept = _checks.get(key)
    if kept is not None and kept[0] == signature and time.monotonic() - kept[1] < HOLDS:
        return kept[2]
    made = _check(workspace, root, recommended, trigger)
    if made.measured == made.of:
        with _guard:
            _checks[key] = (signature, time.monotonic(), made)
            while len(_checks) > _KEPT:
                _checks.popitem(last=False)
    return made


def _check(workspace: Workspace, root: Path, recommended: tuple[int, int] | None, trigger: str) -> Check:
    layout = layout_of(root)
    work = measuring(workspace)
    paths = [one.image for one in layout.images]
    facts = work.facts(paths)
    work.want(path for path in paths if path not in facts)
    texts = [caption_of(one) for one in layout.images]
    whole = {path: fact for path, fact in facts.items() if fact.problem is None}
    findings = [Finding(level="note", text=note) for note in layout.notes]
    findings += _about_pictures(facts)
    findings += _about_counts(len(paths), recommended)
    findings += _about_captions(texts, trigger, layout)
    sides = Counter(f"{fact.size[0]}x{fact.size[1]}" for fact in whole.values())
    order = {"error": 0, "warning": 1, "note": 2}
    return Check(
        findings=sorted(findings, key=lambda one: order[one.level]),
        images=len(paths),
        captioned=sum(bool(text) for text in texts),
        measured=len(facts),
        of=len(paths),
        sizes=sides.most_common(6),
        smallest=min((min(fact.size) for fact in whole.values()), default=None),
    )


def _about_pictures(facts: dict[Path, Inspection]) -> list[Finding]:
    broken = {path.name: fact.problem for path, fact in facts.items() if fact.problem}
    found = [
        Finding(level="error", text=f"{name} {problem}", remedy="Replace it or move it to the trash; it is skipped.")
        for name, problem in list(broken.items())[:5]
    ]
    if len(broken) > 5:
        found.append(Finding(level="error", text=f"and {len(broken) - 5} more pictures that cannot be used"))
    contents: dict[str, list[str]] = {}
    for path, fact in facts.items():
        if fact.problem is None:
            contents.setdefault(fact.sha256, []).append(path.name)
    for names in [names for names in contents.values() if len(names) > 1][:5]:
        found.append(
            Finding(
                level="warning",
                text=f"the same picture {len(names)} times: {listed_names(names)}",
                remedy="Keep one: doubles are learnt by heart.",
            )
        )
    remarks: dict[str, list[str]] = {}
    for path, fact in facts.items():
        for remark in fact.remarks:
            remarks.setdefault(remark, []).append(path.name)
    found += [Finding(level="note", text=f"{listed_names(names)}: {remark}") for remark, names in remarks.items()]
    small = [path.name for path, fact in facts.items() if fact.problem is None and max(fact.size) < 512]
    if small and any(max(fact.size) >= 512 for fact in facts.values() if fact.problem is None):
        found.append(
            Finding(
                level="warning",
                text=f"{len(small)} pictures are smaller than 512 px: {listed_names(small)}",
                remedy="Use larger originals; enlarging adds no detail.",
            )
        )
    return found


def _about_counts(count: int, recommended: tuple[int, int] | None) -> list[Finding]:
    if recommended is None:
        return []
    low, high = recommended
    if count < low:
        text = f"{count} pictures; {low} to {high} are recommended for this type"
        return [Finding(level="warning", text=text, remedy="Add pictures that differ in pose, light and place.")]
    if count > high * 3:
        text = f"{count} pictures; {low} to {high} are recommended for this type"
        return [Finding(level="note", text=text, remedy="The best of them usually train better than all of them.")]
    return []


def _about_captions(texts: list[str], trigger: str, layout: Layout) -> list[Finding]:
    empty = sum(not text for text in texts)
    found = []
    if empty == len(texts):
        instead = layout.images[0].class_tokens or "the empty caption"
        text = f"no picture has a caption; every picture is trained with {instead!r}"
        found.append(Finding(level="warning", text=text, remedy="Captions keep what varies out of the trigger word."))
    elif empty:
        found.append(
            Finding(level="warning", text=f"{empty} of {len(texts)} pictures have no caption", remedy="Write them.")
        )
    same = Counter(text for text in texts if text).most_common(1)
    if same and same[0][1] > max(3, len(texts) // 2):
        text = f"{same[0][1]} captions are the same: {same[0][0][:80]!r}"
        found.append(Finding(level="warning", text=text, remedy="Varied captions generalise better."))
    if trigger:
        captioned = [text for text in texts if text]
        without = sum(trigger.casefold() not in text.casefold() for text in captioned)
        late = sum(not text.casefold().startswith(trigger.casefold()) for text in captioned) - without
        if without or late:
            text = f"the trigger {trigger!r} is missing in {without} captions and not first in {late}"
            found.append(
                Finding(level="note", text=text, remedy="It is put first while training; the files stay as they are.")
            )
    return found
