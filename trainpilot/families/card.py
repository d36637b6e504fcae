"""What is known about a model family without torch: its card. Used by plan, config, models, formats and the panel.

A family is a folder with a `card.toml`; a folder scan finds it. `shapes.json` beside it holds the module shapes of
the full-size model (made by `python -m trainpilot.families.shapes`), `shapes-<variant>.json` those of a variant.
"""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent
Shapes = dict[str, dict[str, list[int]]]  # component -> module -> [out, in] or [out, in, k, k]


@dataclass(frozen=True)
class Card:
    """One family.

    bases: repo, label, licence, gated, variant. resolution, step: px. targets: preset -> patterns for `select`.
    no_effect: dotted setting -> reason. variants: name -> fields of this card that differ there.
    """

    name: str
    label: str
    bases: list[dict[str, Any]]
    resolution: int
    step: int
    latent_factor: int
    latent_channels: int
    latent_shift: float
    latent_scale: float
    prediction: str
    sampler: str
    guidance: float
    embedded_guidance: float
    defaults: dict[str, Any]
    targets: dict[str, list[str]]
    text_targets: list[str]
    no_effect: dict[str, str]
    supports: dict[str, bool]
    text_encoders: list[dict[str, Any]]
    ss_base_model_version: str
    modelspec_architecture: str
    variants: dict[str, dict[str, Any]]

    @property
    def components(self) -> tuple[str, ...]:
        """ "denoiser", "text_encoder", "text_encoder_2" ... as the adapter and the files name them."""
        return ("denoiser", *(e["component"] for e in self.text_encoders))

    def variant(self, name: str | None) -> Card:
        """The card of a variant ("2", "schnell"); a variant that differs in nothing is the card itself.

        `no_effect` of the variant is added to the family's; every other field replaces it.
        """
        changes = dict(self.variants.get(name or "", {}))
        if not changes:
            return self
        changes["no_effect"] = self.no_effect | changes.get("no_effect", {})
        return Card(**{f.name: changes.get(f.name, getattr(self, f.name)) for f in fields(self)})

    def shapes(self, variant: str | None = None) -> Shapes:
        """Linear and convolution weights of the full-size model, by component and module name."""
        return _shape_file(self.name, variant)["modules"]

    def parameters(self, variant: str | None = None) -> dict[str, int]:
        """All parameters of the full-size model by component ("denoiser", "vae", "text_encoder" ...)."""
        return _shape_file(self.name, variant)["parameters"]

    def patterns(self, targets: str | list[str]) -> list[str]:
        """The module patterns of `network.targets`: a preset's name, or patterns as they are."""
        if not isinstance(targets, str):
            return list(targets)
        if targets not in self.targets:
            raise PilotError(
                "network.targets",
                targets,
                f"{', '.join(self.targets)}, or a list of module name endings",
                f"Choose a preset of {self.label}.",
            )
        return self.targets[targets]


def select(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Names that match a pattern, in order.

    A pattern without * is an ending at a dot ("to_q", "net.0.proj"); one with * is compared with the whole name.
    """
    wanted = list(patterns)
    return [name for name in names if any(_matches(name, pattern) for pattern in wanted)]


def _matches(name: str, pattern: str) -> bool:
    if "*" in pattern:
        return fnmatch.fnmatchcase(name, pattern)
    return name == pattern or name.endswith("." + pattern)


@lru_cache(maxsize=1)
def cards() -> Mapping[str, Card]:
    """Every family of this installation, by name."""
    return {path.parent.name: _read(path) for path in sorted(FOLDER.glob("*/card.toml"))}


def card(name: str) -> Card:
    """The card of a family; PilotError names the families there are."""
    if name not in cards():
        raise PilotError("model.family", name, ", ".join(cards()), "Choose one of these, or auto.")
    return cards()[name]


def _read(path: Path) -> Card:
    given = tomllib.loads(path.read_text(encoding="utf-8"))
    names = {f.name for f in fields(Card)}
    wrong = sorted((given.keys() ^ (names - {"name", "variants"})) - {"variants"})
    if wrong:
        raise PilotError(path, f"missing or unknown: {', '.join(wrong)}", ", ".join(sorted(names)), "Mend the card.")
    return Card(name=path.parent.name, variants=given.pop("variants", {}), **given)


@lru_cache(maxsize=16)
def _shape_file(family: str, variant: str | None) -> dict[str, Any]:
    own = FOLDER / family / f"shapes-{variant}.json"
    path = own if variant and own.is_file() else FOLDER / family / "shapes.json"
    if not path.is_file():
        raise PilotError(path, "missing", "a file of module shapes", "Run python -m trainpilot.families.shapes.")
    return json.loads(path.read_text(encoding="utf-8"))
