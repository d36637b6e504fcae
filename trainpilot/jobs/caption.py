"""The job `caption`: a captioner over a dataset, one batch after another, each caption written as soon as it is made.

What was made is kept in captions.jsonl of the job, and what was replaced in the dataset's journal, so that a stopped
job goes on where it was and all of it can be undone as one edit. Used by `trainpilot caption` and the panel.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trainpilot.datasets import caption_sets
from trainpilot.errors import PilotError, Problems
from trainpilot.runs.atomic import read_json, write_json

if TYPE_CHECKING:
    from PIL.Image import Image

    from trainpilot.captioners import Captioner, Loaded
    from trainpilot.datasets.caption_files import CaptionFiles
    from trainpilot.datasets.caption_journal import Journal, OpenEdit
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag
    from trainpilot.workspace import Workspace

KIND = "caption"
LABEL = "Captions"
RESOURCE: Resource = "gpu"
RESULTS = "captions.jsonl"
ON_CPU = 2  # pictures at once: more saves no time there
LONGEST_SIDE = 2048  # px; captioners look at 384 to 768, and a batch of large photographs would fill the memory
_SHOWN = 300  # letters of a caption in the log
_TAIL = 1 << 16  # bytes of the results that are read for the latest ones


class Params(BaseModel):
    """What to caption, with what, and what happens to captions that are there."""

    model_config = ConfigDict(extra="forbid")

    dataset: str = Field(min_length=1, max_length=1000, description="Folder of pictures: a path, or its name")
    captioner: str = Field("blip", max_length=50, description="Which captioner")
    model: str = Field("", max_length=1000, description="A model's name or folder; none: the captioner's first")
    options: dict[str, Any] = Field(default_factory=dict, description="The captioner's own options")
    trigger: str = Field("", max_length=500, description="Trigger word that every new caption begins with")
    mode: Literal["keep", "append", "replace"] = Field(
        "keep", description="Captions that are there: keep them, append to them, or replace them"
    )
    to_set: str = Field("", max_length=64, description="Keep the captions as a set of that name, and write no file")
    batch: int | None = Field(None, ge=1, le=256, description="Pictures at once; none: by the device")
    caption_extension: str = Field(".txt", pattern=r"^\.[\w.]+$", description="Ending of caption files")
    caption_column: str = Field("text", max_length=200, description="Caption's field in metadata.jsonl")
    title: str = Field("", max_length=200)

    @model_validator(mode="after")
    def _known(self) -> Params:
        from trainpilot.captioners import check, find
        from trainpilot.datasets import caption_edits

        try:
            options = check(find(self.captioner), self.options)
            if self.trigger:
                caption_edits.check(caption_edits.find("add-trigger"), {"word": self.trigger})
        except Problems as problems:
            raise ValueError("; ".join(f"{one.where}: {one.allowed}" for one in problems.problems)) from problems
        except PilotError as problem:
            raise ValueError(f"{problem.where}: {problem.allowed}") from problem
        self.options = options.model_dump(exclude_unset=True)
        return self


def title(params: Params) -> str:
    return params.title or f"{params.dataset.rstrip('/').rpartition('/')[2]} with {params.captioner}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.captioners import find, locate
    from trainpilot.config.schema import Dataset
    from trainpilot.datasets import table
    from trainpilot.datasets.caption_journal import Journal

    captioner = find(params.captioner)
    path, why = locate(job.workspace, captioner, params.model)
    root = table.locate(Dataset.model_validate({"path": params.dataset}), job.workspace)
    teller = _Teller(job, progress)
    journal = Journal(_files(root, params).root)
    with journal.held(), closing(_Course(job, params, root, journal, teller)) as course:
        teller.say(f"{captioner.LABEL}: {path} ({why})")
        course.settle()
        if course.todo:
            job.state.write("load", course.done, course.of, force=True)
            stop.check()
            from trainpilot.engine.probe import choose_device

            device = choose_device()
            loaded = captioner.load(path, device, captioner.Options.model_validate(params.options))
            for note in (*device.notes, *loaded.notes):
                teller.say(note)
            size = params.batch or (captioner.BATCH if device.is_cuda else ON_CPU)
            source = "as given" if params.batch else f"chosen for {'the GPU' if device.is_cuda else 'the CPU'}"
            teller.say(f"{size} pictures at once, {source}")
            progress.phase("captions", of=course.of, done=course.done)
            _work(course, loaded, size, stop)
    return course.summary()


def _files(root: Path, params: Params) -> CaptionFiles:
    from trainpilot.datasets import caption_files

    return caption_files.read(root, caption_extension=params.caption_extension, caption_column=params.caption_column)


def _work(course: _Course, loaded: Loaded, size: int, stop: StopFlag) -> None:
    """Caption what is left; a batch that does not fit into the GPU's memory is halved from then on."""
    import torch

    def look() -> None:
        course.beat()
        stop.check()

    for names, images in _decoded(course, size):
        while names:
            look()
            part = names[:size]
            try:
                texts = loaded.caption(images[: len(part)], look)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise PilotError(
                        "memory", "one picture does not fit", "a smaller model, or a larger GPU",
                        "Choose another model, or set PILOT_DEVICE=cpu.",
                    ) from error  # fmt: skip
                torch.cuda.empty_cache()
                size = max(1, size // 2)
                course.teller.say(f"{len(part)} pictures at once do not fit into the GPU's memory: {size} from here on")
                continue
            course.write(dict(zip(part, texts, strict=True)))
            names, images = names[len(part) :], images[len(part) :]


def _decoded(course: _Course, size: int) -> Iterator[tuple[list[str], list[Image]]]:
    """Batches of pictures, the next one read while the present one is captioned. Broken pictures are named, once."""
    batches = [course.todo[start : start + size] for start in range(0, len(course.todo), size)]
    with ThreadPoolExecutor(2, thread_name_prefix="pictures") as pool:
        ahead: list[Future[Image]] = []
        for number, names in enumerate(batches):
            here = ahead or [pool.submit(_picture, course.files.places[name].image) for name in names]
            following = batches[number + 1] if number + 1 < len(batches) else []
            ahead = [pool.submit(_picture, course.files.places[name].image) for name in following]
            whole: list[tuple[str, Image]] = []
            try:
                for name, future in zip(names, here, strict=True):
                    try:
                        whole.append((name, future.result()))
                    except PilotError as problem:
                        course.skip(name, problem)
                yield [name for name, _ in whole], [image for _, image in whole]
            except BaseException:
                for future in ahead:
                    future.cancel()
                raise


def _picture(path: Path) -> Image:
    from trainpilot.datasets.images import open_rgb

    image = open_rgb(path)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return image


class _Teller:
    """A line for the screen and the log, and an event for the panel."""

    def __init__(self, job: JobDir, progress: Progress) -> None:
        self.job, self.progress = job, progress

    def say(self, text: str) -> None:
        self.progress.say(text)
        self.job.events.append("notice", text=text)


class _Course:
    """What is to be captioned, what is done, and the writing. todo, done: pictures by their path in the dataset."""

    def __init__(self, job: JobDir, params: Params, root: Path, journal: Journal, teller: _Teller) -> None:
        self.job, self.params, self.root, self.journal, self.teller = job, params, root, journal, teller
        if params.to_set:
            caption_sets.check_new(journal.root, params.to_set)
        earlier = read_json(job.path / "edit.json") or {}
        self.edit: OpenEdit | None = journal.take_up(int(earlier["number"])) if earlier else None
        self.undone = bool(earlier) and self.edit is None
        self.files = _files(root, params)  # after what a killed attempt had begun to write was written
        self.made = _results(job.path / RESULTS)
        self.rows: dict[str, str] = {}  # captions of metadata.jsonl, which is written once at the end
        self.written = self.kept = self.skipped = 0
        self.todo: list[str] = []
        self.done = self.of = 0
        self._out = (job.path / RESULTS).open("a", encoding="utf-8")

    def settle(self) -> None:
        """Go on from an earlier attempt, and decide what is left."""
        for note in self.files.notes:
            self.teller.say(note)
        if self.undone:
            self.teller.say("what was written before was undone since: it is written again")
        wanted = self._wanted()
        self.of = len(wanted)
        known = [name for name in wanted if name in self.made and self.made[name]["stamp"] == self._stamp(name)]
        if known:
            self.teller.say(f"{len(known)} pictures were captioned before: the job goes on behind them")
        self.done = len(known)
        late = [name for name in known if self.made[name]["was"] == self.files.places[name].text]
        self._put({name: self.made[name]["text"] for name in late})
        self.todo = [name for name in wanted if name not in set(known)]

    def _wanted(self) -> list[str]:
        """The pictures to caption, those that this job has written already included."""
        taken: set[tuple[Path, int | None]] = set()
        wanted, twins = [], 0
        for name, place in self.files.places.items():
            if (place.file, place.line) in taken:
                twins += 1
                continue
            taken.add((place.file, place.line))
            if self.params.mode == "keep" and place.text and name not in self.made and not self.params.to_set:
                self.kept += 1
            else:
                wanted.append(name)
        if twins:
            self.teller.say(f"{twins} pictures share the caption file of another one, which is captioned for them")
        if self.kept:
            self.teller.say(f"{self.kept} captions are kept (mode keep)")
        return wanted

    def _stamp(self, name: str) -> list[int]:
        about = self.files.places[name].image.stat()
        return [about.st_size, about.st_mtime_ns]

    def write(self, texts: Mapping[str, str]) -> None:
        """Take new captions: note them, then write their files."""
        made = {name: self._composed(name, text) for name, text in texts.items()}
        for name, text in made.items():
            row = {"image": name, "stamp": self._stamp(name), "was": self.files.places[name].text, "text": text}
            self.made[name] = row
            self._out.write(json.dumps(row) + "\n")
        self._out.flush()
        self._put(made)
        self.done += len(made)
        for name, text in made.items():
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
            self.teller.progress.say(f"{name}: {shown}")
            self.job.events.append("caption", picture=name, text=text[:2000])
        self.teller.progress.update(self.done)
        self.beat()

    def _composed(self, name: str, text: str) -> str:
        """The caption as it will stand: with what was there, where that is appended to, and behind the trigger."""
        from trainpilot.datasets.caption_edits import add_trigger
        from trainpilot.datasets.caption_edits._text import joined, tags

        new = " ".join(text.split())
        present = self.files.places[name].text
        if self.params.mode == "append" and present and not self.params.to_set:
            lines = []
            for line in present.split("\n"):
                there = {tag.casefold() for tag in tags(line)}
                lines.append(joined([*tags(line), *(tag for tag in tags(new) if tag.casefold() not in there)]))
            new = "\n".join(lines)
        if self.params.trigger:
            trigger = add_trigger.Params(word=self.params.trigger)
            new = add_trigger.edit({name: new}, trigger).get(name, new)
        return new

    def _put(self, texts: Mapping[str, str]) -> None:
        """Write caption files. A caption that somebody else has changed since the job began stays as it is."""
        if self.params.to_set:
            return
        now = {}
        for name, text in texts.items():
            place = self.files.places[name]
            if place.line is not None:
                self.rows[name] = text
            elif _present(place.file) != (place.text or ""):
                self._leave(name)
            else:
                now[name] = text
        self._replace(now)

    def _leave(self, name: str) -> None:
        self.teller.say(f"{name}: its caption was edited meanwhile, and stays")
        self.kept += 1

    def _replace(self, texts: Mapping[str, str]) -> None:
        told = len(self.files.notes)
        replacements = self.files.rewritten(texts)
        for note in self.files.notes[told:]:
            self.teller.say(note)
        if not replacements:
            return
        if self.edit is None:
            how = {"keep": "where there were none", "append": "appended", "replace": "replaced"}[self.params.mode]
            self.edit = self.journal.begin(f"captions by {self.params.captioner}, {how}")
            write_json(self.job.path / "edit.json", {"number": self.edit.number})
        self.edit.replace(replacements)
        self.written += len(texts)

    def skip(self, name: str, problem: PilotError) -> None:
        self.skipped += 1
        self.teller.progress.say(f"{name}: {problem.given}: it gets no caption")
        self.job.events.append("warning", text=f"{name}: {problem.given}: it gets no caption", picture=name)

    def beat(self) -> None:
        self.job.state.write("caption", self.done, self.of, eta=self.teller.progress.eta, skipped=self.skipped)

    def close(self) -> None:
        """Write the rows of metadata.jsonl and the set; also when the job was stopped."""
        self._out.close()
        if self.rows:
            before, self.files = self.files, _files(self.root, self.params)
            edited = {name for name in self.rows if self.files.places[name].text != before.places[name].text}
            for name in edited:
                self._leave(name)
            self._replace({name: text for name, text in self.rows.items() if name not in edited})
        if self.params.to_set and self.done + self.skipped >= self.of:
            texts = {name: self.made[name]["text"] if name in self.made else None for name in self.files.places}
            caption_sets.save(self.files.root, self.params.to_set, texts)
            self.written = self.done

    def summary(self) -> str:
        if self.params.to_set:
            told = [f"{self.written} captions kept as the set {self.params.to_set}"]
        else:
            told = [f"{self.written} captions written"]
        told += [f"{self.kept} kept"] if self.kept else []
        told += [f"{self.skipped} pictures skipped"] if self.skipped else []
        if self.edit is not None:
            told.append(f"undo with: trainpilot captions {self.params.dataset} undo")
        return ", ".join(told)


def _results(path: Path) -> dict[str, dict[str, Any]]:
    """What earlier attempts made, by picture; a torn last line is none."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows = [json.loads(line) for line in whole.splitlines()]
    return {row["image"]: row for row in rows}


def _present(file: Path) -> str:
    from trainpilot.datasets.captions import read_caption

    return read_caption(file)[0] if file.exists() else ""


class Offer(BaseModel):
    """A published model of a captioner. here: whether it is on disk; download: the parameters of the job for it."""

    name: str
    label: str
    size_bytes: int
    licence: str
    here: bool
    download: dict[str, Any]


def offers(workspace: Workspace, captioner: str) -> list[Offer]:
    """The models of a captioner, and which are here. PilotError where there is no such captioner."""
    from trainpilot.captioners import NotOnDisk, find, locate

    about, found = find(captioner), []
    for model in about.MODELS:
        try:
            here = bool(locate(workspace, about, model.name))
        except NotOnDisk:
            here = False
        found.append(
            Offer(
                name=model.name,
                label=model.label,
                size_bytes=model.size_bytes,
                licence=model.licence,
                here=here,
                download=model.download,
            )
        )
    return found


def latest(folder: Path, most: int) -> list[tuple[str, str]]:
    """(picture, caption) of the last captions that a job has made, the newest first."""
    path = folder / RESULTS
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().split(b"\n")
    # The first line may have begun before the tail, and the last one is empty or not whole yet.
    rows = [json.loads(line) for line in lines[1 if path.stat().st_size > _TAIL else 0 : -1]]
    return [(row["image"], row["text"]) for row in rows[-most:]][::-1]


def known() -> dict[str, Captioner]:
    """All captioners by name, for those who may not import their room."""
    from trainpilot.captioners import captioners

    return captioners()
