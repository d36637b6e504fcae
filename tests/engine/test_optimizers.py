"""Every optimizer finds a minimum, each group has the rate that was asked for, and 8-bit states hold eight bits."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from interruptions import OPTIMIZERS
from torch import Tensor, nn

from trainpilot.config.schema import RunConfig
from trainpilot.engine import optimizers
from trainpilot.engine.adapters import Adapter
from trainpilot.errors import PilotError

COMPONENTS = ("denoiser", "text_encoder", "text_encoder_2")
RATES = {"adamw": 0.05, "adamw8bit": 0.05, "lion": 0.02, "lion8bit": 0.02, "adafactor": 0.05, "prodigy": 1.0}


def config(**sections: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(sections)


def adapter(settings: RunConfig, components: tuple[str, ...] = ("denoiser",), width: int = 16) -> Adapter:
    """LoRA on two linears of each component."""
    models = {
        component: nn.ModuleDict({"to_q": nn.Linear(width, width), "to_v": nn.Linear(width, width)})
        for component in components
    }
    return Adapter.inject(models, {one: ["to_q", "to_v"] for one in models}, settings.network, seed=1)


def distance(parameters: list[nn.Parameter], goals: list[Tensor]) -> Tensor:
    """A bowl: the sum of squares of the way that is left."""
    return torch.stack([(p - goal).square().sum() for p, goal in zip(parameters, goals, strict=True)]).sum()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_reduces_a_quadratic(name: str) -> None:
    torch.manual_seed(0)
    args = {"min_8bit_size": 16} if name.endswith("8bit") else {}
    settings = config(
        optimizer={"name": name, "learning_rate": RATES.get(name, 0.05), "weight_decay": 0.0, "args": args},
        network={"rank": 4, "alpha": 4},
    )
    trained = adapter(settings)
    parameters = trained.parameters()
    goals = [torch.randn_like(p) for p in parameters]
    optimizer = optimizers.build(settings, trained)
    schedule = optimizers.schedule(settings, optimizer, 200)
    first = float(distance(parameters, goals))
    for _ in range(200):
        optimizer.zero_grad()
        distance(parameters, goals).backward()
        optimizer.step()
        schedule.step()
    assert float(distance(parameters, goals)) < 0.1 * first


@pytest.mark.parametrize(("name", "moments"), [("adamw8bit", 2), ("lion8bit", 1)])
@pytest.mark.parametrize("small", [True, False])
def test_states_have_eight_bits_from_the_size_that_is_set(name: str, moments: int, small: bool) -> None:
    """A tensor of 64 numbers is below bitsandbytes' own limit of 4096."""
    args = {"min_8bit_size": 16} if small else {}
    settings = config(optimizer={"name": name, "args": args}, network={"rank": 4, "alpha": 4})
    trained = adapter(settings)
    optimizer = optimizers.build(settings, trained)
    distance(trained.parameters(), [torch.ones_like(p) for p in trained.parameters()]).backward()
    optimizer.step()
    for parameter in trained.parameters():
        state = optimizer.state[parameter]
        held = [state[key] for key in ("state1", "state2") if key in state]
        assert len(held) == moments
        assert {tensor.dtype for tensor in held} == {torch.uint8 if small else torch.float32}


def rates(settings: RunConfig, components: tuple[str, ...] = COMPONENTS) -> list[tuple[str, float, int]]:
    """(component, rate, tensors) of each group of the built optimizer."""
    groups = optimizers.build(settings, adapter(settings, components)).param_groups
    return [(group["component"], group["lr"], len(group["params"])) for group in groups]


def test_text_encoders_have_rates_of_their_own() -> None:
    same = config(optimizer={"learning_rate": 1e-3})
    assert rates(same) == [(component, 1e-3, 4) for component in COMPONENTS]
    first = config(optimizer={"learning_rate": 1e-3}, text_encoder={"learning_rate": 1e-4})
    assert [rate for _, rate, _ in rates(first)] == [1e-3, 1e-4, 1e-4]
    both = config(optimizer={"learning_rate": 1e-3}, text_encoder={"learning_rate": 1e-4, "learning_rate_2": 1e-5})
    assert [rate for _, rate, _ in rates(both)] == [1e-3, 1e-4, 1e-5]
    assert [component for component, _, _ in rates(both, ("denoiser",))] == ["denoiser"]


def test_lora_plus_gives_the_up_weights_more() -> None:
    settings = config(optimizer={"learning_rate": 1e-3, "lora_plus_ratio": 16.0}, network={"rank": 4, "alpha": 4})
    assert rates(settings, ("denoiser",)) == [("denoiser", 1e-3, 2), ("denoiser", 16e-3, 2)]
    trained = adapter(settings)
    up = {id(p) for name, p in trained.named_parameters() if name.endswith("lora_B.weight")}
    slow, fast = optimizers.build(settings, trained).param_groups
    assert {id(p) for p in fast["params"]} == up and not up & {id(p) for p in slow["params"]}


def course(steps: int, **schedule: Any) -> list[float]:
    """The rate of each of `steps` updates, as a share of the configured one."""
    settings = config(optimizer={"learning_rate": 2.0}, schedule=schedule)
    optimizer = optimizers.build(settings, adapter(settings))
    found, planned = [], optimizers.schedule(settings, optimizer, steps)
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / 2.0)
        optimizer.step()
        planned.step()
    return found


def test_the_course_of_the_rates() -> None:
    assert course(4, name="constant") == [1, 1, 1, 1]
    assert course(5, name="constant_with_warmup", warmup_steps=4) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert course(8, name="constant_with_warmup", warmup_steps=0.5) == course(
        8, name="constant_with_warmup", warmup_steps=4
    )
    assert course(4, name="linear") == pytest.approx([1, 0.75, 0.5, 0.25])
    assert course(4, name="cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * n / 4)) for n in range(4)])
    restarted = course(8, name="cosine_with_restarts", cycles=2)
    assert restarted[4:] == pytest.approx(restarted[:4]) and restarted[0] == 1
    assert course(4, name="polynomial", power=2.0)[2] == pytest.approx(0.25, rel=1e-3)


def test_what_is_asked_of_schedule_free_and_prodigy_is_answered() -> None:
    free = config(optimizer={"name": "adamw_schedulefree"}, schedule={"name": "cosine", "warmup_steps": 0})
    optimizer = optimizers.build(free, adapter(free))
    planned = optimizers.schedule(free, optimizer, 4)
    assert planned.get_last_lr() == [free.optimizer.learning_rate]
    assert "has no effect with Schedule-Free" in optimizers.notes(free)[0]
    timid = config(optimizer={"name": "prodigy", "learning_rate": 1e-4})
    assert "1 is its normal value" in optimizers.notes(timid)[0]
    assert optimizers.notes(config()) == []


def test_arguments_that_cannot_be_are_named() -> None:
    wrong = config(optimizer={"name": "lion", "args": {"nesterov": True}})
    with pytest.raises(PilotError, match=r"arguments of lion.*nesterov"):
        optimizers.build(wrong, adapter(wrong))
    relative = config(optimizer={"name": "adafactor", "args": {"relative_step": True}})
    with pytest.raises(PilotError, match="prodigy for a rate that finds itself"):
        optimizers.build(relative, adapter(relative))
