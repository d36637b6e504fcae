"""AI Toolkit: its LoRA jobs, in YAML or JSON."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from trainpilot.dialects._account import Ledger, Reading
from trainpilot.dialects._keys import take
from trainpilot.dialects._text import from_json, from_yaml
from trainpilot.dialects.ai_toolkit.names import SECTIONS, TRAINERS, fate, keys
from trainpilot.dialects.ai_toolkit.reading import Job
from trainpilot.dialects.ai_toolkit.writing import write
from trainpilot.errors import PilotError

__all__ = ["LABEL", "NAME", "SUFFIX", "fate", "keys", "read", "sniff", "write"]

NAME = "ai_toolkit"
LABEL = "AI Toolkit job (YAML or JSON)"
SUFFIX = ".yaml"


def _tree(text: str) -> Any:
    return from_json(text, comments=True) if text.lstrip().startswith("{") else from_yaml(text)


def sniff(text: str) -> float:
    """A job with config.process."""
    try:
        tree = _tree(text)
    except PilotError:
        return 0.0
    config = tree.get("config") if isinstance(tree, dict) else None
    return 1.0 if isinstance(config, dict) and isinstance(config.get("process"), list) else 0.0


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for the first process of a job."""
    tree = _tree(text)
    config = tree.get("config") if isinstance(tree, dict) else None
    process = config.get("process") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(process, list) or not process or not isinstance(process[0], dict):
        raise PilotError("config.process", "none", "a job with one process", "Is this a job of AI Toolkit?")
    ledger = Ledger(NAME)
    for number, _ in enumerate(process[1:], 1):
        ledger.refused(f"config.process.{number}", "a process", "a job's first process alone is read")
    for name in sorted(tree.keys() - {"config", "job"}):
        ledger.idle(name, tree[name], "free notes; they do not change the training")
    job = process[0]
    kind = str(job.get("type") or "")
    if kind not in TRAINERS:
        remedy = "Captioning, extraction and sliders are other verbs."
        raise PilotError("config.process.0.type", kind or "nothing", ", ".join(TRAINERS), remedy)
    ledger.mapped("type", kind, {})
    name = re.sub(r"[^\w.\- ]+", "_", str(config.get("name") or "")).lstrip(".- ")[:100]
    ledger.mapped("config.name", config.get("name"), {"run.name": name or None})
    flat: dict[str, Any] = {}
    for key, value in job.items():
        if key in SECTIONS and isinstance(value, dict):
            for inner, leaf in value.items():
                ema = key == "train" and inner == "ema_config" and isinstance(leaf, dict)
                flat |= {f"train.ema_config.{k}": v for k, v in leaf.items()} if ema else {f"{key}.{inner}": leaf}
        elif key not in ("type", "datasets"):
            flat[f"process.{key}"] = value
    known = {name: key for name, key in keys().items() if not name.startswith("dataset.")}
    given = take(known, flat, ledger)
    found = Job(given, ledger)
    found.read(job.get("datasets"))
    return ledger.close()
