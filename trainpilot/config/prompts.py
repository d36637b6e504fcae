"""Prompts for sampling: one line each with `--w 512`-style options, or a file of them.

The options are those of sd-scripts' prompt files: --n negative, --w --h size, --d seed, --s steps, --l guidance
scale, --g embedded guidance, --ss sampler. Used by the merge (to check them), sampling and evaluation.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainpilot.config.describe import both, did_you_mean
from trainpilot.config.schema import MAX_SEED, RunConfig
from trainpilot.errors import PilotError


@dataclass(frozen=True)
class Prompt:
    """One picture to sample. Sizes in px; seed None counts up from the run's sampling seed."""

    text: str = ""
    negative: str = ""
    width: int = 512
    height: int = 512
    seed: int | None = None
    steps: int = 20
    guidance: float = 7.5
    embedded_guidance: float = 3.5
    sampler: str = "auto"


# Field -> (kind, least, most)
_NUMBERS: dict[str, tuple[type, float, float]] = {
    "width": (int, 8, 8192),
    "height": (int, 8, 8192),
    "seed": (int, 0, MAX_SEED),
    "steps": (int, 1, 1000),
    "guidance": (float, 0, 100),
    "embedded_guidance": (float, 0, 100),
}
_OPTIONS = {
    "n": "negative",
    "w": "width",
    "h": "height",
    "d": "seed",
    "s": "steps",
    "l": "guidance",
    "g": "embedded_guidance",
    "ss": "sampler",
}
# Names in .toml and .json files: ours, and those of sd-scripts' files.
_KEYS = {name: name for name in ("negative", "sampler", *_NUMBERS)} | {
    "prompt": "text",
    "text": "text",
    "negative_prompt": "negative",
    "sample_steps": "steps",
    "scale": "guidance",
    "guidance_scale": "embedded_guidance",
    "sample_sampler": "sampler",
}
_OPTION = re.compile(r"(?:^|\s)--([A-Za-z]+)(?=\s|$)")


def parse_prompt(line: str, defaults: Prompt | None = None, where: str = "prompt") -> Prompt:
    """A line such as `a zorp on a hill --w 512 --d 7 --n blurry`. PilotError names a wrong option or value."""
    parts = _OPTION.split(line)
    found: dict[str, Any] = {"text": parts[0].strip()}
    for option, value in zip(parts[1::2], parts[2::2], strict=True):
        if option not in _OPTIONS:
            known = [f"--{name}" for name in _OPTIONS]
            raise PilotError(where, f"--{option} in {line!r}", ", ".join(known), "Remove or correct the option.")
        field = _OPTIONS[option]
        found[field] = _value(field, value.strip(), f"{where}: --{option}")
    return replace(defaults or Prompt(), **found)


def _value(field: str, given: Any, where: str) -> Any:
    if field not in _NUMBERS:
        return str(given)
    kind, least, most = _NUMBERS[field]
    try:
        number = kind(given)
    except (TypeError, ValueError, OverflowError) as error:
        raise PilotError(where, given, f"a number from {least:g} to {most:g}", "Correct it.") from error
    if isinstance(given, bool) or not least <= number <= most or (field in ("width", "height") and number % 8):
        unit = " that 8 divides" if field in ("width", "height") else ""
        raise PilotError(where, given, f"a number{unit} from {least:g} to {most:g}", "Correct it.")
    return number


def read_prompts(path: Path, defaults: Prompt | None = None) -> list[Prompt]:
    """The prompts of a .txt (one a line, # comments), .toml or .json file, in its order."""
    given = defaults or Prompt()
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return _tables(json.loads(text), given, path)
        if path.suffix == ".toml":
            return _tables(tomllib.loads(text), given, path)
    except OSError as error:
        raise PilotError(path, error.strerror or str(error), "a readable file", "Check the path.") from error
    except ValueError as error:
        raise PilotError(path, f"cannot be read: {error}", "UTF-8 .txt, .toml or .json", "Correct the file.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [parse_prompt(line, given, f"{path}:{number}") for number, line in lines if line and line[0] != "#"]


def _tables(document: Any, defaults: Prompt, path: Path) -> list[Prompt]:
    """sd-scripts writes [prompt] with [[prompt.subset]]; a plain list, or a list under `prompts`, is taken too."""
    if isinstance(document, Mapping):
        shared = document.get("prompt")
        if isinstance(shared, Mapping):
            common = {key: value for key, value in shared.items() if key != "subset"}
            return _rows(shared.get("subset"), _row(common, defaults, path, 0), path)
        document = document.get("prompts")
    return _rows(document, defaults, path)


def _rows(rows: Any, defaults: Prompt, path: Path) -> list[Prompt]:
    if not isinstance(rows, list):
        raise PilotError(path, "no list of prompts", "a list of tables, or of lines", "See the prompt file format.")
    return [_row(row, defaults, path, number) for number, row in enumerate(rows, 1)]


def _row(row: Any, defaults: Prompt, path: Path, number: int) -> Prompt:
    where = f"{path}: prompt {number}"
    if isinstance(row, str):
        return parse_prompt(row, defaults, where)
    if not isinstance(row, Mapping):
        raise PilotError(where, repr(row), "a line or a table", "Correct it.")
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key not in _KEYS:
            raise PilotError(where, key, ", ".join(_KEYS), did_you_mean(str(key), _KEYS, "Remove it."))
        found[_KEYS[key]] = str(value) if _KEYS[key] == "text" else _value(_KEYS[key], value, f"{where}: {key}")
    return replace(defaults, **found)


def defaults_of(config: RunConfig, embedded_guidance: float = 3.5) -> Prompt:
    """What a prompt takes that says nothing else: `sampling` of a resolved configuration."""
    size = config.sampling.size or config.buckets.resolution or 512
    width, height = both(size)
    sampling = config.sampling
    return Prompt(
        negative=sampling.negative,
        width=width,
        height=height,
        steps=sampling.steps,
        guidance=7.5 if sampling.guidance is None else sampling.guidance,
        embedded_guidance=embedded_guidance,
        sampler=sampling.sampler,
    )


def of_run(config: RunConfig, captions: Sequence[str] = (), embedded_guidance: float = 3.5) -> list[Prompt]:
    """The prompts of a run: its list, then its file, else up to four different captions. Seeds count up."""
    defaults = defaults_of(config, embedded_guidance)
    sampling = config.sampling
    found = [parse_prompt(line, defaults, f"sampling.prompts.{n}") for n, line in enumerate(sampling.prompts)]
    if sampling.prompts_file:
        found += read_prompts(Path(sampling.prompts_file), defaults)
    if not found:
        # A caption is data, not a prompt line: "--w" inside one is text.
        found = [replace(defaults, text=text) for text in list(dict.fromkeys(captions))[:4]]
    return _numbered(found, sampling.seed)


def _numbered(prompts: Iterable[Prompt], seed: int) -> list[Prompt]:
    return [
        prompt if prompt.seed is not None else replace(prompt, seed=min(seed + number, MAX_SEED))
        for number, prompt in enumerate(prompts)
    ]
