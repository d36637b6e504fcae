"""Keeps secrets out of what is written down: tokens are named in a configuration, never stored in it.

Used for everything that could carry one by accident: the recorded command, events, reasons of failures. Tokens reach
a network job through a descriptor (`hand`, `taken`): never through its environment, its arguments or a file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping

HIDDEN = "***"
_SHORTEST = 6  # a shorter value would be found by chance in ordinary text
DESCRIPTOR = "PILOT_SECRETS_FD"  # the number of a descriptor, not a secret
TOKENS = ("HF_TOKEN", "CIVITAI_TOKEN")
_handed: dict[str, str] = {}  # what this process was given, to be blotted out like the environment's
_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL|WEBHOOK|PRIVATE_?KEY", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?i)([\w.-]*(?:token(?!s|_warmup|i[sz])|secret(?!ar)|passw(?:or)?d|api_?key|credential)[\w.-]*\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|\S+)"
)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|ghp_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without secrets: values of secret-looking variables, `token=...`, keys of known shape, URL passwords."""
    values = {**os.environ, **_handed} if environment is None else environment
    for name, value in values.items():
        if _NAME.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, _ASSIGNED.sub(rf"\1{HIDDEN}", text))


def hand(tokens: Mapping[str, str]) -> int:
    """A descriptor from which one process reads the tokens, for `taken`; the caller closes it after the start."""
    reading, writing = os.pipe()
    os.write(writing, json.dumps(dict(tokens)).encode())  # far below what a pipe holds without a reader
    os.close(writing)
    return reading


def without_tokens(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for a process that gets its tokens by descriptor, or none."""
    return {name: value for name, value in environment.items() if not _NAME.search(name) and name != DESCRIPTOR}


def taken() -> dict[str, str]:
    """The tokens of this process by name: handed to it by descriptor, else, as in a shell, from the environment."""
    number = os.environ.pop(DESCRIPTOR, "")
    if number.isdigit():
        with os.fdopen(int(number), "rb") as file:
            _handed.update({str(name): str(value) for name, value in json.loads(file.read() or b"{}").items() if value})
        return dict(_handed)
    return _handed or {name: os.environ[name] for name in TOKENS if os.environ.get(name)}
