"""The torch side of the families, by name. A family is a folder with a card and an adapter; nothing is listed here."""

from __future__ import annotations

import importlib

from trainpilot.families.card import card
from trainpilot.families.protocol import Family


def adapter(name: str) -> Family:
    """The adapter of a family; PilotError names the families there are."""
    family: Family = importlib.import_module(f"trainpilot.families.{card(name).name}.adapter").FAMILY
    return family
