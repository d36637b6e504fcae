"""What a LoRA file is, from its header alone: family, naming, kind, ranks, modules. Used by the panel, `convert`,
`verify` and the catalogue; without torch, and without reading a weight (an alpha is read where it is needed).
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainpilot.errors import PilotError
from trainpilot.families.card import cards
from trainpilot.models.safetensors_header import Entry, Header, read_header

Naming = Literal["kohya", "peft"]
_KOHYA = re.compile(r"lora_(unet|te|te1|te2|te3)_")
_PEFT = re.compile(r"(unet|transformer|text_encoder|text_encoder_2)\..+\.(lora_[AB]\.weight|hada_\w+|lokr_\w+)")
_WIDTH_OF = {768: "sd15", 1024: "sd15", 2048: "sdxl"}  # width of the text that cross-attention reads
_UNPACK = {"F32": "<f", "F16": "<e", "F64": "<d"}


@dataclass(frozen=True)
class Identified:
    """ranks and alphas: every value that occurs, sorted; alphas may be empty. modules: number by component prefix."""

    path: Path
    family: str
    naming: Naming
    kind: Literal["lora", "dora", "loha", "lokr"]
    ranks: list[int]
    alphas: list[float]
    modules: dict[str, int]
    dtype: str
    size_bytes: int
    title: str
    trigger: str
    metadata: dict[str, str]

    def as_dict(self) -> dict[str, object]:
        return {**self.__dict__, "path": str(self.path)}


def identify(path: Path) -> Identified:
    """Identify a file. Raises PilotError for anything that is no LoRA of a family this installation has."""
    header = read_header(path)
    names = list(header.tensors)
    naming = naming_of(path, names)
    family = family_of(path, header, naming)
    kind = _kind(names)
    modules: dict[str, set[str]] = {}
    for name in names:
        if naming == "kohya":
            modules.setdefault(name.split("_")[1], set()).add(name.partition(".")[0])
        else:
            prefix, _, rest = name.partition(".")
            modules.setdefault(prefix, set()).add(re.sub(r"\.(lora_\w+(\.weight)?|hada_\w+|lokr_\w+|alpha)$", "", rest))
    dtypes = [entry.dtype for name, entry in header.tensors.items() if not name.endswith(".alpha")]
    return Identified(
        path=path,
        family=family,
        naming=naming,
        kind=kind,
        ranks=sorted({rank for name, entry in header.tensors.items() if (rank := _rank(name, entry))}),
        alphas=_alphas(path, header),
        modules={prefix: len(found) for prefix, found in sorted(modules.items())},
        dtype=max(set(dtypes), key=dtypes.count).lower() if dtypes else "",
        size_bytes=path.stat().st_size,
        title=header.metadata.get("modelspec.title") or header.metadata.get("ss_output_name") or path.stem,
        trigger=header.metadata.get("modelspec.trigger_phrase", ""),
        metadata=header.metadata,
    )


def naming_of(path: Path, names: list[str]) -> Naming:
    """The naming by the tensor names; PilotError where it is none of ours."""
    if names and all(_KOHYA.match(name) for name in names):
        return "kohya"
    if any(_PEFT.match(name) for name in names):
        return "peft"
    raise PilotError(
        path,
        f"tensors named {', '.join(sorted(names)[:3]) or '(none)'}",
        "Kohya names (lora_unet_...) or PEFT names (unet...., transformer....)",
        "It is no LoRA file, or one in a naming that is not read here.",
    )


def _kind(names: list[str]) -> Literal["lora", "dora", "loha", "lokr"]:
    if any(".hada_" in name for name in names):
        return "loha"
    if any(".lokr_" in name for name in names):
        return "lokr"
    return "dora" if any("dora_scale" in name or "lora_magnitude_vector" in name for name in names) else "lora"


def family_of(path: Path, header: Header, naming: Naming) -> str:
    """The family by its names, else by the trainer's metadata, else by the width of cross-attention."""
    names = list(header.tensors)
    if any(
        re.match(r"lora_unet_(double|single)_blocks_|transformer\.(single_)?transformer_blocks\.", n) for n in names
    ):
        return "flux"
    if any(
        re.match(r"lora_unet_(input_blocks|middle_block|output_blocks)_|lora_te2_|text_encoder_2\.", n) for n in names
    ):
        return "sdxl"
    said = header.metadata.get("ss_base_model_version", "") + " " + header.metadata.get("modelspec.architecture", "")
    for name, card in cards().items():
        versions = [card.variant(variant) for variant in (None, *card.variants)]
        if any(v.ss_base_model_version in said.split() or v.modelspec_architecture in said.split() for v in versions):
            return name
    for name, entry in header.tensors.items():
        if re.search(r"attn2[._]to_k[._](lora_down|lora_A)", name) and len(entry.shape) == 2:
            found = _WIDTH_OF.get(entry.shape[1])
            if found:
                return found
    if naming == "kohya" and any(name.startswith("lora_te_") for name in names):
        return "sd15"
    raise PilotError(
        path,
        "names of a Stable Diffusion U-Net, but neither metadata nor widths that tell which",
        "a file with ss_base_model_version, or with cross-attention of a known width",
        "Name the family with --family.",
    )


def _rank(name: str, entry: Entry) -> int:
    if name.endswith((".lora_down.weight", ".lora_A.weight", ".hada_w1_b", ".lokr_w1_b", ".lokr_w2_b")):
        return entry.shape[0]
    return 0


def _alphas(path: Path, header: Header) -> list[float]:
    wanted = {n: e for n, e in header.tensors.items() if n.endswith(".alpha") and e.elements == 1}
    found: set[float] = set()
    with path.open("rb") as file:
        for entry in wanted.values():
            file.seek(header.data_start + entry.start)
            raw = file.read(entry.end - entry.start)
            if entry.dtype == "BF16":
                found.add(struct.unpack("<f", b"\0\0" + raw)[0])
            elif entry.dtype in _UNPACK:
                found.add(struct.unpack(_UNPACK[entry.dtype], raw)[0])
    try:
        configs = json.loads(header.metadata.get("lora_adapter_metadata") or "{}")
        for key, value in configs.items():
            if key.endswith((".lora_alpha", ".alpha")):
                found.add(float(value))
            elif key.endswith(".alpha_pattern"):
                found.update(float(v) for v in value.values())
    except (ValueError, TypeError, AttributeError) as error:
        raise PilotError(path, f"lora_adapter_metadata: {error}", "JSON", "Export the file again.") from error
    return sorted(float(f"{value:.6g}") for value in found)
