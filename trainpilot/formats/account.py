"""What a LoRA file tells of itself, in a person's words: for `trainpilot metadata`, the model card and the panel.

No torch. Everything comes from the file's header, which anybody can have written: it is shown, never believed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainpilot.families.card import cards
from trainpilot.formats.identify import Identified

Row = tuple[str, str]
_MOST_TAGS = 20
_ABSENT = ("", "None")


def account(about: Identified) -> list[Row]:
    """(what, in words) for a person, in a fixed order; what the file does not tell is left out."""
    said = about.metadata
    rows = [
        ("what", what(about)),
        ("title", said.get("modelspec.title", "")),
        ("author", said.get("modelspec.author", "")),
        ("licence", said.get("modelspec.license", "")),
        ("description", said.get("modelspec.description", "")),
        ("trigger", about.trigger),
        ("trained on", base(said)),
        ("length", length(said)),
        ("rates", rates(said)),
        ("pictures", pictures(said)),
        ("most used tags", ", ".join(f"{tag} ({count})" for tag, count in tags(said)[:_MOST_TAGS])),
        ("comment", _known(said, "ss_training_comment")),
        ("made from", _sources(said)),
        ("date", said.get("modelspec.date", "").replace("T", " ")),
    ]
    return [(name, text) for name, text in rows if text not in _ABSENT]


def what(about: Identified) -> str:
    """Family, kind, size and format in one line."""
    label = cards()[about.family].label if about.family in cards() else about.family
    ranks = f"rank {_spread(about.ranks)}, " if about.ranks else ""
    alphas = f"alpha {_spread(about.alphas)}, " if about.alphas else ""
    modules = ", ".join(f"{count} in {component}" for component, count in about.modules.items())
    kind = {"lora": "LoRA", "dora": "DoRA", "loha": "LoHa", "lokr": "LoKr"}[about.kind]
    size = f"{about.size_bytes / 1e6:.1f} MB"
    return f"{kind} for {label}; {ranks}{alphas}{about.dtype}, {size}; {about.naming} naming; modules: {modules}"


def _spread(values: list[int] | list[float]) -> str:
    return f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"


def base(said: Mapping[str, str]) -> str:
    """The base model's name and hash, as far as the file tells."""
    name, version = _known(said, "ss_sd_model_name"), _known(said, "ss_base_model_version")
    short = _known(said, "ss_new_sd_model_hash")[:10]
    parts = [name, f"({version})" if version else "", f"hash {short}" if short else ""]
    return " ".join(part for part in parts if part)


def length(said: Mapping[str, str]) -> str:
    """Steps, epochs, batch size, resolution and how long it took."""
    found = [
        f"{said['ss_steps']} steps" if _known(said, "ss_steps") else "",
        f"{said['ss_epoch']} epochs" if _known(said, "ss_epoch") else "",
        f"batches of {said['ss_total_batch_size']}" if _known(said, "ss_total_batch_size") else "",
        f"at {said['ss_resolution']} px" if _known(said, "ss_resolution") else "",
        _duration(said),
    ]
    return ", ".join(part for part in found if part)


def _duration(said: Mapping[str, str]) -> str:
    try:
        seconds = float(said["ss_training_finished_at"]) - float(said["ss_training_started_at"])
    except (KeyError, ValueError):
        return ""
    if not 0 <= seconds < 1e8:
        return ""
    return f"{seconds / 3600:.1f} hours" if seconds >= 5400 else f"{seconds / 60:.1f} minutes"


def rates(said: Mapping[str, str]) -> str:
    """Optimizer, learning rates, schedule and seed."""
    found = [
        _known(said, "ss_optimizer").partition("(")[0].rpartition(".")[2],
        f"learning rate {said['ss_learning_rate']}" if _known(said, "ss_learning_rate") else "",
        f"text encoder {said['ss_text_encoder_lr']}" if _known(said, "ss_text_encoder_lr") else "",
        _known(said, "ss_lr_scheduler"),
        f"seed {said['ss_seed']}" if _known(said, "ss_seed") else "",
    ]
    return ", ".join(part for part in found if part)


def pictures(said: Mapping[str, str]) -> str:
    """How many pictures from which folders; names of folders, never of files."""
    folders = _json(said, "ss_dataset_dirs")
    told = [
        f"{entry.get('img_count')} in {name}"
        + (f", {entry['n_repeats']} times" if entry.get("n_repeats", 1) != 1 else "")
        for name, entry in folders.items()
        if isinstance(entry, dict)
    ]
    return "; ".join(told)


def tags(said: Mapping[str, str]) -> list[tuple[str, int]]:
    """The tags of the captions with their counts over all folders, most frequent first."""
    counts: Counter[str] = Counter()
    for folder in _json(said, "ss_tag_frequency").values():
        if isinstance(folder, dict):
            counts.update({str(tag): count for tag, count in folder.items() if isinstance(count, int)})
    return counts.most_common()


def _sources(said: Mapping[str, str]) -> str:
    record = _json(said, "trainpilot_made_from")
    files = record.get("files")
    if not isinstance(files, list):
        return ""
    told = [f"{one.get('file')} at {one.get('strength')}" for one in files if isinstance(one, dict)]
    return f"{record.get('how')} {record.get('detail')}: {', '.join(told)}"


def _known(said: Mapping[str, str], key: str) -> str:
    value = said.get(key, "")
    return "" if value in _ABSENT else value


def _json(said: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(said.get(key) or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def lora_line(file: Path, strength: float = 0.8) -> str:
    """What A1111, Forge and the guides write into a prompt to use the file: `<lora:name:0.8>`."""
    return f"<lora:{file.name.removesuffix('.safetensors')}:{strength:g}>"
