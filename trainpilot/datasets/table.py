"""The table of all pictures of a run: one scan, used by the plan and by the engine alike.

`build` finds, checks, captions and places every picture; the `Table` deals them out in batches as a pure function of
seed and epoch. Nothing here depends on torch or on how often it was called.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from trainpilot.config.schema import Dataset, RunConfig
from trainpilot.datasets import buckets, captions, layouts
from trainpilot.datasets.hashes import Memo, Stamp
from trainpilot.datasets.images import Inspection, inspect
from trainpilot.datasets.layouts import Found, listed_names, printable
from trainpilot.datasets.samples import Sample, Size
from trainpilot.errors import PilotError, Problems
from trainpilot.randomness import stream
from trainpilot.workspace import Workspace

CHUNK = 256  # pictures inspected before their facts are remembered: what an interrupted first scan keeps
MAX_THREADS = 8
_INSPECTION = "inspection"


@dataclass
class Table:
    """All samples of a run. notes: warnings to print, one sentence each. buckets: sample indices by (width, height)."""

    samples: list[Sample]
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.buckets: dict[Size, list[int]] = {}
        for position, sample in enumerate(self.samples):
            self.buckets.setdefault(sample.bucket, []).append(position)
        self.buckets = dict(sorted(self.buckets.items()))

    @property
    def images_per_epoch(self) -> int:
        """Pictures seen an epoch, each counted `repeats` times."""
        return sum(sample.repeats for sample in self.samples)

    def bucket_counts(self) -> dict[Size, int]:
        """Pictures an epoch by bucket, repeats counted."""
        return {bucket: sum(self.samples[i].repeats for i in rows) for bucket, rows in self.buckets.items()}

    def batches_per_epoch(self, batch_size: int) -> int:
        """The same in every epoch: buckets are not mixed, and a bucket's last batch may be partial."""
        return sum(-(-count // batch_size) for count in self.bucket_counts().values())

    def batches(self, epoch: int, seed: int, batch_size: int) -> list[list[int]]:
        """The epoch's batches of sample indices, each of one bucket; a pure function. epoch counts from 0."""
        if batch_size < 1:
            raise ValueError(f"a batch holds at least one picture, not {batch_size}")
        rng = stream(seed, "order", epoch)
        found: list[list[int]] = []
        for rows in self.buckets.values():
            every = np.repeat(rows, [self.samples[i].repeats for i in rows])
            order = rng.permutation(every).tolist()
            found += [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        return [found[i] for i in rng.permutation(len(found))]

    def fingerprint(self) -> str:
        """SHA-256 over what the pictures, masks and captions contain and how often each is seen, not where they lie."""
        total = hashlib.sha256()
        for sample in self.samples:
            caption = hashlib.sha256(sample.caption.encode("utf-8", "surrogatepass")).hexdigest()
            kind = "regularization" if sample.regularization else "train"
            total.update(f"{sample.sha256} {sample.mask_sha256} {caption} {sample.repeats} {kind}\n".encode())
        return total.hexdigest()


def build(config: RunConfig, workspace: Workspace, *, progress: Callable[[int, int], None] | None = None) -> Table:
    """Scan the datasets of a resolved configuration.

    progress(done, of) is called while pictures are checked; what it raises ends the scan. Raises PilotError or
    Problems where a folder is missing or empty, no picture can be read, or a strict dataset has a broken file.
    """
    if not config.datasets:
        raise PilotError("datasets", "none", "at least one folder of pictures", "Add --dataset FOLDER.")
    with Memo.of(workspace.cache) as memo:
        scan = _Scan(config, workspace, memo)
        scan.find()
        scan.inspect_all(progress)
        samples = scan.samples()
        notes = scan.notes + memo.notes
    return Table(_dealt(samples, notes), notes)


def locate(dataset: Dataset, workspace: Workspace) -> Path:
    """The folder of a dataset: absolute, in datasets/images/, in datasets/, in the guide's tree, or from here."""
    if not dataset.path:
        raise PilotError("datasets.path", "nothing", "a folder of pictures", "Give --dataset FOLDER.")
    places = (workspace.datasets / "images", workspace.datasets, workspace.root / "lora_training" / "data")
    return workspace.locate(dataset.path, *places)


class _Scan:
    """The stages of one scan, and what it has to say."""

    def __init__(self, config: RunConfig, workspace: Workspace, memo: Memo) -> None:
        self.config = config
        self.workspace = workspace
        self.memo = memo
        self.notes: list[str] = []
        self.problems: list[PilotError] = []
        self.roots: list[Path] = []
        self.found: list[tuple[int, Found]] = []
        self.inspections: dict[Path, Inspection] = {}

    def find(self) -> None:
        """Every dataset's layout. All folders that are wrong are named at once."""
        for number, dataset in enumerate(self.config.datasets):
            try:
                root = locate(dataset, self.workspace)
                layout = layouts.discover(
                    root,
                    caption_extension=dataset.caption_extension,
                    caption_column=dataset.caption_column,
                    repeats=dataset.repeats,
                    masks=self.workspace.locate(dataset.masks, root, root.parent) if dataset.masks else None,
                )
            except PilotError as problem:
                self.problems.append(problem)
                continue
            self.roots.append(root)
            self.notes += [f"{printable(root.name)}: {note}" for note in layout.notes]
            if dataset.captions.dropout_every_n_epochs == 1:
                self.notes.append(
                    f"{printable(root.name)}: captions.dropout_every_n_epochs = 1 empties every caption of every "
                    "epoch; 0 turns it off"
                )
            self.found += [(number, found) for found in layout.images]
        self.raise_problems()

    def inspect_all(self, progress: Callable[[int, int], None] | None) -> None:
        """Read every picture and mask once, by threads; files that have not changed since are not read again."""
        paths = list(dict.fromkeys(path for _, one in self.found for path in (one.image, one.mask) if path))
        threads = min(MAX_THREADS, os.cpu_count() or 1)
        with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
            for start in range(0, len(paths), CHUNK):

                def tell(done: int, start: int = start) -> None:
                    if progress:
                        progress(start + done, len(paths))

                self.inspect_some(paths[start : start + CHUNK], pool, tell)
                tell(len(paths[start : start + CHUNK]))

    def inspect_some(self, paths: list[Path], pool: ThreadPoolExecutor, tell: Callable[[int], None]) -> None:
        stamps: list[Stamp] = []
        for path in paths:
            try:
                stamps.append(Stamp(path))
            except OSError as problem:
                self.inspections[path] = Inspection(problem=problem.strerror or str(problem))
        unknown = []
        for stamp, text in zip(stamps, self.memo.known(_INSPECTION, stamps), strict=True):
            if text is None:
                unknown.append(stamp)
            else:
                self.inspections[stamp.path] = Inspection.from_text(text)
        learnt: list[tuple[Stamp, Inspection]] = []
        readings = [pool.submit(_inspected, stamp.path) for stamp in unknown]
        try:
            for stamp, reading in zip(unknown, readings, strict=True):
                tell(len(paths) - len(unknown) + len(learnt))
                inspection = self.inspections[stamp.path] = reading.result()
                if inspection.sha256:  # a file that could not be read at all may be readable next time
                    learnt.append((stamp, inspection))
        finally:
            for reading in readings:  # a stop must not wait for pictures that nobody will look at
                reading.cancel()
        self.memo.remember(_INSPECTION, [(stamp, one.to_text()) for stamp, one in learnt])
        self.memo.remember("sha256", [(stamp, one.sha256) for stamp, one in learnt])

    def samples(self) -> list[Sample]:
        """Placed and captioned samples of all readable pictures; index, order and regularisation come later."""
        rules = [buckets.rules_from(self.config.buckets, dataset.resolution) for dataset in self.config.datasets]
        silent: dict[int, Counter[str]] = defaultdict(Counter)
        remarks: dict[str, list[str]] = defaultdict(list)
        samples = []
        for number, found in self.found:
            dataset = self.config.datasets[number]
            inspection = self.usable(found.image, dataset, "skipped", remarks)
            if inspection is None:
                continue
            caption = self.caption(found, dataset, remarks, silent[number])
            if caption is None:
                continue
            mask, mask_hash = self.mask(found, dataset, inspection.size, remarks)
            samples.append(
                _sample(found, number, dataset, inspection, caption, rules[number], self.config.buckets.algorithm)
            )
            if mask:
                samples[-1] = replace(samples[-1], mask=mask, mask_sha256=mask_hash)
        self.raise_problems()
        self.notes += [f"{listed_names(names)}: {remark}" for remark, names in remarks.items()]
        for number, used in silent.items():
            for text, count in used.items():
                self.notes.append(
                    f"{printable(self.roots[number].name)}: {count} pictures without a caption take {printable(text)!r}"
                )
        self.require_some(samples, rules)
        return samples

    def usable(
        self, path: Path, dataset: Dataset, consequence: str, remarks: dict[str, list[str]]
    ) -> Inspection | None:
        """The inspection of a whole picture; a broken one is named and left out, or refused under strict."""
        inspection = self.inspections[path]
        for remark in inspection.remarks:
            remarks[remark].append(path.name)
        if inspection.problem is None:
            return inspection
        if dataset.strict:
            self.problems.append(
                PilotError(
                    path,
                    inspection.problem,
                    "whole pictures only, since datasets.strict is on",
                    "Replace the file, take it out, or turn datasets.strict off to skip it.",
                )
            )
        else:
            self.notes.append(f"{printable(path)} {printable(inspection.problem)}: {consequence}")
        return None

    def caption(
        self, found: Found, dataset: Dataset, remarks: dict[str, list[str]], silent: Counter[str]
    ) -> str | None:
        """The caption as written; None where its file is refused or is no text, which leaves the picture out."""
        if found.caption_text is not None:
            return found.caption_text.strip()
        if found.caption_path is None:
            text = found.class_tokens if dataset.default_caption is None else dataset.default_caption
            silent[text] += 1
            return text
        try:
            text, note = captions.read_caption(found.caption_path, strict=dataset.strict)
        except PilotError as problem:
            if dataset.strict:
                self.problems.append(problem)
            else:
                self.notes.append(f"{printable(found.caption_path)}: {problem.given}: its picture is skipped")
            return None
        if note:
            remarks[note].append(found.caption_path.name)
        return text

    def mask(
        self, found: Found, dataset: Dataset, size: Size, remarks: dict[str, list[str]]
    ) -> tuple[Path | None, str]:
        if found.mask is None:
            return None, ""
        inspection = self.usable(found.mask, dataset, "its picture is trained whole", remarks)
        if inspection is None:
            return None, ""
        if inspection.size != size:
            remarks["is a mask of another size than its picture: scaled to it"].append(found.mask.name)
        return found.mask, inspection.sha256

    def require_some(self, samples: list[Sample], rules: list[buckets.Rules]) -> None:
        """Every dataset keeps at least one picture, and pictures too narrow for a step are named."""
        kept = Counter(sample.dataset for sample in samples)
        for number in range(len(self.config.datasets)):
            if not kept[number]:
                given = next((note for note in self.notes if note.endswith(": skipped")), "none can be read")
                self.problems.append(
                    PilotError(self.roots[number], f"no readable picture ({given})", "at least one whole picture",
                               "Replace the broken files.")
                )  # fmt: skip
        self.raise_problems()
        narrow = [one.image.name for one in samples if min(one.size) < rules[one.dataset].step]
        if narrow:
            self.notes.append(f"narrower than one bucket step, enlarged to it: {listed_names(narrow)}")
        for rule in dict.fromkeys(rules):
            if not rule.enabled and rule.square != rule.resolution:
                self.notes.append(
                    f"resolution {_shown(rule.resolution)} is rounded down to {_shown(rule.square)}: sides are "
                    f"multiples of {rule.step}"
                )

    def raise_problems(self) -> None:
        if len(self.problems) == 1:
            raise self.problems[0]
        if self.problems:
            raise Problems(self.problems)


def _inspected(path: Path) -> Inspection:
    try:
        return inspect(path)
    except OSError as problem:
        return Inspection(problem=problem.strerror or str(problem))


def _sample(
    found: Found,
    number: int,
    dataset: Dataset,
    inspection: Inspection,
    caption: str,
    rules: buckets.Rules,
    algorithm: str,
) -> Sample:
    placement = buckets.place(inspection.size, rules)
    told = buckets.kohya_told_crop(inspection.size, placement.bucket) if algorithm == "kohya" else None
    return Sample(
        index=0,
        image=found.image,
        size=inspection.size,
        bucket=placement.bucket,
        resized=placement.resized,
        crop=placement.crop[:2],
        dataset=number,
        repeats=found.repeats,
        caption=caption,
        regularization=dataset.regularization,
        folder=found.folder,
        sha256=inspection.sha256,
        told_crop=told,
    )


def _dealt(samples: Iterable[Sample], notes: list[str]) -> list[Sample]:
    """Training pictures, then as many regularisation pictures: in order, then repeated, until the counts meet.

    As sd-scripts: a first round takes each with its own repeats, later rounds add one each.
    """
    every = list(samples)
    train = [sample for sample in every if not sample.regularization]
    prior = [sample for sample in every if sample.regularization]
    if not train:
        raise PilotError(
            "datasets.regularization",
            "every dataset is one of regularisation pictures",
            "at least one dataset to learn from",
            "Turn datasets.regularization off for it.",
        )
    wanted = sum(sample.repeats for sample in train)
    repeats = [0] * len(prior)
    total = 0
    while prior and total < wanted:
        for position, sample in enumerate(prior):
            more = sample.repeats if repeats[position] == 0 else 1
            repeats[position] += more
            total += more
            if total >= wanted:
                break
    used = [replace(sample, repeats=times) for sample, times in zip(prior, repeats, strict=True) if times]
    if len(used) < len(prior):
        notes.append(
            f"{len(prior) - len(used)} of {len(prior)} regularisation pictures are not used: the first {len(used)} "
            f"already match the {wanted} training pictures of an epoch"
        )
    return [replace(sample, index=index) for index, sample in enumerate(train + used)]


def _shown(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
