"""Keeps secrets out of what is written down: tokens are named in a configuration, never stored in it.

Used for everything that could carry one by accident: the recorded command, events, reasons of failures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

HIDDEN = "***"
_SHORTEST = 6  # a shorter value would be found by chance in ordinary text
_NAME = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|CREDENTIAL|WEBHOOK|PRIVATE_?KEY", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?i)([\w.-]*(?:token(?!s|_warmup|i[sz])|secret(?!ar)|passw(?:or)?d|api_?key|credential)[\w.-]*\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|\S+)"
)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|ghp_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,})|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without secrets: values of secret-looking variables, `token=...`, keys of known shape, URL passwords."""
    values = os.environ if environment is None else environment
    for name, value in values.items():
        if _NAME.search(name) and len(value) >= _SHORTEST:
            text = text.replace(value, HIDDEN)
    return _SHAPES.sub(HIDDEN, _ASSIGNED.sub(rf"\1{HIDDEN}", text))
