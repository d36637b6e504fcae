"""One zip of a LoRA with all that belongs to it, and the same list of files for publishing. No torch.

The same LoRA gives the same bytes: entries in order, without times, stored (its large parts do not compress).
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from trainpilot.errors import PilotError
from trainpilot.formats.account import lora_line
from trainpilot.formats.comfyui import canvas, workflow
from trainpilot.formats.hashes import sha256
from trainpilot.formats.model_card import STRENGTH, model_card
from trainpilot.formats.release import Release
from trainpilot.runs.atomic import sync_folder

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """One file of a package: its name inside, and its bytes or where they lie."""

    name: str
    source: Path | bytes

    @property
    def size(self) -> int:
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest() if isinstance(self.source, bytes) else sha256(self.source)

    def blocks(self) -> Iterator[bytes]:
        if isinstance(self.source, bytes):
            yield self.source
            return
        with self.source.open("rb") as file:
            while block := file.read(_BLOCK):
                yield block


def contents(release: Release, repo: str = "") -> list[Content]:
    """Everything that is packed or published, in order. repo: owner/name, for the card."""
    found = [
        Content("README.md", model_card(release, repo).encode()),
        Content(release.file.name, release.file),
        *(Content(path.name, path) for path in release.others),
        *(Content(f"samples/{sample.path.name}", sample.path) for sample in release.samples),
    ]
    if release.settings:
        found.append(Content("settings.toml", tomli_w.dumps(release.settings).encode()))
    prompt = release.samples[0].prompt if release.samples else release.trigger
    graph = workflow(release.about.family, release.file.name, release.base_name, prompt, STRENGTH)
    for name, drawn in (("comfyui.json", canvas(graph)), ("comfyui_api.json", graph)):
        found.append(Content(name, (json.dumps(drawn, indent=1) + "\n").encode()))
    facts = {
        "name": release.name,
        "title": release.title,
        "family": release.about.family,
        "trigger": release.trigger,
        "in_a_prompt": lora_line(release.file, STRENGTH),
        "base": {"name": release.base_name, "repo": release.base_repo},
        "licence": release.licence.name if release.licence else "",
        "weights_sha256": release.about.metadata.get("sshs_model_hash", ""),
    }
    found.append(Content("lora.json", (json.dumps(facts, indent=1, ensure_ascii=False) + "\n").encode()))
    listed = "".join(f"{one.sha256()}  {one.name}\n" for one in sorted(found, key=lambda one: one.name))
    return [*found, Content("hashes.txt", listed.encode())]


def package(release: Release, target: Path) -> list[Content]:
    """Write the zip: one folder of the LoRA's name. Raises PilotError where `target` exists."""
    if target.exists():
        raise PilotError(target, "exists already", "a new file", "Name another one with --out, or move this one away.")
    found = contents(release)
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.writing-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for content in found:
                    about = zipfile.ZipInfo(f"{release.name}/{content.name}", _EPOCH)
                    about.create_system, about.external_attr = 3, 0o100644 << 16
                    about.file_size = content.size
                    with archive.open(about, "w", force_zip64=content.size > 1 << 31) as entry:
                        for block in content.blocks():
                            entry.write(block)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(target.parent)
    return found
