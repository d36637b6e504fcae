"""Sizes in the plan agree with what the libraries make, and with figures counted elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainpilot.config.schema import RunConfig
from trainpilot.families.card import card
from trainpilot.models.detect import Base
from trainpilot.plan import caching, memory, network, timing, tokens


def config(**sections: object) -> RunConfig:
    return RunConfig.model_validate(sections)


@pytest.mark.parametrize(
    ("family", "modules", "millions"), [("sd15", 128, 3.19), ("sdxl", 560, 23.2), ("flux", 342, 44.8)]
)
def test_full_size_adapters_have_the_known_size(family: str, modules: int, millions: float) -> None:
    # Rank 16 on the default targets; figures counted from the models on the meta device, rounded to three digits.
    found = network.adapted(config(network={"rank": 16, "alpha": 16}), card(family), card(family).shapes())
    assert len(found) == modules
    assert float(f"{sum(module.parameters for module in found) / 1e6:.3g}") == millions


@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
@pytest.mark.parametrize("rank", [2, 40])
def test_adapter_sizes_are_those_that_the_engine_makes(kind: str, rank: int) -> None:
    nn = pytest.importorskip("torch.nn")
    from trainpilot.engine.adapters import Adapter

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.ModuleDict({"to_q": nn.Linear(48, 36), "conv1": nn.Conv2d(24, 40, 3)})
            self.proj_in = nn.Conv2d(32, 64, 1)
            self.conv_in = nn.Conv2d(4, 8, 3)

    run = config(network={"type": kind, "rank": rank, "alpha": 4, "conv_rank": rank, "targets": ["to_q", "proj_in"]})
    model = Model()
    shapes = {n.removesuffix(".weight"): list(p.shape) for n, p in model.named_parameters() if n.endswith("weight")}
    planned = network.adapted(run, card("sd15"), {"denoiser": shapes})
    adapter = Adapter.inject({"denoiser": model}, {"denoiser": ["to_q", "proj_in"]}, run.network, 0)
    made = sorted(parameter.numel() for parameter in adapter.parameters())
    assert sorted(size for module in planned for size in module.tensors) == made


def test_block_ranks_change_or_leave_out_modules() -> None:
    run = config(network={"rank": 8, "alpha": 8, "block_ranks": {"^mid_block": 4, "^up_blocks": 0}})
    ranks = {
        module.name.split(".")[0]: module.rank for module in network.adapted(run, card("sd15"), card("sd15").shapes())
    }
    assert ranks == {"down_blocks": 8, "mid_block": 4}


@pytest.mark.parametrize("name", ["adamw8bit", "lion8bit"])
def test_8_bit_states_have_the_size_that_bitsandbytes_makes(name: str) -> None:
    torch = pytest.importorskip("torch")
    bnb = pytest.importorskip("bitsandbytes")
    kind = {"adamw8bit": bnb.optim.AdamW8bit, "lion8bit": bnb.optim.Lion8bit}[name]
    parameters = [torch.nn.Parameter(torch.randn(size)) for size in (8192, 1024)]
    optimizer = kind(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    held = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for key, value in state.items()
        # The 256 code points of a map are shared by all tensors.
        if hasattr(value, "numel") and not key.startswith("qmap")
    )
    assert memory.optimizer_bytes(name, [8192, 1024]) == held


def test_a_quantised_flux_fits_where_the_reference_says() -> None:
    # 11,901 M parameters: 23.8 GB in bf16, 11.9 in 8 bits, 6.7 in 4 bits.
    sizes = {}
    for base in ("full", "int8", "fp8", "nf4"):
        run = config(precision={"base": base})
        modules = network.adapted(run, card("flux"), card("flux").shapes())
        parts = memory.estimate(
            run, modules, card("flux").parameters("dev"), mixed="bf16", activations=0, resident=[], on_gpu=True
        )
        sizes[base] = round(parts.base / 1e9, 1)
    assert sizes == {"full": 23.8, "int8": 11.9, "fp8": 11.9, "nf4": 6.7}


def test_parts_that_are_off_cost_nothing_and_parts_that_are_on_do() -> None:
    def parts(**sections: object) -> memory.MemoryEstimate:
        run = config(**sections)
        modules = network.adapted(run, card("sd15"), card("sd15").shapes())
        parameters = card("sd15").parameters()
        return memory.estimate(run, modules, parameters, mixed="fp32", activations=100, resident=[], on_gpu=False)

    plain = parts()
    assert (plain.ema, plain.encoders, plain.context, plain.activations) == (0, 0, 0, 200)
    assert plain.optimizer == 2 * plain.adapter == 2 * plain.gradients
    assert parts(training={"ema_decay": 0.9}).ema == plain.adapter
    both = parts(text_encoder={"train": True})
    assert both.adapter > plain.adapter


def test_a_t5_entry_of_512_tokens_is_4_mib() -> None:
    run = config(text_encoder={"t5_tokens": 512})
    pooled = 768 * 2  # CLIP's pooled vector goes with it
    assert caching.text_bytes(run, card("flux"), 2) - pooled == 4 * 2**20
    # SDXL: 77 tokens of 768 + 1280, and the second encoder's pooled 1280.
    assert caching.text_bytes(config(), card("sdxl"), 2) == (77 * 2048 + 1280) * 2
    # Three chunks of 75 between one start and one end.
    assert caching.text_bytes(config(text_encoder={"clip_tokens": 225}), card("sd15"), 4) == 227 * 768 * 4


def test_cached_moments_have_the_size_of_a_true_entry() -> None:
    torch = pytest.importorskip("torch")
    moments = torch.zeros(2 * 4, 512 // 8, 768 // 8)
    assert caching.moments_bytes(768, 512, 4, 8) == moments.numel() * moments.element_size()


# Forward with backward in TFLOP at 512 and 1024 px, and milliseconds at 780 TFLOP/s, without and with checkpointing,
# as counted on meta tensors for benchmarks/train_step.py.
FLOORS = [
    ("sd15", 512, 2.2, 3.2),
    ("sd15", 1024, 14.5, 20.5),
    ("sdxl", 512, 4.1, 6.1),
    ("sdxl", 1024, 18.2, 26.9),
    ("flux", 512, 57, 85),
    ("flux", 1024, 210, 306),
]


@pytest.mark.parametrize(("family", "side", "plain", "checkpointed"), FLOORS)
def test_work_of_a_step_meets_the_counted_floors(family: str, side: int, plain: float, checkpointed: float) -> None:
    base = Base(Path("x"), family, "file", "flow", "1", 0, tiny=False)
    shapes = card(family).shapes()["denoiser"]
    figures = timing.figures(family, base, card(family).parameters()["denoiser"], len(shapes), 8)
    assert figures is not None
    for checkpointing, expected in ((False, plain), (True, checkpointed)):
        assert figures.train_tflop(side, side, checkpointing) / 780 * 1000 == pytest.approx(expected, rel=0.03)


def test_the_host_bounds_small_steps_on_a_gpu() -> None:
    base = Base(Path("x"), "sdxl", "file", "epsilon", "1", 0, tiny=False)
    figures = timing.figures("sdxl", base, 1, 1, 8)
    device = timing.gpu("NVIDIA H200", None)
    assert figures is not None and device.tflops == pytest.approx(0.4 * 989)
    # 8,741 operations at 5 us are 44 ms; the arithmetic of one 512 px picture takes 8 ms.
    small = timing.step_seconds(figures.train_tflop(512, 512, False), 1, figures, device, False)
    assert small == pytest.approx(0.0437, rel=0.01)
    large = timing.step_seconds(8 * figures.train_tflop(1024, 1024, False), 1, figures, device, False)
    assert large == pytest.approx(8 * 14.2 / device.tflops, rel=0.01)


def test_devices_are_known_by_the_longest_name() -> None:
    assert timing.known_tflops("NVIDIA H100 PCIe") != timing.known_tflops("NVIDIA H100 80GB HBM3")
    assert timing.known_tflops("NVIDIA L40S") != timing.known_tflops("NVIDIA L40")
    assert timing.known_tflops("Some other card") is None
    assert "guessed" in timing.gpu("Some other card", None).source
    assert timing.gpu("NVIDIA A100", None, tflops=100).tflops == 100


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, Path]:
    """A CLIP tokenizer with merges, as transformers builds it, and its vocab.json and merges.txt."""
    transformers = pytest.importorskip("transformers")
    import json

    from tokenizers.pre_tokenizers import ByteLevel

    symbols = sorted(ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>"), ("z", "o"), ("zo", "r"), ("zor", "p</w>")]
    words = [
        *symbols,
        *(s + "</w>" for s in symbols),
        *("".join(m) for m in merges),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {word: number for number, word in enumerate(words)}
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=merges), folder


@given(text=st.text(max_size=60) | st.from_regex(r"(the|zorp|Zorp|,|'s|12| )*", fullmatch=True))
def test_captions_are_counted_as_transformers_counts_them(clip_files: tuple[object, Path], text: str) -> None:
    theirs, folder = clip_files
    ours = tokens.read_tokenizer(folder)
    assert ours is not None
    expected = theirs(text, add_special_tokens=False).input_ids  # type: ignore[operator]
    assert ours.encode(text, add_special_tokens=False).ids == expected
