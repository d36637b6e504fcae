"""sd-scripts' arguments as data: their tables, what a file or command line gives, and what it leaves to defaults.

`Arguments` is what every sd-scripts-like source becomes before it is read: training file, command line, Kohya's form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from trainpilot.dialects._account import Ledger
from trainpilot.dialects._keys import Key, assume, book, table
from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent
# Script -> family. Those of families that are not installed are refused by name.
SCRIPTS = {
    "train_network.py": "sd15",
    "sdxl_train_network.py": "sdxl",
    "flux_train_network.py": "flux",
    "sd3_train_network.py": "sd3",
    "lumina_train_network.py": "lumina2",
    "hunyuan_image_train_network.py": "hunyuan_image",
    "anima_train_network.py": "anima",
}
FLOW = ("flux", "sd3")


@cache
def subset_keys() -> Mapping[str, Key]:
    """The dataset file's keys, which are arguments of the scripts too."""
    return table(FOLDER / "subsets.toml")


@cache
def network_keys() -> Mapping[str, Key]:
    """The entries of network_args, without that prefix."""
    return table(FOLDER / "network_args.toml")


@cache
def argument_keys() -> Mapping[str, Key]:
    """Every argument of the LoRA scripts, by name."""
    return {**table(FOLDER / "arguments.toml"), **subset_keys()}


@cache
def all_keys() -> Mapping[str, Key]:
    """Every argument, and every entry of network_args under `network_args.NAME`."""
    return {**argument_keys(), **{f"network_args.{name}": key for name, key in network_keys().items()}}


@dataclass
class Arguments:
    """What a source says, by argument.

    given: values of their kinds; absent: what the tool takes for others; names: how the source calls an argument, and
    shown: its value as the source says it, for messages. family: by script or form; None where it does not tell.
    """

    given: dict[str, Any]
    ledger: Ledger
    absent: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    shown: dict[str, Any] = field(default_factory=dict)
    family: str | None = None
    booked: set[str] = field(default_factory=set)

    def __contains__(self, argument: str) -> bool:
        return argument in self.given

    def value(self, argument: str) -> Any:
        """What the tool works with: the given value, else its default."""
        if argument in self.given:
            return self.given[argument]
        if argument in self.absent:
            return self.absent[argument]
        key = all_keys().get(argument)
        return key.default if key else None

    def name(self, argument: str) -> str:
        return self.names.get(argument, argument)

    def settle(self, argument: str, became: Mapping[str, Any], how: str = "") -> None:
        """Book an argument: mapped, or approximated where `how` says so; assumed where the source has none.

        What was booked before stays as it is, here and below.
        """
        if argument in self.booked:
            return
        self.booked.add(argument)
        name, value = self.name(argument), self.shown.get(argument, self.value(argument))
        if argument in self.given:
            if how:
                self.ledger.approximated(name, value, how, became)
            else:
                self.ledger.mapped(name, value, became)
        elif became:
            self.ledger.assumed(name, value, became, how)

    def idle(self, argument: str, why: str) -> None:
        """Book a given argument that does nothing."""
        if argument in self.given and argument not in self.booked:
            self.ledger.idle(self.name(argument), self.given[argument], why)
        self.booked.add(argument)

    def refuse(self, argument: str, why: str) -> None:
        """Book a given argument that asks for something there is not."""
        if argument in self.given and argument not in self.booked:
            self.ledger.refused(self.name(argument), self.given[argument], why)
        self.booked.add(argument)

    def wrong(self, argument: str, allowed: str, remedy: str = "Correct it.") -> None:
        """A value that cannot be meant."""
        self.booked.add(argument)
        self.ledger.wrong(self.name(argument), self.value(argument), allowed, remedy)

    def plain(self, argument: str) -> None:
        """Book an argument as its table line says."""
        if argument in self.booked:
            return
        self.booked.add(argument)
        key = all_keys()[argument]
        if argument in self.given:
            book(key, self.given[argument], self.ledger, self.name(argument))
        else:
            renamed = Key(**{**key.__dict__, "name": self.name(argument)})
            assume(renamed, self.ledger, self.absent.get(argument))

    def rest(self) -> None:
        """Book what no group has booked: the table decides."""
        for argument, key in all_keys().items():
            if argument in self.booked:
                continue
            if argument in self.given or (not key.by and not key.argument):
                self.plain(argument)


def family_named(family: str, where: str) -> str:
    """The family itself; PilotError where this installation has none of that name."""
    from trainpilot.families.card import cards

    if family not in cards():
        known = ", ".join(f"{name} ({card.label})" for name, card in cards().items())
        raise PilotError(where, f"a configuration for {family}", known, "Train one of these families.")
    return family


def split_pairs(argument: str, items: Sequence[Any], ledger: Ledger) -> dict[str, str]:
    """["conv_dim=16", ...] -> {"conv_dim": "16"}; anything without = is booked as wrong."""
    found: dict[str, str] = {}
    for item in items:
        name, equals, value = str(item).strip("\"'").partition("=")
        if equals and name:
            found[name.strip()] = value.strip().strip("\"'")
        else:
            ledger.wrong(argument, item, "entries such as conv_dim=16")
    return found
