"""The metadata of a file that was computed from others: what still holds of theirs, and where it came from. No torch.

Used by merging, resizing and extracting. `trainpilot_made_from` names the sources with their hashes, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainpilot.families.card import Card
from trainpilot.formats.hashes import base_hashes
from trainpilot.formats.identify import Identified

MADE_FROM = "trainpilot_made_from"
Source = tuple[str, Identified, float]  # file name, what it is, strength

# What says which base a file is for; it holds for a mixture as well.
OF_THE_BASE = (
    *("ss_base_model_version", "ss_v2", "ss_sd_model_name", "ss_sd_model_hash", "ss_new_sd_model_hash"),
    *("modelspec.architecture", "modelspec.implementation", "modelspec.prediction_type", "modelspec.resolution"),
)
# What would say how large the network is in another way than its rank and alpha.
_OF_THE_SIZE = ("ss_network_args",)


def made_from(
    metadata: Mapping[str, str], how: str, detail: str, sources: Sequence[Source], ranks: Sequence[int], alpha: float
) -> dict[str, str]:
    """`metadata` with the new size, and with how the file came about. how: "resized", "merged"."""
    kept = {key: value for key, value in metadata.items() if key not in _OF_THE_SIZE}
    names = " + ".join(f"{name}:{strength:g}" if strength != 1 else name for name, _, strength in sources)
    record = [
        {"file": name, "sshs_model_hash": about.metadata.get("sshs_model_hash", ""), "strength": strength}
        for name, about, strength in sources
    ]
    earlier = kept.get("ss_training_comment", "")
    comment = f"{how} {detail} from {names}".replace("  ", " ")
    return kept | {
        "ss_network_module": _module(sources[0][1].family),
        "ss_network_dim": _rank(ranks),
        "ss_network_alpha": f"{alpha:g}",
        "ss_training_comment": comment if earlier in ("", "None") else f"{earlier}; {comment}",
        MADE_FROM: json.dumps({"how": how, "detail": detail, "files": record}, sort_keys=True),
    }


def of_several(sources: Sequence[Source]) -> tuple[dict[str, str], list[str]]:
    """What several files' metadata say alike of their base, their triggers together, and what they disagree in."""
    kept: dict[str, str] = {}
    notes = []
    for key in OF_THE_BASE:
        said = {about.metadata[key] for _, about, _ in sources if key in about.metadata}
        if len(said) == 1:
            kept[key] = said.pop()
        elif said and key == "ss_new_sd_model_hash":
            names = {about.metadata.get("ss_sd_model_name", "an unnamed one") for _, about, _ in sources}
            notes.append(f"trained on different bases ({', '.join(sorted(names))}): a mixture may disappoint on both")
    triggers = dict.fromkeys(about.trigger for _, about, _ in sources if about.trigger)
    if triggers:
        kept["modelspec.trigger_phrase"] = ", ".join(triggers)
    return kept, notes


def extracted(
    base: Path, changed: Path, card: Card, detail: str, ranks: Sequence[int], alpha: float, name: str
) -> dict[str, str]:
    """The metadata of a LoRA that is the difference of two models. card: of the base's variant."""
    comment = f"extracted at {detail}: {changed.name} less {base.name}"
    return {
        "ss_base_model_version": card.ss_base_model_version,
        "ss_network_module": _module(card.name),
        "ss_network_dim": _rank(ranks),
        "ss_network_alpha": f"{alpha:g}",
        "ss_output_name": name,
        "ss_training_comment": comment,
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": card.modelspec_architecture,
        "modelspec.title": name,
        **base_hashes(base, None),
    }


def _module(family: str) -> str:
    return "networks.lora_flux" if family == "flux" else "networks.lora"


def _rank(ranks: Sequence[int]) -> str:
    # sd-scripts' own resizing writes "Dynamic" where the modules differ, and other tools expect it.
    return str(ranks[0]) if len(ranks) == 1 else "Dynamic"
