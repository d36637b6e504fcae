"""Small storage of the base: close to the full weights, only where it belongs, and transparent to gradients."""

from __future__ import annotations

from collections.abc import Callable

import bitsandbytes.functional as bnb
import pytest
import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from trainpilot.config.schema import Network
from trainpilot.engine.adapters import Adapter
from trainpilot.engine.compiling import compile_blocks, repeated_blocks
from trainpilot.engine.quantize import StoredLinear, quantize
from trainpilot.errors import PilotError

# Largest error of one weight, from the format: half a step of 1/127 of the row's largest weight; half of e4m3's last
# place (2^-4 of the weight, or half its smallest step, 2^-10 of 448 scaled); half the widest gap of the nf4 code.
STORAGES = ("int8", "nf4", "fp8")
_NF4_WIDEST_GAP = 1 - 0.6961928  # between the two lowest levels, in units of the block's largest weight
Made = tuple[nn.Module, Callable[[], Tensor]]


def tiny_unet() -> Made:
    torch.manual_seed(1)
    model = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    ).eval()
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    return model, lambda: model(latents, torch.tensor([10, 500]), text).sample


def tiny_flux() -> Made:
    torch.manual_seed(2)
    model = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    ).eval()
    image, text, pooled = torch.randn(2, 16, 16), torch.randn(2, 5, 32), torch.randn(2, 32)
    at, guidance = torch.tensor([0.2, 0.9]), torch.tensor([1.0, 1.0])

    def run() -> Tensor:
        return model(
            hidden_states=image,
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=at,
            guidance=guidance,
            txt_ids=torch.zeros(5, 3),
            img_ids=torch.zeros(16, 3),
        ).sample

    return model, run


TARGETS = ["to_q", "to_k", "to_v"]
MODELS = pytest.mark.parametrize("make", [tiny_unet, tiny_flux])


@pytest.mark.parametrize("width", [128, 96, 33])  # whole blocks of 64, blocks across rows, a last block in part
@pytest.mark.parametrize("storage", STORAGES)
def test_a_stored_weight_is_within_the_formats_step(storage: str, width: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(width, 40)
    linear.weight.data *= torch.logspace(-3, 1, 40).view(-1, 1)  # rows of very different size
    full = linear.weight.detach()
    stored = StoredLinear(linear, storage, "cpu")
    error = (stored.weight - full).abs()
    rows = full.abs().amax(dim=1, keepdim=True)
    if storage == "int8":
        allowed = rows / 127 / 2 + full.abs() * 2**-11 + 1e-7  # the latter is bitsandbytes' rounding to fp16 first
    elif storage == "fp8":
        allowed = torch.maximum(full.abs() * 2**-4, rows / 448 * 2**-10) * 1.001
    else:
        blocks = [chunk.abs().max().expand(chunk.shape) for chunk in full.reshape(-1).split(64)]
        allowed = torch.cat(blocks).view(full.shape) * _NF4_WIDEST_GAP / 2 * 1.001
    assert bool((error <= allowed).all())
    assert float(error.max()) > 0


def test_the_codes_are_bitsandbytes_own() -> None:
    linear = nn.Linear(128, 32, bias=False)
    weight = linear.weight.detach()
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    assert torch.equal(StoredLinear(linear, "nf4", "cpu").weight, bnb.dequantize_4bit(packed, state))
    codes, rows, _ = bnb.int8_vectorwise_quant(weight.half())
    expected = bnb.int8_vectorwise_dequant(codes, rows)
    torch.testing.assert_close(StoredLinear(linear, "int8", "cpu").weight, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_row_of_zeros_stays_zero(storage: str) -> None:
    linear = nn.Linear(64, 4)
    linear.weight.data[1] = 0
    assert torch.equal(StoredLinear(linear, storage, "cpu").weight[1], torch.zeros(64))


@pytest.mark.parametrize("storage", STORAGES)
@MODELS
def test_only_linear_layers_of_blocks_are_stored(make: Callable[[], Made], storage: str) -> None:
    model, _ = make()
    linears = {name for name, module in model.named_modules() if type(module) is nn.Linear}
    in_blocks = {name for name in linears if any(name.startswith(block + ".") for block, _ in repeated_blocks(model))}
    others = {name: value.clone() for name, value in model.state_dict().items() if name[:-7] not in in_blocks}
    report = quantize(model, storage, "cpu")
    stored = {name for name, module in model.named_modules() if isinstance(module, StoredLinear)}
    assert stored == in_blocks and report.layers == len(stored) > 0
    assert linears - in_blocks, "the model has linear layers outside its blocks, or this tests nothing"
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in others.items() if ".bias" not in name)
    # fp32 before; 8 bits and a 32-bit scale a row (rows here are 32 wide or more), or 4 bits and one per 64 weights.
    assert report.bytes_after <= report.bytes_before * {"nf4": 4.5 / 32}.get(storage, 9 / 32) + 64 * len(stored)
    assert storage in report.reason


@pytest.mark.parametrize(("storage", "close"), [("int8", 0.005), ("fp8", 0.03), ("nf4", 0.1)])
@MODELS
def test_the_forward_pass_is_close_to_full(make: Callable[[], Made], storage: str, close: float) -> None:
    model, run = make()
    with torch.no_grad():
        full = run()
        quantize(model, storage, "cpu")
        small = run()
    difference = float((small - full).norm() / full.norm())
    assert 0 < difference < close


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
@pytest.mark.parametrize("storage", STORAGES)
@MODELS
def test_gradients_reach_every_kind_of_adapter_and_it_stays_fp32(
    make: Callable[[], Made], storage: str, kind: str
) -> None:
    model, run = make()
    quantize(model, storage, "cpu")
    adapter = Adapter.inject({"denoiser": model}, {"denoiser": TARGETS}, Network(type=kind, rank=4), seed=3)
    run().square().mean().backward()
    parameters = dict(adapter.named_parameters())
    assert parameters and all(p.dtype == torch.float32 and bool(torch.isfinite(p).all()) for p in parameters.values())
    # In each module at least the factor that starts at zero moves; it holds the gradient of the others at zero.
    moved = {name.rsplit(":", 1)[0] for name, p in parameters.items() if p.grad is not None and bool(p.grad.any())}
    assert moved == {name.rsplit(":", 1)[0] for name in parameters}
    assert all(p.grad is None for name, p in model.named_parameters() if "pilot" not in name)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_gradient_is_that_of_the_stored_weight(storage: str) -> None:
    torch.manual_seed(0)
    stored = StoredLinear(nn.Linear(64, 24), storage, "cpu")
    plain = nn.Linear(64, 24)
    plain.weight.data, plain.bias.data = stored.weight, stored.bias.data
    x, y = (torch.arange(320.0).view(5, 64).sin().requires_grad_() for _ in range(2))
    out, expected = stored(x), plain(y)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, y.grad)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_full_weight_is_not_kept_for_the_backward_pass(storage: str) -> None:
    stored = StoredLinear(nn.Linear(256, 256), storage, "cpu")
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        stored(torch.randn(1, 256, requires_grad=True))
    assert sum(kept) <= stored.codes.nbytes + stored.scale.nbytes < 256 * 256 * 2


@pytest.mark.parametrize("storage", STORAGES)
def test_casting_the_model_and_autocast_leave_the_codes_alone(storage: str) -> None:
    stored = StoredLinear(nn.Linear(64, 32), storage, "cpu")
    before = stored.weight
    module = nn.Sequential(stored).to(torch.bfloat16)
    assert torch.equal(stored.weight, before)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(torch.randn(3, 64))
    assert out.dtype == torch.bfloat16 and bool(torch.isfinite(out).all())


def test_full_changes_nothing_and_unknown_storage_is_refused() -> None:
    model, run = tiny_unet()
    with torch.no_grad():
        before = run()
        assert quantize(model, "full", "cpu").layers == 0
        assert torch.equal(run(), before)
    with pytest.raises(PilotError, match="int8"):
        quantize(model, "int3", "cpu")
    with pytest.raises(PilotError, match="no block"):
        quantize(nn.Sequential(nn.Linear(2, 2)), "int8", "cpu")


def test_a_compiler_that_fails_leaves_the_model_eager_with_the_reason() -> None:
    model, run = tiny_unet()
    with torch.no_grad():
        before = run()

    def trial() -> None:
        raise RuntimeError("no kernel for this\nsecond line")

    report = compile_blocks(model, trial)
    assert not report.on and "no kernel for this" in report.reason and "second" not in report.reason
    assert all(block._compiled_call_impl is None for _, block in repeated_blocks(model))
    with torch.no_grad():
        assert torch.equal(run(), before)


def test_out_of_memory_is_not_taken_for_a_compilers_failure() -> None:
    model, _ = tiny_unet()

    def trial() -> None:
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        compile_blocks(model, trial)
    assert all(block._compiled_call_impl is None for _, block in repeated_blocks(model))


@pytest.mark.slow
@pytest.mark.parametrize(("make", "storage"), [(tiny_unet, "nf4"), (tiny_flux, "full")])
def test_compiled_blocks_compute_the_same(make: Callable[[], Made], storage: str) -> None:
    model, run = make()
    quantize(model, storage, "cpu")
    adapter = Adapter.inject({"denoiser": model}, {"denoiser": TARGETS}, Network(rank=4), seed=3)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.05)  # B = 0 would hide the adapter

    def gradients() -> list[Tensor]:
        out = run()
        return [out.detach(), *torch.autograd.grad(out.square().mean(), adapter.parameters())]

    eager = gradients()
    report = compile_blocks(model, gradients)
    assert report.on, report.reason
    for got, expected in zip(gradients(), eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-5)
