"""LoRAs merged into their base, and taken out again: against the adapter at work, in plain diffusers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_states import state
from miniatures import FAMILIES, load, tiny
from original_names import single_file
from safetensors.torch import load_file, save_file

from trainpilot.cli import main
from trainpilot.config.schema import Network, Noise
from trainpilot.engine import merging
from trainpilot.engine.adapters import Adapter
from trainpilot.errors import PilotError
from trainpilot.families.card import card
from trainpilot.families.construction import class_of
from trainpilot.families.protocol import Parts, TextOptions
from trainpilot.families.registry import adapter
from trainpilot.formats import kohya, peft, storage
from trainpilot.formats import load as files
from trainpilot.formats.base_files import Weights, bare
from trainpilot.formats.extract import extract
from trainpilot.formats.into_base import into_base
from trainpilot.formats.lowrank import Limit, product
from trainpilot.formats.state import AdapterState
from trainpilot.models.detect import detect

# A share of each base with every kind of place: fused matrices, swapped halves, convolutions, text encoders.
KEEP = {
    "sd15": ("attn1.to_q", "resnets.0.conv1", "proj_in", "ff.net.2"),
    "sdxl": ("attn2.to_v", "resnets.1.conv2", "proj_out", "add_embedding.linear_1"),
    "flux": ("attn.to_k", "attn.add_q_proj", "proj_mlp", "norm_out.linear", "ff.net.0.proj", "attn.to_v"),
}
TEXT = ("self_attn.q_proj", "mlp.fc1", "self_attn.out_proj")
BOUND = 1e-5  # the largest difference that the rounding of fp32 weights may make, as a share of the largest output
EVERYTHING = frozenset({"text", "vae", "denoiser"})


def modules_of(family: str) -> dict[str, torch.nn.Module]:
    parts = load(family)
    models = dict(zip(adapter(family).components, [parts.denoiser, *parts.text_encoders], strict=False))
    return {c: m for c, m in models.items() if m is not None and not (family == "flux" and c == "text_encoder_2")}


def adapted(family: str, kind: str = "lora") -> AdapterState:
    """What the engine's own adapter of that kind gives, with weights that do something."""
    models = modules_of(family)
    # loha and lokr cannot be written over a part of a fused matrix
    keep = ("attn.to_out.0", "ff.net.2") if family == "flux" and kind in ("loha", "lokr") else KEEP[family]
    if family == "flux" and kind == "dora":
        keep = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "norm_out.linear")
    network = Network(type=kind, rank=4, alpha=2.0, conv_rank=0 if family == "flux" else 3)
    made = Adapter.inject(models, {c: list(keep if c == "denoiser" else TEXT) for c in models}, network, seed=1)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(made.named_parameters()):
            generator = torch.Generator().manual_seed(number)
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.copy_(parameter * (1 + noise) if "magnitude" in name else noise)
    return made.collect()


def saved(path: Path, family: str, given: AdapterState, naming: str = "kohya") -> Path:
    writer = kohya.write if naming == "kohya" else peft.write
    writer(path, family, given, {"ss_base_model_version": card(family).ss_base_model_version}, torch.float32)
    return path


def outputs(family: str, parts: Parts) -> dict[str, torch.Tensor]:
    """What text encoders and denoiser answer to a fixed input."""
    own = adapter(family)
    assert parts.denoiser is not None
    for module in (parts.denoiser, *parts.text_encoders):
        module.double()  # fp32 would add the rounding of each layer to what is compared
    channels = parts.denoiser.config.in_channels // (4 if family == "flux" else 1)
    noisy = torch.randn(1, channels, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    sizes = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]])
    with torch.no_grad():
        text = own.encode_text(parts, ["a zorp on a hill"], TextOptions(t5_tokens=16))
        levels = own.levels(parts, torch.tensor([0.4]), Noise(timesteps="uniform"), (16, 16))
        return {**text, "out": own.predict(parts, noisy, levels, text, sizes, Noise())}


def largest(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference, as a share of the largest value."""
    return max(float((a[key] - b[key]).abs().max() / b[key].abs().max()) for key in a)


def read(family: str, path: Path) -> Parts:
    return adapter(family).load(path, frozenset({"text", "denoiser"}), dtype=torch.float32, device="cpu")


KINDS = [(family, "lora") for family in FAMILIES]
KINDS += [("sd15", "dora"), ("sd15", "loha"), ("sdxl", "lokr"), ("flux", "dora"), ("flux", "loha")]


@pytest.mark.parametrize(("family", "kind"), KINDS)
def test_the_merged_base_is_the_adapter_at_its_strength(tmp_path: Path, family: str, kind: str) -> None:
    """In both layouts, and the same as `trainpilot sample` computes."""
    file = saved(tmp_path / "a.safetensors", family, adapted(family, kind))
    strength = 0.6
    done = into_base(detect(tiny(family)), [(file, strength)], tmp_path / "folder")
    single = single_file(family, tiny(family), tmp_path / "base.safetensors")
    alone = into_base(detect(single), [(file, strength)], tmp_path / "merged.safetensors")
    assert done.modules == alone.modules and done.dtypes == ["f32"] and not done.lost
    assert alone.rounding == done.rounding == 0.0 < done.largest_change
    expected = load(family)
    merging.merge(adapter(family), expected, files.read(file).state, strength)
    before = outputs(family, load(family))
    wanted = outputs(family, expected)
    assert largest(before, wanted) > 20 * BOUND, "an adapter without effect proves nothing"
    assert largest(outputs(family, read(family, tmp_path / "folder")), wanted) <= BOUND
    assert largest(outputs(family, read(family, tmp_path / "merged.safetensors")), wanted) <= BOUND
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_diffusers_pipeline_agrees(tmp_path: Path, family: str) -> None:
    """The consumer: a pipeline with the LoRA at strength s against a pipeline of the merged folder. No code of ours."""
    file = saved(tmp_path / "a.safetensors", family, adapted(family), naming="peft")
    into_base(detect(tiny(family)), [(file, 0.7)], tmp_path / "folder")
    kind = class_of(adapter(family).pipeline)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    adapted_pipeline = kind.from_pretrained(tiny(family))
    adapted_pipeline.load_lora_weights(str(file), adapter_name="a")
    adapted_pipeline.set_adapters(["a"], [0.7])
    pictures = [picture(one, family) for one in (adapted_pipeline, kind.from_pretrained(tmp_path / "folder"))]
    plain = picture(kind.from_pretrained(tiny(family)), family)
    difference = float((pictures[0] - pictures[1]).abs().max())
    assert float((plain - pictures[0]).abs().max()) > 100 * difference
    assert difference <= 1e-3, difference  # of pixels in 0..1, after two steps and the VAE


def picture(pipeline: Any, family: str) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    guided = {"max_sequence_length": 16} if family == "flux" else {}
    generator = torch.Generator().manual_seed(3)
    made = pipeline(
        "a zorp", num_inference_steps=2, width=32, height=32, generator=generator, output_type="pt", **guided
    )
    return made.images


@pytest.mark.parametrize("family", FAMILIES)
def test_every_module_of_a_single_file_is_found_in_its_rows(tmp_path: Path, family: str) -> None:
    single = single_file(family, tiny(family), tmp_path / "base.safetensors")
    own, alone = Weights(detect(tiny(family))), Weights(detect(single))
    for component, module in (key for c, m in modules_of(family).items() for key in shapes(c, m)):
        wanted = own.read(component, module)
        found = alone.read(component, module)
        assert torch.equal(found.reshape(wanted.shape), wanted), f"{component}.{module}"


def shapes(component: str, model: torch.nn.Module) -> list[tuple[str, str]]:
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    found = [bare(component, name) for name, module in model.named_modules() if isinstance(module, kinds)]
    # OpenCLIP stores this one transposed; no adapter of ours sits on it.
    return [(c, m) for c, m in found if m != "text_projection"]


def test_two_loras_in_one_go_are_one_after_the_other(tmp_path: Path) -> None:
    a = saved(tmp_path / "a.safetensors", "sd15", adapted("sd15"))
    b = saved(tmp_path / "b.safetensors", "sd15", adapted("sd15", "dora"))
    base = detect(tiny("sd15"))
    into_base(base, [(a, 0.5), (b, 0.8)], tmp_path / "both")
    into_base(base, [(a, 0.5)], tmp_path / "first")
    into_base(detect(tmp_path / "first"), [(b, 0.8)], tmp_path / "second")
    both, second = (load_file(next((tmp_path / n / "unet").glob("*.safetensors"))) for n in ("both", "second"))
    assert all(torch.equal(both[name], second[name]) for name in both)


def test_half_precision_bases_keep_their_format_and_the_rounding_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    adapter("sd15").tiny(folder)
    for file in folder.glob("*/*.safetensors"):
        save_file({n: t.half() for n, t in load_file(file).items()}, file)
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    lora = saved(tmp_path / "a.safetensors", "sd15", adapted("sd15"))
    done = into_base(detect(folder), [(lora, 1.0)], tmp_path / "merged")
    assert done.dtypes == ["f16"] and 0 < done.rounding < 1e-2 and "diffusion_pytorch_model.bin" in done.notes[0]
    merged = load_file(next((tmp_path / "merged" / "unet").glob("*.safetensors")))
    assert {tensor.dtype for tensor in merged.values()} == {torch.float16}
    faint = {"denoiser": {n: w for n, w in adapted("sd15")["denoiser"].items() if n.endswith("to_q")}}
    for weights in faint["denoiser"].values():
        weights.alpha = 1e-6
    lost = into_base(detect(folder), [(saved(tmp_path / "f.safetensors", "sd15", faint), 1.0)], tmp_path / "faint")
    assert len(lost.lost) == len(faint["denoiser"]) and "below the rounding" in lost.text()


def test_what_does_not_fit_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    base = detect(tiny("sd15"))
    before = {path: path.read_bytes() for path in tiny("sd15").rglob("*.safetensors")}
    strange = saved(tmp_path / "s.safetensors", "sd15", state({"denoiser": {"mid_block.attentions.7.proj_in": [8, 8]}}))
    large = saved(tmp_path / "l.safetensors", "sd15", state({"denoiser": {"time_embedding.linear_1": [8, 8]}}))
    for file, words in ((strange, "does not have, denoiser.mid_block"), (large, "does not fit a weight")):
        with pytest.raises(PilotError, match=words):
            into_base(base, [(file, 1.0)], tmp_path / "out")
    with pytest.raises(PilotError, match=r"names that are not of|a LoRA|no LoRA"):
        into_base(detect(tiny("flux")), [(large, 1.0)], tmp_path / "out")
    with pytest.raises(PilotError, match="exists already"):
        into_base(base, [(large, 1.0)], tiny("sd15"))

    def stop() -> None:
        raise KeyboardInterrupt

    good = saved(tmp_path / "g.safetensors", "sd15", adapted("sd15"))
    with pytest.raises(KeyboardInterrupt):
        into_base(base, [(good, 1.0)], tmp_path / "out", check=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.safetensors", "l.safetensors", "s.safetensors"]
    assert all(path.read_bytes() == data for path, data in before.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_difference_gives_the_lora_back(tmp_path: Path, family: str) -> None:
    """From a folder and a single file: what was merged in comes out, to the rounding of fp32 weights."""
    given = adapted(family)
    file = saved(tmp_path / "a.safetensors", family, given)
    single = single_file(family, tiny(family), tmp_path / "base.safetensors")
    into_base(detect(single), [(file, 1.0)], tmp_path / "merged.safetensors")
    done = extract(tiny(family), tmp_path / "merged.safetensors", tmp_path / "back.safetensors", Limit(4), dtype="fp32")
    back = files.read(tmp_path / "back.safetensors").state
    wanted = {bare(c, m): product(w) for c, modules in given.items() for m, w in modules.items()}
    found = {bare(c, m): product(w) for c, modules in back.items() for m, w in modules.items()}
    assert found.keys() == wanted.keys()
    for key, one in wanted.items():
        difference = float((one.up @ one.down - found[key].up @ found[key].down).norm())
        assert difference <= 1e-4 * one.norm(), key
    assert done.relative < 1e-4 and done.target.family == family
    assert done.target.metadata["ss_sd_model_name"] == tiny(family).name
    assert "merged.safetensors less" in done.target.metadata["ss_training_comment"]


def test_extraction_tells_the_true_error(tmp_path: Path) -> None:
    """What cannot be thin: a DoRA changes every row in its own way. Against torch's own SVD of the difference."""
    file = saved(tmp_path / "a.safetensors", "sd15", adapted("sd15", "dora"))
    into_base(detect(tiny("sd15")), [(file, 1.0)], tmp_path / "merged")
    done = extract(tiny("sd15"), tmp_path / "merged", tmp_path / "back.safetensors", Limit(3), dtype="fp32")
    before, after = Weights(detect(tiny("sd15"))), Weights(detect(tmp_path / "merged"))
    for found in done.modules:
        component, _, module = found.module.partition(".")
        change = (after.read(component, module).double() - before.read(component, module).double()).flatten(1)
        left_out = float(torch.linalg.svdvals(change)[3:].norm())
        assert found.error == pytest.approx(left_out, rel=1e-3) and found.norm == pytest.approx(float(change.norm()))
    with pytest.raises(PilotError, match="no weight differs"):
        extract(tiny("sd15"), tiny("sd15"), tmp_path / "none.safetensors", Limit(3))
    with pytest.raises(PilotError, match="a sdxl model"):
        extract(tiny("sd15"), tiny("sdxl"), tmp_path / "none.safetensors", Limit(3))


def test_a_copy_in_another_number_format_is_no_difference(tmp_path: Path) -> None:
    half = tmp_path / "half"
    adapter("sd15").tiny(half)
    for file in half.glob("*/*.safetensors"):
        tensors = {n: t.half() for n, t in load_file(file).items()}
        if file.parent.name == "unet":
            tensors["time_embedding.linear_1.weight"] += 0.5
        save_file(tensors, file)
    done = extract(tiny("sd15"), half, tmp_path / "back.safetensors", Limit(1))
    assert [module.module for module in done.modules] == ["denoiser.time_embedding.linear_1"]
    assert "rounding of another number format" in done.notes[0]


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "a.safetensors", "sd15", adapted("sd15"))
    base, merged = str(tiny("sd15")), str(tmp_path / "merged")
    assert main(["merge", f"{file}:0.8", "--base", base, "--out", merged]) == 0
    assert "between an exact new weight and the saved one" in capsys.readouterr().out
    out = str(tmp_path / "back.safetensors")
    assert main(["extract", base, merged, "--rank", "4", "--out", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["ranks"] == [3, 4]
    _, metadata = storage.read(next((tmp_path / "merged" / "unet").glob("*.safetensors")))
    assert json.loads(metadata["trainpilot_merged"])[0]["strength"] == 0.8
    assert main(["merge", f"{file}:0.8", "--base", base, "--out", str(tmp_path / "x"), "--rank", "2"]) == 2
