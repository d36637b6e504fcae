"""What is trained: which modules, at which rank, with how many numbers, and that nothing has changed before the start.

Counts are written here from the definitions of each kind, and compared with the layers that peft made and with what the
plan expects.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt
from typing import Any

import pytest
import torch
from miniatures import FAMILIES, load
from torch import Tensor, nn

from trainpilot.config.schema import Network, RunConfig
from trainpilot.engine.adapters import Adapter, shapes_of
from trainpilot.errors import PilotError
from trainpilot.families.card import card, select
from trainpilot.plan.network import adapted

KINDS = ("lora", "dora", "loha", "lokr")
RANK = 3


class Small(nn.Module):
    """A linear that grows, a square one, a 3x3 and a 1x1 convolution, and the two that touch the latents."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv_in = nn.Conv2d(4, 8, 3, padding=1)
        self.conv = nn.Conv2d(8, 12, 3, padding=1)
        self.proj = nn.Conv2d(12, 8, 1)
        self.to_q = nn.Linear(8, 8)
        self.ff = nn.Linear(8, 20)
        self.conv_out = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.proj(self.conv(self.conv_in(x)))
        return self.ff(self.to_q(hidden.flatten(2).mean(-1)))


ALL = ["proj", "to_q", "ff"]


def network(**given: Any) -> Network:
    return Network.model_validate({"rank": RANK, "alpha": 6.0} | given)


def injected(settings: Network, patterns: list[str] | None = None) -> tuple[Small, Adapter]:
    model = Small()
    return model, Adapter.inject({"denoiser": model}, {"denoiser": patterns or ALL}, settings, seed=3)


def counts(adapter: Adapter) -> dict[str, int]:
    """Trained numbers by module."""
    found: dict[str, int] = {}
    for name, parameter in adapter.named_parameters():
        _, module, _ = name.split(":")
        found[module] = found.get(module, 0) + parameter.numel()
    return found


def _lora(out: int, inner: int, area: int, rank: int) -> int:
    return rank * inner * area + out * rank  # A reads, B writes


def _dora(out: int, inner: int, area: int, rank: int) -> int:
    return _lora(out, inner, area, rank) + out  # and a magnitude for each output


def _loha(out: int, inner: int, area: int, rank: int) -> int:
    return 2 * _lora(out, inner, area, rank)  # the Hadamard product of two


def _lokr(out: int, inner: int, area: int, rank: int) -> int:
    """A Kronecker product of a small matrix and a large one, which is a product of rank r where that is smaller."""
    (a, b), (c, d) = ((low, n // low) for n in (out, inner) for low in [_root(n)])
    large = b * rank + rank * d * area if rank < max(b, d) / 2 else b * d * area
    return a * c + large


def _root(number: int) -> int:
    return next(factor for factor in range(isqrt(number), 0, -1) if number % factor == 0)


FORMULAS: dict[str, Callable[[int, int, int, int], int]] = {"lora": _lora, "dora": _dora, "loha": _loha, "lokr": _lokr}


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_each_kind(kind: str) -> None:
    _, adapter = injected(network(type=kind, conv_rank=2))
    formula = FORMULAS[kind]
    assert counts(adapter) == {
        "conv": formula(12, 8, 9, 2),
        "proj": formula(8, 12, 1, RANK),
        "to_q": formula(8, 8, 1, RANK),
        "ff": formula(20, 8, 1, RANK),
    }
    assert all(p.dtype == torch.float32 and p.requires_grad for p in adapter.parameters())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_plan_counts_what_is_trained(family: str, kind: str) -> None:
    """On the miniature's own shapes, text encoders included."""
    config = RunConfig.model_validate(
        {"network": {"type": kind, "rank": 4, "alpha": 4, "conv_rank": 2}, "text_encoder": {"train": True}}
    )
    about, parts = card(family), load(family)
    models: dict[str, nn.Module] = {"denoiser": parts.denoiser}  # type: ignore[dict-item]
    trainable = {e["component"] for e in about.text_encoders if e["trainable"]}
    components = [c for c in about.components if c.startswith("text_encoder")]
    models |= {c: e for c, e in zip(components, parts.text_encoders, strict=True) if c in trainable}
    patterns = {c: about.patterns("default") if c == "denoiser" else about.text_targets for c in models}
    shapes = {component: shapes_of(model) for component, model in models.items()}
    expected = {(one.component, one.name): one.parameters for one in adapted(config, about, shapes)}
    adapter = Adapter.inject(models, patterns, config.network, seed=1)
    found = {(c, n): count for c in models for n, count in counts(_only(adapter, c)).items()}
    assert found == expected and {component for component, _ in found} == set(models)


def _only(adapter: Adapter, component: str) -> Adapter:
    return Adapter({component: adapter.models[component]}, adapter.type)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_preset_covers_what_the_card_names(family: str) -> None:
    about = card(family)
    for preset in about.targets:
        model = load(family).denoiser
        assert model is not None
        shapes = shapes_of(model)
        patterns = about.patterns(preset)
        linears = [name for name, shape in shapes.items() if len(shape) == 2 or shape[2] == 1]
        adapter = Adapter.inject({"denoiser": model}, {"denoiser": patterns}, network(), seed=1)
        assert set(counts(adapter)) == set(select(linears, patterns)), preset


def test_targets_by_name_and_ranks_by_block() -> None:
    _, adapter = injected(network(block_ranks={"^ff$": 5, "^to_": 0}))
    assert counts(adapter) == {"proj": _lora(8, 12, 1, RANK), "ff": _lora(20, 8, 1, 5)}
    weights = adapter.collect()["denoiser"]
    assert {name: (one.rank, one.alpha) for name, one in weights.items()} == {"proj": (3, 6.0), "ff": (5, 10.0)}
    with pytest.raises(PilotError, match=r"network\.targets.*to_nothing"):
        injected(network(), ["to_nothing"])


def test_convolutions_have_a_rank_and_an_alpha_of_their_own() -> None:
    assert "conv" not in counts(injected(network())[1])
    _, adapter = injected(network(conv_rank=2, conv_alpha=1.0))
    conv = adapter.collect()["denoiser"]["conv"]
    assert (conv.rank, conv.alpha) == (2, 1.0)
    assert not {"conv_in", "conv_out"} & set(counts(adapter))


def test_rslora_divides_by_the_root() -> None:
    _, adapter = injected(network(rslora=True, rank=4, alpha=8))
    assert adapter.collect()["denoiser"]["to_q"].alpha == pytest.approx(8 / 2 * 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_fresh_adapter_changes_nothing_and_a_trained_one_can_be_switched_and_scaled(kind: str) -> None:
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        base = Small()(x)
        model, adapter = injected(network(type=kind, conv_rank=2))
        torch.testing.assert_close(model(x), base, rtol=1e-5, atol=1e-6)
        for number, parameter in enumerate(adapter.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)), alpha=0.1)
        full = model(x)
        assert float((full - base).abs().max()) > 1e-3
        with adapter.disabled():
            torch.testing.assert_close(model(x), base, rtol=1e-5, atol=1e-6)
        if kind != "dora":  # whose magnitudes no strength scales away
            with adapter.strength(0.0):
                torch.testing.assert_close(model(x), base, rtol=1e-5, atol=1e-6)
        with adapter.strength(0.5):
            half = model(x)
        assert float((half - base).abs().max()) > 0 and not torch.equal(half, full)
        assert torch.equal(model(x), full)


def test_initial_weights_are_a_function_of_the_seed_alone() -> None:
    found = []
    for elsewhere in (1, 2):
        model = Small()
        torch.manual_seed(elsewhere)
        before = torch.get_rng_state()
        found.append(Adapter.inject({"denoiser": model}, {"denoiser": ALL}, network(), seed=3).tensors())
        assert torch.equal(before, torch.get_rng_state())
    one, other = found
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    changed = Adapter.inject({"denoiser": Small()}, {"denoiser": ALL}, network(), seed=4).tensors()
    assert any(not torch.equal(one[name], changed[name]) for name in one)


def test_norms_above_the_limit_are_cut_to_it_and_others_are_left() -> None:
    _, adapter = injected(network(conv_rank=2))
    for number, parameter in enumerate(adapter.parameters()):
        parameter.data.normal_(0, 0.2 + number / 5, generator=torch.Generator().manual_seed(number))
    before = norms(adapter)
    limit = sorted(before.values())[1] * 1.01
    adapter.limit_norms(limit)
    for name, norm in norms(adapter).items():
        assert norm == pytest.approx(min(before[name], limit), rel=1e-4)
    assert sum(norm > limit for norm in before.values()) == 2


def norms(adapter: Adapter) -> dict[str, float]:
    """|alpha / r B A| of each module, formed in full."""
    found = {}
    for name, weights in adapter.collect()["denoiser"].items():
        down, up = weights.tensors["lora_A.weight"].flatten(1), weights.tensors["lora_B.weight"].flatten(1)
        found[name] = float((up @ down).norm()) * weights.alpha / weights.rank
    return found


def test_a_warm_start_computes_as_the_file_did_whatever_its_alpha() -> None:
    x = torch.randn(2, 4, 6, 6)
    first, adapter = injected(network(alpha=6))
    for parameter in adapter.parameters():
        parameter.data.normal_(0, 0.1)
    second, warm = injected(network(alpha=1.5))
    assert warm.warm_start(adapter.collect(), "given.safetensors") == []
    with torch.no_grad():
        torch.testing.assert_close(second(x), first(x), rtol=1e-5, atol=1e-6)
    _, wider = injected(network(), ["proj", "to_q"])
    assert warm.warm_start(wider.collect(), "given.safetensors") == ["denoiser.ff"]
    _, other = injected(network(rank=5))
    with pytest.raises(PilotError, match=r"lora of rank 3.*Set network\.rank=3"):
        other.warm_start(adapter.collect(), "given.safetensors")
    with pytest.raises(PilotError, match="no module of this run's adapter"):
        other.warm_start({}, "given.safetensors")
