"""Several LoRA files as one: the weighted sum, exact by joining ranks or reduced by SVD. Used by `trainpilot merge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainpilot.errors import PilotError
from trainpilot.formats import load, lowrank
from trainpilot.formats.derived import (
    Derived,
    Exact,
    apart,
    common_alpha,
    free,
    matrices,
    only_lora,
    save_format,
    write,
)
from trainpilot.formats.identify import Naming, identify
from trainpilot.formats.lowrank import Limit, Product
from trainpilot.formats.rewording import made_from, of_several
from trainpilot.formats.state import AdapterState

_REMEDY = "Its effect depends on the base's weights or is no thin product: merge it into its base instead (--base)."


def combine(
    sources: Sequence[tuple[Path, float]],
    target: Path,
    limit: Limit | None = None,
    dtype: str = "",
    naming: Naming | None = None,
    family: str | None = None,
) -> Derived:
    """Write the sum of (file, strength) to `target`.

    Without a limit the ranks are joined, which is exact but for the rounding of the saved format; with one, each
    module's sum is reduced by SVD. dtype: empty keeps the files', or takes fp32 where they differ. Raises PilotError
    for files of different families, for DoRA, LoHa and LoKr, and where `target` exists.
    """
    free(target)
    if len(sources) < 2:
        raise PilotError("files", f"{len(sources)}", "two or more", "Name the files to merge, FILE or FILE:STRENGTH.")
    found = [(path.name, identify(path), strength) for path, strength in sources]
    contents = [load.read(path, family) for path, _ in sources]
    families = sorted({content.family for content in contents})
    if len(families) > 1:
        raise PilotError("files", " and ".join(families), "files of one family", "LoRAs of one family can be added.")
    own = families[0]
    for (path, _), content in zip(sources, contents, strict=True):
        only_lora(path, content.state, _REMEDY)
    exact, wholes = _sums(own, contents, [strength for _, strength in sources])
    if limit is not None:
        wholes = {c: {m: lowrank.truncated(p, limit) for m, p in products.items()} for c, products in wholes.items()}
    alpha = common_alpha(wholes)
    state: AdapterState = {component: {} for component in wholes}
    for component, products in wholes.items():
        for modules, product in products.items():
            state[component] |= apart(own, component, modules, lowrank.weights_of(product, alpha))
    kept, notes = of_several(found)
    ranks = sorted({product.rank for products in wholes.values() for product in products.values()})
    metadata = made_from(kept, "merged", f"at {limit.text()}" if limit else "exactly", found, ranks, alpha)
    metadata |= {"ss_output_name": target.stem, "modelspec.title": target.stem, "modelspec.sai_model_spec": "1.0.1"}
    chosen = save_format(dtype, [about for _, about, _ in found])
    return write(target, naming or found[0][1].naming, own, exact, state, metadata, chosen, notes)


def _sums(
    family: str, contents: Sequence[load.LoraFile], strengths: Sequence[float]
) -> tuple[Exact, dict[str, dict[tuple[str, ...], Product]]]:
    """The sums by module, and by matrix where all files that adapt it agree on what a matrix is."""
    exact: Exact = {}
    wholes: dict[str, dict[tuple[str, ...], Product]] = {}
    parted = [matrices(family, content.state) for content in contents]
    for component in dict.fromkeys(component for content in contents for component in content.state):
        terms: dict[str, list[tuple[Product, float]]] = {}
        for content, strength in zip(contents, strengths, strict=True):
            for module, weights in content.state.get(component, {}).items():
                terms.setdefault(module, []).append((lowrank.product(weights), strength))
        exact[component] = {module: lowrank.total(found) for module, found in terms.items()}
        joint: dict[tuple[str, ...], list[tuple[Product, float]]] = {}
        for parts, strength in zip(parted, strengths, strict=True):
            for modules, weights in parts.get(component, {}).items():
                joint.setdefault(modules, []).append((lowrank.product(weights), strength))
        fused = [modules for modules in joint if len(modules) > 1 and not any((m,) in joint for m in modules)]
        inside = {module for modules in fused for module in modules}
        wholes[component] = {modules: lowrank.total(joint[modules]) for modules in fused}
        wholes[component] |= {(m,): p for m, p in exact[component].items() if m not in inside}
    return exact, wholes
