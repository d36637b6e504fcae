"""OneTrainer: its training configuration in JSON, alone, with its concepts file, or packed."""

from __future__ import annotations

from collections.abc import Callable

from trainpilot.dialects._account import Ledger, Reading
from trainpilot.dialects._text import from_json
from trainpilot.dialects.onetrainer.names import VERSION, fate, keys
from trainpilot.dialects.onetrainer.reading import Reader
from trainpilot.dialects.onetrainer.writing import write
from trainpilot.errors import PilotError

__all__ = ["LABEL", "NAME", "SUFFIX", "fate", "keys", "read", "sniff", "write"]

NAME = "onetrainer"
LABEL = "OneTrainer configuration (JSON)"
SUFFIX = ".json"


def sniff(text: str) -> float:
    """A JSON object with OneTrainer's names."""
    try:
        tree = from_json(text)
    except PilotError:
        return 0.0
    if not isinstance(tree, dict):
        return 0.0
    telling = ("training_method", "model_type", "base_model_name", "learning_rate_scheduler", "peft_type", "lora_rank")
    found = sum(name in tree for name in telling)
    return min(1.0, 0.3 + found / 4) if found and "LoRA_type" not in tree else 0.0


def read(text: str, nearby: Callable[[str], str | None]) -> Reading:
    """Our settings for a configuration. The concepts file it names is read where it can be had."""
    tree = from_json(text)
    if not isinstance(tree, dict):
        raise PilotError("file", type(tree).__name__, "a JSON object", "Export the configuration again.")
    ledger = Ledger(NAME)
    version = tree.get("__version", VERSION)
    if version != VERSION:
        how = f"keys are read as those of version {VERSION}; open and save the file in OneTrainer to bring it there"
        ledger.approximated("__version", version, how)
    reader = Reader(tree, ledger, nearby)
    reader.read()
    return ledger.close()
