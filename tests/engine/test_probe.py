"""Choosing the device, the number format and the attention kernel, each with its reason."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch.nn.attention import SDPBackend

from trainpilot.engine import attention, probe
from trainpilot.errors import PilotError

CPU = torch.device("cpu")


def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )


def flux() -> FluxTransformer2DModel:
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
    )


@pytest.mark.parametrize(
    ("build", "driver", "bad"),
    [
        ("13.0", "580.65.06", False),
        ("13.0", "579.99", True),
        ("13.2", "610.1", False),
        ("12.8", "570.86.15", False),
        ("12.1", "470.1", True),
        (None, "470.1", False),
        ("13.0", None, False),
    ],
)
def test_a_driver_too_old_for_the_cuda_build_is_named(build: str | None, driver: str | None, bad: bool) -> None:
    problem = probe.driver_problem(build, driver)
    assert (problem is not None) == bad
    if problem:
        assert driver and driver in problem and "\n" not in problem and "update the driver" in problem


@pytest.mark.parametrize(
    ("wanted", "capability", "native", "expected", "word"),
    [
        ("auto", None, False, torch.float32, "CPU"),
        ("auto", (9, 0), True, torch.bfloat16, "needs no loss scaling"),
        ("auto", (8, 0), True, torch.bfloat16, "bf16"),
        ("auto", (7, 5), False, torch.float16, "7.5"),
        ("auto", (6, 1), False, torch.float32, "6.1"),
        ("bf16", None, False, torch.bfloat16, "emulate"),
        ("bf16", (7, 5), False, torch.bfloat16, "emulates"),
        ("fp32", (9, 0), True, torch.float32, "precision.mixed says"),
    ],
)
def test_precision(
    wanted: str, capability: tuple[int, int] | None, native: bool, expected: torch.dtype, word: str
) -> None:
    dtype, reason = probe.pick_precision(wanted, cuda_capability=capability, native_bf16=native)
    assert dtype == expected and word in reason


def test_the_cpu_as_the_environment_says() -> None:
    device = probe.choose_device("auto", {"PILOT_DEVICE": "cpu"})
    assert device.torch_device == CPU and device.dtype == torch.float32 and not device.is_cuda
    assert 0 < device.host_bytes == device.memory_bytes <= psutil.virtual_memory().total
    assert "PILOT_DEVICE" in device.notes[0] and "fp32" in device.notes[-1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")
def test_without_a_gpu_the_reason_is_given() -> None:
    device = probe.choose_device("auto", {})
    assert device.torch_device == CPU
    assert "because" in device.notes[0]


@pytest.mark.parametrize("given", ["gpu", "cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused(given: str) -> None:
    with pytest.raises(PilotError) as caught:
        probe.choose_device("auto", {"PILOT_DEVICE": given})
    assert caught.value.where == "PILOT_DEVICE" and caught.value.given == given and "cpu" in caught.value.allowed


def test_a_containers_limit_counts(tmp_path: Path) -> None:
    assert probe.host_memory_bytes(tmp_path) == psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("max\n")
    assert probe.host_memory_bytes(tmp_path) == psutil.virtual_memory().total
    (tmp_path / "memory.max").write_text("123456789\n")
    assert probe.host_memory_bytes(tmp_path) == 123456789


def test_head_widths_come_from_the_model() -> None:
    # attention_head_dim of a UNet is, for historical reasons, its number of heads: 32 channels / 4 heads.
    assert attention.head_widths(unet()) == [8, 16]
    assert attention.head_widths(flux()) == [16]
    assert attention.head_widths(torch.nn.Linear(2, 2)) == [64]


@pytest.mark.parametrize("wanted", ["native", "sdpa", "flash"])
@pytest.mark.parametrize("model", [unet, flux])
def test_a_kernel_that_passes_its_trial_is_used(wanted: str, model: object) -> None:
    chosen = attention.choose(model(), wanted, CPU, torch.float32)  # type: ignore[operator]
    assert chosen.name == wanted and "memory.attention" in chosen.reason


def test_the_context_really_restricts_the_kernels() -> None:
    native = attention.Chosen("native", "")
    for _ in range(2):  # a context that can be entered once only would break at the second step
        with native.context():
            assert not torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
    with attention.Chosen("sdpa", "").context():
        assert torch.backends.cuda.flash_sdp_enabled() and torch.backends.cuda.math_sdp_enabled()


def test_a_kernel_that_fails_gives_way_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    # Only cuDNN's kernel, which no CPU has: torch itself refuses, as it does for flash on an old GPU.
    monkeypatch.setitem(attention._KERNELS, "flash", [SDPBackend.CUDNN_ATTENTION])
    chosen = attention.choose(unet(), "flash", CPU, torch.float32)
    assert chosen.name == "sdpa" and "flash failed its trial" in chosen.reason


def test_a_kernel_that_computes_something_else_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention._attend

    def wrong_where_fast(name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return real(name, q, k, v) if name == "native" else F.scaled_dot_product_attention(q, k, v, scale=0.5)

    monkeypatch.setattr(attention, "_attend", wrong_where_fast)
    chosen = attention.choose(unet(), "flash", CPU, torch.float32)
    assert chosen.name == "native" and "differs from the formula" in chosen.reason


@pytest.mark.parametrize("model", [unet, flux])
def test_xformers_that_cannot_run_falls_back(model: object) -> None:
    # Absent, or present without a kernel for the CPU: both are a failed trial, and the model must still work.
    denoiser = model()  # type: ignore[operator]
    chosen = attention.choose(denoiser, "xformers", CPU, torch.float32)
    assert chosen.name == "sdpa" and "xformers failed its trial" in chosen.reason
    processors = [getattr(module, "processor", None) for module in denoiser.modules()]
    assert all(getattr(processor, "_attention_backend", None) is None for processor in processors)


def test_auto_is_sdpa_and_unknown_names_are_refused() -> None:
    assert attention.choose(unet(), "auto", CPU, torch.float32).name == "sdpa"
    with pytest.raises(PilotError, match="xformers"):
        attention.choose(unet(), "fastest", CPU, torch.float32)
