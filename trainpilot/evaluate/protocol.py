"""What an evaluation paints: prompts in groups, seeds, strengths, and the models that look. Read from TOML.

`protocol.toml` is for any base; a file `protocol-NAME.toml` beside it is taken where the base's name fits its `bases`.
A person's own lies in `config/protocols/` of the workspace, or is named by path. Used by the verb and the job
`evaluate`; loads without torch.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trainpilot.config.schema import MAX_SEED
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

FOLDER = Path(__file__).parent
SCHEMA = 1
Group = Literal["likeness", "context", "style", "composition", "control"]
GROUPS: tuple[Group, ...] = get_args(Group)
FLEXIBLE: tuple[Group, ...] = ("context", "style", "composition")  # what shows whether a prompt is still followed


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Strict):
    """One prompt. text: with {trigger} and {class}; means: in words that CLIP knows, else the text without trigger."""

    group: Group
    text: str = Field(min_length=1, max_length=2000)
    means: str = Field("", max_length=2000)


class Sampling(_Strict):
    """How pictures are painted; None takes the family's or the run's."""

    steps: int = Field(25, ge=1, le=200)
    guidance: float | None = Field(None, ge=0, le=100)
    sampler: str = "auto"
    negative: str = ""
    size: int | None = Field(None, ge=64, le=4096, multiple_of=8)


class Models(_Strict):
    """Names to look for, the first that is on disk is taken."""

    clip: tuple[str, ...] = ()
    dino: tuple[str, ...] = ()
    face: tuple[str, ...] = ()


class Protocol(_Strict):
    """Everything an evaluation depends on besides the files that it judges."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = Field(min_length=1, max_length=100)
    title: str = ""
    bases: tuple[str, ...] = ()
    class_word: str = Field("subject", alias="class", min_length=1, max_length=100)
    seeds: tuple[int, ...] = Field(min_length=2, max_length=64)
    strengths: tuple[float, ...] = Field(min_length=1, max_length=20)
    reference: float = 1.0
    checkpoints: int = Field(12, ge=1, le=200)
    swept: int = Field(3, ge=0)
    pictures: int = Field(64, ge=2)
    sampling: Sampling = Field(default_factory=lambda: Sampling.model_validate({}))
    models: Models = Field(default_factory=Models)
    prompts: tuple[Line, ...]

    @model_validator(mode="after")
    def _complete(self) -> Protocol:
        counts = Counter(line.group for line in self.prompts)
        if not counts["likeness"] or not any(counts[group] for group in FLEXIBLE) or not counts["control"]:
            raise ValueError("prompts of the groups likeness, control, and one of " + ", ".join(FLEXIBLE))
        if any("{trigger}" in line.text for line in self.prompts if line.group == "control"):
            raise ValueError("controls without {trigger}")
        if any("{trigger}" not in line.text for line in self.prompts if line.group != "control"):
            raise ValueError("{trigger} in every prompt that is no control")
        if self.reference not in self.strengths:
            raise ValueError("a reference that is one of the strengths")
        if len(set(self.seeds)) != len(self.seeds) or any(not 0 <= seed <= MAX_SEED for seed in self.seeds):
            raise ValueError(f"different seeds from 0 to {MAX_SEED}")
        return self

    def filled(self, subject: Subject) -> list[Asked]:
        """The prompts for a subject, in the order of the file."""
        return [
            Asked(number, line.group, subject.fill(line.text), subject.plain(line.text), self._means(line, subject))
            for number, line in enumerate(self.prompts)
        ]

    @staticmethod
    def _means(line: Line, subject: Subject) -> str:
        return subject.fill(line.means) if line.means else subject.plain(line.text)


@dataclass(frozen=True)
class Asked:
    """One prompt as it is painted. plain: without the trigger, for the base; means: what the picture should show."""

    number: int
    group: Group
    text: str
    plain: str
    means: str


@dataclass(frozen=True)
class Subject:
    """What a LoRA was trained on: its trigger word(s), and the class it belongs to. source: how they were found."""

    trigger: str
    class_word: str
    source: str = "given"

    def fill(self, text: str) -> str:
        return _tidy(text.replace("{trigger}", self.trigger).replace("{class}", self.class_word))

    def plain(self, text: str) -> str:
        """The prompt for a base that does not know the trigger: the class stands for the subject."""
        named = "" if "{class}" in text else self.class_word
        return _tidy(text.replace("{trigger}", named).replace("{class}", self.class_word))


def _tidy(text: str) -> str:
    """Without the gaps and commas that an empty word leaves."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"^[,\s]+|(?<=,)\s*,", "", re.sub(r"\s+,", ",", text))


def subject_of(
    captions: Sequence[str],
    folder: str,
    protocol: Protocol,
    *,
    trigger: str | None = None,
    class_word: str | None = None,
) -> Subject:
    """The subject of a dataset: what is given, else the words with which nine of ten captions begin, else the folder's.

    The first common word is the trigger and the others the class ("ohwx woman, ..."). `10_name_class` is read alike.
    """
    words, source = _common_start(captions), "the captions begin with it"
    if not words:
        plain = re.sub(r"^\d+_", "", folder)
        words, source = [word for word in re.split(r"[_\s]+", plain) if word], f"the folder is named {folder}"
    found = words[0] if words else ""
    told = " ".join(words[1:])
    if trigger is not None:
        found, source = trigger, "given"
    return Subject(found, class_word or told or protocol.class_word, source)


def _common_start(captions: Sequence[str]) -> list[str]:
    """Words of the first tag with which at least nine of ten captions begin."""
    firsts = [caption.split(",")[0].split() for caption in captions if caption.strip()]
    common: list[str] = []
    while firsts:
        following = Counter(tuple(words[: len(common) + 1]) for words in firsts if len(words) > len(common))
        if not following:
            break
        [(start, count)] = following.most_common(1)
        if count < 0.9 * len(firsts):
            break
        common = list(start)
    # Articles and the like begin many captions and are nobody's trigger.
    return [] if common and common[0].lower() in ("a", "an", "the", "photo", "picture", "image") else common


def read(path: Path) -> Protocol:
    """The protocol in a file. PilotError names what is wrong in it."""
    try:
        return _checked(tomllib.loads(path.read_text(encoding="utf-8")), path)
    except OSError as error:
        raise PilotError(path, error.strerror or str(error), "a readable .toml file", "Check the path.") from error
    except ValueError as error:
        raise PilotError(path, f"not TOML: {error}", "TOML", "Correct the file.") from error


def _checked(document: Mapping[str, Any], path: Path) -> Protocol:
    try:
        return Protocol.model_validate(document)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(str(part) for part in detail["loc"])
        allowed = str(detail["msg"]).removeprefix("Value error, ")
        given = str(detail.get("input"))[:100] if place else "what it says together"
        raise PilotError(f"{path}: {place}" if place else path, given, allowed, "Correct the file.") from error


def choose(workspace: Workspace, given: str | None, base: str) -> tuple[Protocol, str]:
    """(protocol, why): the one that is named, by path or name; else the one made for the base model; else ours."""
    own = workspace.root / "config" / "protocols"
    if given:
        for path in (own / f"{given}.toml", FOLDER / f"protocol-{given}.toml", Path(given).expanduser()):
            if path.is_file():
                return read(path), f"{path} was named"
        if given == "standard":
            return read(FOLDER / "protocol.toml"), "it was named"
        names = sorted(path.stem for path in own.glob("*.toml")) + [
            path.stem for path in FOLDER.glob("protocol-*.toml")
        ]
        allowed = ", ".join(["standard", *(name.removeprefix("protocol-") for name in names)])
        raise PilotError("--protocol", given, f"{allowed}, or a .toml file", "Choose one of these.")
    for path in sorted(FOLDER.glob("protocol-*.toml")):
        protocol = read(path)
        if any(fnmatch.fnmatch(base, pattern) for pattern in protocol.bases):
            return protocol, f"it is made for {base}"
    return read(FOLDER / "protocol.toml"), "no other is made for this base"
