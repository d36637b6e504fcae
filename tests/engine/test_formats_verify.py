"""Files of every tiny family load over a fresh base with no key left over, and a file that is wrong is found out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lora_states import shapes_of, state
from safetensors.torch import load_file
from torch import Tensor

from trainpilot.cli import main
from trainpilot.config.schema import Network
from trainpilot.engine.adapters import Adapter
from trainpilot.errors import PilotError
from trainpilot.families.card import card
from trainpilot.families.registry import adapter
from trainpilot.formats import kohya, peft, storage
from trainpilot.formats.state import UP, AdapterState
from trainpilot.formats.verify import TOLERANCE, Verification, require, verify

FAMILIES = ("sd15", "sdxl", "flux")
# A share of each base: enough for every kind of module, little enough for two cores.
KEEP = {"sd15": "blocks.0", "sdxl": "blocks.1.", "flux": "blocks.0."}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: adapter(family).tiny(tmp_path_factory.mktemp(family)) for family in FAMILIES}


def models(family: str, base: Path) -> dict[str, torch.nn.Module]:
    parts = adapter(family).load(base, frozenset({"denoiser", "text"}), dtype=torch.float32, device="cpu")
    assert parts.denoiser is not None
    count = 2 if family == "sdxl" else 1
    encoders = dict(zip(("text_encoder", "text_encoder_2"), parts.text_encoders[:count], strict=False))
    return {"denoiser": parts.denoiser, **encoders}


def trained(family: str, base: Path, *, dora: bool = False) -> AdapterState:
    """A random LoRA on a share of the denoiser and on the text encoders."""
    shapes = shapes_of(models(family, base))
    chosen = {
        component: {
            name: shape
            for name, shape in modules.items()
            if (KEEP[family] in name if component == "denoiser" else ".layers.0." in name)
        }
        for component, modules in shapes.items()
    }
    return state(chosen, rank=4, alpha=2.0, dora=dora)


def saved(
    path: Path, family: str, given: AdapterState, dtype: torch.dtype = torch.float16, naming: str = "kohya"
) -> Path:
    write = kohya.write if naming == "kohya" else peft.write
    write(path, family, given, {"ss_base_model_version": card(family).ss_base_model_version}, dtype)
    return path


def complete(result: Verification) -> None:
    assert result.ok, result.text()
    assert (result.missing, result.unexpected, result.wrong_alpha) == ([], [], [])
    assert result.forward_error is not None
    assert result.forward_error <= TOLERANCE
    assert result.forward_effect is not None
    assert result.forward_effect > 1e-3, "an adapter without effect proves nothing"
    require(result)


@pytest.mark.parametrize("naming", ["kohya", "peft"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_in_diffusers_in_both_namings(
    tmp_path: Path, bases: dict[str, Path], family: str, naming: str
) -> None:
    given = trained(family, bases[family])
    file = saved(tmp_path / "a.safetensors", family, given, naming=naming)
    result = verify(file, bases[family], reference=given)
    complete(result)
    assert result.reader.startswith("diffusers")
    # FLUX's fused single blocks are known to diffusers at full width alone, and the account says so.
    assert ("3072" in result.reader) == (family == "flux" and naming == "kohya")


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_dora_loads_too(tmp_path: Path, bases: dict[str, Path], family: str) -> None:
    given = trained(family, bases[family], dora=True)
    complete(verify(saved(tmp_path / "a.safetensors", family, given), bases[family], reference=given))


@pytest.mark.parametrize("kind", ["loha", "lokr"])
def test_what_the_engine_made_of_loha_and_lokr(tmp_path: Path, bases: dict[str, Path], kind: str) -> None:
    live = models("sd15", bases["sd15"])
    network = Network(type=kind, rank=4, alpha=2.0, conv_rank=2)
    endings = {"denoiser": ["to_q", "proj_in"], "text_encoder": ["q_proj"]}
    made = Adapter.inject(live, endings, network, seed=5)
    with torch.no_grad():
        for number, parameter in enumerate(made.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    file = saved(tmp_path / "a.safetensors", "sd15", made.collect())
    result = verify(file, bases["sd15"], reference=made.collect())
    complete(result)
    assert "does not read" in result.reader


@pytest.mark.parametrize("text_targets", [["q_proj", "out_proj"], ["q_proj", "fc1"]])
def test_ranks_that_differ_by_block_keep_their_scale(
    tmp_path: Path, bases: dict[str, Path], text_targets: list[str]
) -> None:
    network = Network(rank=4, alpha=2.0, conv_rank=3, block_ranks={"attn2": 6, "layers.0": 2})
    live = models("sd15", bases["sd15"])
    made = Adapter.inject(live, {"denoiser": ["to_q", "to_k"], "text_encoder": text_targets}, network, seed=5)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    for naming in ("kohya", "peft"):
        file = saved(tmp_path / f"{naming}.safetensors", "sd15", made.collect(), naming=naming)
        result = verify(file, bases["sd15"], reference=made.collect())
        complete(result)
        # diffusers needs out_proj among a Kohya file's modules, or it goes there in the other naming
        assert ("out_proj" in result.reader) == (naming == "kohya" and "out_proj" not in text_targets)


def change(path: Path, name: str, new: Tensor | None) -> None:
    tensors, metadata = load_file(path), {"ss_base_model_version": "sd_v1"}
    if new is None:
        for leaf in ("lora_down.weight", "lora_up.weight", "alpha"):
            del tensors[f"{name}.{leaf}"]
    else:
        tensors[name] = new
    storage.write(path, tensors, metadata)


def test_a_wrong_alpha_weight_or_absent_module_is_found_out(tmp_path: Path, bases: dict[str, Path]) -> None:
    given = trained("sd15", bases["sd15"])
    module = next(iter(given["denoiser"]))
    name = "lora_unet_" + module.replace(".", "_")

    def damaged(key: str, new: Tensor | None) -> Verification:
        file = saved(tmp_path / "a.safetensors", "sd15", given, torch.float32)
        change(file, key, new)
        return verify(file, bases["sd15"], reference=given, forward=False)

    alpha = damaged(f"{name}.alpha", torch.tensor(4.0))
    assert not alpha.ok
    up = given["denoiser"][module].tensors[UP]
    weight = damaged(f"{name}.lora_up.weight", up * (1 + 1e-3 * torch.rand_like(up)))
    assert not weight.ok
    assert weight.worst_module == f"denoiser.{module}"
    assert 1e-4 < weight.module_error < 1e-2
    absent = damaged(name, None)
    assert absent.missing == [f"denoiser.{module}"]
    with pytest.raises(PilotError, match="Do not use the file"):
        require(absent)


def test_a_base_of_another_family_is_refused(tmp_path: Path, bases: dict[str, Path]) -> None:
    file = saved(tmp_path / "a.safetensors", "sd15", trained("sd15", bases["sd15"]))
    with pytest.raises(PilotError, match="a flux model"):
        verify(file, bases["flux"])


def test_a_stop_is_heard_between_the_phases(tmp_path: Path, bases: dict[str, Path]) -> None:
    class Stop(Exception):
        pass

    def check() -> None:
        raise Stop

    file = saved(tmp_path / "a.safetensors", "sd15", trained("sd15", bases["sd15"]))
    with pytest.raises(Stop):
        verify(file, bases["sd15"], check=check)


def test_both_verbs(tmp_path: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file = saved(tmp_path / "zorp.safetensors", "sd15", trained("sd15", bases["sd15"]))
    assert main(["convert", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["target"]["naming"] == "peft"
    other = tmp_path / "zorp.diffusers.safetensors"
    assert main(["verify", str(other), "--base", str(bases["sd15"]), "--json"]) == 0
    account = json.loads(capsys.readouterr().out)
    assert account["ok"] is True
    assert account["max_relative_error"] <= TOLERANCE
    assert main(["verify", str(tmp_path / "absent.safetensors"), "--base", str(bases["sd15"])]) == 2
