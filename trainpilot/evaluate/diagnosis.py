"""What is wrong with a checkpoint, in the guides' words: undertrained, overtrained, artefacts; and what helps.

Used by evaluations. Every finding rests on a paired difference whose interval leaves out zero, and says its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trainpilot.evaluate.choosing import Cell, Choice
from trainpilot.evaluate.interval import difference

State = Literal["undertrained", "fits", "overtrained"]
LESS_ALIKE, LESS_FLEXIBLE = 0.15, 0.1  # smaller differences are no diagnosis, however sure
# From where an artefact sign is one: the lower end of its interval.
ARTEFACTS = {"saturation": 3.0, "noise": 2.0, "colour_shift": 15.0}
_ARTEFACT_WORDS = {"saturation": "odd colours (burnt)", "noise": "noise", "colour_shift": "odd colours (a tint)"}

FIXES: Mapping[str, str] = {
    "undertrained": "More epochs, a higher learning rate, captions that say what is not the subject, a better dataset.",
    "overtrained": "Fewer epochs (an earlier checkpoint), a lower learning rate, more varied captions, more pictures.",
    "artefacts": "Clean the dataset, lower noise.offset, lower the learning rate, or set loss.min_snr_gamma to 5.",
}


@dataclass(frozen=True)
class Diagnosis:
    """Of one checkpoint at the reference strength. signs: the symptoms found, with numbers; fixes: what helps."""

    checkpoint: str
    step: int | None
    state: State
    signs: list[str]
    artefacts: list[str]
    fixes: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diagnose(cells: Sequence[Cell], choice: Choice, copies: Mapping[str, int]) -> list[Diagnosis]:
    """One for each of `cells` (checkpoints at one strength, by step), against the recommended checkpoint there.

    copies: pictures of a checkpoint that are copies of training pictures.
    """
    chosen = next((cell for cell in cells if cell.checkpoint == choice.best.cell.checkpoint), None)
    return [_one(cell, chosen, choice, copies) for cell in cells]


def _one(cell: Cell, chosen: Cell | None, choice: Choice, copies: Mapping[str, int]) -> Diagnosis:
    signs: list[str] = []
    state: State = "fits"
    alike = choice.likeness_by
    if choice.verdict == "nothing learned":
        state, signs = "undertrained", [f"weak effect: likeness {cell.mean(alike):.2f}"]
    elif chosen is not None and cell is not chosen and cell.step is not None and chosen.step is not None:
        less_alike = difference(chosen.readings[alike], cell.readings[alike])
        less_flexible = difference(chosen.readings["flexibility"], cell.readings["flexibility"])
        if cell.step < chosen.step and less_alike and less_alike.low > 0 and less_alike.mean > LESS_ALIKE:
            state = "undertrained"
            signs.append(
                f"weak effect: likeness {cell.mean(alike):.2f}, "
                f"{less_alike.mean:.2f} ± {less_alike.half:.2f} less than {chosen.checkpoint}"
            )
        if cell.step > chosen.step and less_flexible and less_flexible.low > 0 and less_flexible.mean > LESS_FLEXIBLE:
            state = "overtrained"
            signs.append(
                f"flexibility lost: {100 * cell.mean('flexibility'):.0f}% of the base's, "
                f"{100 * less_flexible.mean:.0f} ± {100 * less_flexible.half:.0f} points less than {chosen.checkpoint}"
            )
        more_copies = copies.get(cell.checkpoint, 0) - copies.get(chosen.checkpoint, 0)
        if cell.step > chosen.step and more_copies > 0:
            state = "overtrained"
            signs.append(
                f"exact copies: {copies[cell.checkpoint]} pictures, {more_copies} more than {chosen.checkpoint}"
            )
    elif copies.get(cell.checkpoint, 0):
        signs.append(f"{copies[cell.checkpoint]} pictures are near copies of training pictures: look at the pairs")
    artefacts = [
        f"{_ARTEFACT_WORDS[name]}: {found.mean:.1f} ± {found.half:.1f}"
        for name, limit in ARTEFACTS.items()
        if (found := cell.estimate(name)) is not None and found.low > limit
    ]
    named = [state, *(["artefacts"] if artefacts else [])]
    return Diagnosis(cell.checkpoint, cell.step, state, signs, artefacts, [FIXES[one] for one in named if one in FIXES])
