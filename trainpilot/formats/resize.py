"""A LoRA file of another rank, by SVD of what each module does. Used by `trainpilot resize`."""

from __future__ import annotations

from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.formats import load, lowrank
from trainpilot.formats.derived import Derived, apart, common_alpha, free, matrices, only_lora, save_format, write
from trainpilot.formats.identify import identify
from trainpilot.formats.lowrank import Limit
from trainpilot.formats.rewording import made_from
from trainpilot.formats.state import AdapterState

_REMEDY = "Merge it into its base and extract a LoRA of the rank you want (trainpilot merge --base, then extract)."


def resize(source: Path, target: Path | None, limit: Limit, dtype: str = "", family: str | None = None) -> Derived:
    """Write `source` with each module reduced within `limit` to `target`, beside it by default, in its own naming.

    Each module keeps the best approximation of its change in the Frobenius norm; the error told is that of the file as
    it was saved. dtype: "fp16", "bf16", "fp32"; empty keeps the file's. Raises PilotError for a DoRA, LoHa or LoKr,
    which are no product of two thin matrices, and where `target` exists.
    """
    found = identify(source)
    named = f"r{limit.rank}" if limit.rank is not None else f"e{limit.energy:g}"
    target = target or source.with_name(f"{source.stem}-{named}.safetensors")
    free(target)
    content = load.read(source, family)
    only_lora(source, content.state, _REMEDY)
    whole = matrices(content.family, content.state)
    before = {w.rank for modules in whole.values() for w in modules.values()}
    if limit.energy is None and limit.rank is not None and limit.rank >= max(before):
        given = f"{limit.rank}; the file's modules have rank {', '.join(map(str, sorted(before)))}"
        raise PilotError("--rank", given, f"less than {max(before)}", "A higher rank would hold nothing more.")
    reduced = {
        component: {modules: lowrank.truncated(lowrank.product(w), limit) for modules, w in found_here.items()}
        for component, found_here in whole.items()
    }
    alpha = common_alpha(reduced)
    state: AdapterState = {component: {} for component in reduced}
    for component, products in reduced.items():
        for modules, product in products.items():
            state[component] |= apart(content.family, component, modules, lowrank.weights_of(product, alpha))
    exact = {c: {m: lowrank.product(w) for m, w in modules.items()} for c, modules in content.state.items()}
    ranks = {p.rank for products in reduced.values() for p in products.values()}
    notes = []
    if limit.rank is not None and min(ranks) < limit.rank:
        low = sum(p.rank < limit.rank for products in reduced.values() for p in products.values())
        notes.append(f"{low} matrices need less than rank {limit.rank}: the rest of theirs was nothing")
    metadata = made_from(
        content.metadata, "resized", f"to {limit.text()}", [(source.name, found, 1.0)], sorted(ranks), alpha
    )
    saved = save_format(dtype, [found])
    return write(target, found.naming, content.family, exact, state, metadata, saved, notes)
