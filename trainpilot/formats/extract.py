"""A LoRA from two models: the difference of their weights, each module by the best approximation of a rank.

Used by `trainpilot extract`: for finetuned models and for models that somebody has merged. Norms, biases and embeddings
are no adapter's and stay behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from trainpilot.errors import PilotError
from trainpilot.families.card import card
from trainpilot.formats import kohya, lowrank, peft
from trainpilot.formats.base_files import Weights
from trainpilot.formats.derived import Derived, ModuleError, free
from trainpilot.formats.identify import Naming, identify
from trainpilot.formats.lowrank import Limit
from trainpilot.formats.rewording import extracted
from trainpilot.formats.state import AdapterState, ModuleWeights
from trainpilot.formats.storage import DTYPES
from trainpilot.models.detect import detect

# Tables that are looked up, not multiplied with: no adapter sits on them.
_EMBEDDING = re.compile(r"embeddings\.|embed_tokens$|^shared$|relative_attention_bias$")


def extract(
    base: Path,
    changed: Path,
    target: Path,
    limit: Limit,
    *,
    dtype: str = "fp16",
    naming: Naming = "kohya",
    check: Callable[[], None] = lambda: None,
    say: Callable[[int, int], None] = lambda done, of: None,
) -> Derived:
    """Write the LoRA that turns `base` into `changed`, as nearly as `limit` allows.

    Both are diffusers folders or single files, also one of each. One module's weights are in memory at a time, beside
    the LoRA. The error told is the Frobenius norm of the true difference less what the saved numbers make. Raises
    PilotError for models of different families or shapes, and for two that are the same.
    """
    free(target)
    if dtype not in DTYPES:
        raise PilotError("--dtype", dtype, ", ".join(DTYPES), "Choose one of these.")
    about, other = detect(base), detect(changed)
    if about.family != other.family:
        raise PilotError(
            changed, f"a {other.family} model", f"a {about.family} model, as {base.name} is", "Check both."
        )
    before, after = Weights(about), Weights(other)
    known = set(after.modules())
    both = [(c, m) for c, m in before.modules() if (c, m) in known and not _EMBEDDING.search(m)]
    # Known before the first module, so that each can be rounded at once and its true error told.
    alpha = float(limit.rank or 1)
    state: AdapterState = {}
    errors: list[ModuleError] = []
    same_but_rounded = 0
    with torch.no_grad():
        for number, (component, module) in enumerate(both):
            check()
            say(number, len(both))
            first, second = before.read(component, module), after.read(component, module)
            if first.shape != second.shape:
                given = f"{list(second.shape)} in {changed.name}"
                raise PilotError(f"{component}.{module}", given, f"{list(first.shape)}", "Take models of one size.")
            change = second.double() - first.double()
            if not bool(change.any()):
                continue
            if first.dtype != second.dtype and _rounding_alone(first, second):
                same_but_rounded += 1
                continue
            own = _rounded(lowrank.weights_of(lowrank.of_dense(change, limit), alpha), DTYPES[dtype])
            state.setdefault(component, {})[module] = own
            error = _distance(change, lowrank.product(own))
            errors.append(ModuleError(f"{component}.{module}", own.rank, float(change.norm()), error))
    if not errors:
        raise PilotError(changed, f"no weight differs from {base.name}", "two different models", "Check the paths.")
    notes = [f"{same_but_rounded} modules differ by the rounding of another number format alone, and were left out"]
    ranks = sorted({weights.rank for modules in state.values() for weights in modules.values()})
    family = card(about.family).variant(about.variant)
    metadata = extracted(base, changed, family, limit.text(), ranks, alpha, target.stem)
    writer = peft.write if naming == "peft" else kohya.write
    notes = notes[: bool(same_but_rounded)] + writer(target, about.family, state, metadata, DTYPES[dtype])
    return Derived(identify(target), errors, notes)


def _rounding_alone(first: Tensor, second: Tensor) -> bool:
    """Whether one weight is the other in the coarser of their two formats."""
    coarse = max(first.dtype, second.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return torch.equal(first.to(coarse), second.to(coarse))


def _rounded(weights: ModuleWeights, dtype: torch.dtype) -> ModuleWeights:
    tensors = {leaf: tensor.to(dtype) for leaf, tensor in weights.tensors.items()}
    return ModuleWeights(weights.type, tensors, weights.rank, weights.alpha)


def _distance(change: Tensor, own: lowrank.Product) -> float:
    return float((change.flatten(1) - own.up @ own.down).norm())
