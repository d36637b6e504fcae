"""Adding, resizing and reducing LoRA files: against plain linear algebra on the matrices they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from lora_states import delta, lora, state

from trainpilot.cli import main
from trainpilot.errors import PilotError
from trainpilot.families.card import card
from trainpilot.formats import kohya, load, lowrank, peft
from trainpilot.formats.combine import combine
from trainpilot.formats.lowrank import Limit
from trainpilot.formats.resize import resize
from trainpilot.formats.state import DOWN, UP, AdapterState, ModuleWeights
from trainpilot.models.detect import detect
from trainpilot.runs.events import history
from trainpilot.runs.jobdir import JobDir
from trainpilot.workspace import Workspace

TINY = Path(__file__).resolve().parents[2] / "workspace-template" / "models" / "pilot-tiny"
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0."
SD15 = {
    "denoiser": {
        f"{BLOCK}attn1.to_q": [24, 24],
        f"{BLOCK}attn2.to_k": [24, 40],
        "down_blocks.1.resnets.0.conv1": [16, 12, 3, 3],
    },
    "text_encoder": {"encoder.layers.0.self_attn.out_proj": [20, 20]},
}
SINGLE, DOUBLE = "single_transformer_blocks.0.", "transformer_blocks.0."
FLUX = {
    "denoiser": {
        f"{SINGLE}attn.to_q": [16, 16],
        f"{SINGLE}attn.to_k": [16, 16],
        f"{SINGLE}attn.to_v": [16, 16],
        f"{SINGLE}proj_mlp": [64, 16],
        f"{DOUBLE}ff.net.2": [16, 64],
    }
}


def saved(
    path: Path, given: AdapterState, family: str = "sd15", dtype: torch.dtype = torch.float32, **more: str
) -> Path:
    metadata = {"ss_base_model_version": card(family).ss_base_model_version, **more}
    kohya.write(path, family, given, metadata, dtype)
    return path


def dense(given: AdapterState) -> dict[str, torch.Tensor]:
    return {f"{c}.{m}": delta(w).double() for c, modules in given.items() for m, w in modules.items()}


def best(matrix: torch.Tensor, rank: int) -> float:
    """The Frobenius error of the best approximation: the singular values that are left out (Eckart and Young)."""
    return float(torch.linalg.svdvals(matrix.flatten(1).double())[rank:].norm())


@settings(max_examples=25)
@given(
    out=st.integers(2, 30),
    width=st.integers(2, 30),
    rank=st.integers(1, 12),
    kept=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_a_reduced_product_is_the_best_one(out: int, width: int, rank: int, kept: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    whole = lowrank.product(lora([out, width], rank, 3.0, generator))
    matrix = whole.up @ whole.down
    torch.testing.assert_close(whole.norm(), float(matrix.norm()), rtol=1e-12, atol=1e-14)
    for product in (lowrank.truncated(whole, Limit(kept)), lowrank.of_dense(matrix, Limit(kept))):
        assert product.rank <= kept
        error = float((matrix - product.up @ product.down).norm())
        assert error == pytest.approx(best(matrix, kept), rel=1e-6, abs=1e-7 * float(matrix.norm()))
        assert lowrank.distance(whole, product) == pytest.approx(error, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.999, 1.0])
def test_energy_keeps_what_it_says_and_no_more(energy: float) -> None:
    whole = lowrank.product(lora([40, 30], 16, 16.0, torch.Generator().manual_seed(3)))
    values = torch.linalg.svdvals(whole.up @ whole.down).square()
    for product in (
        lowrank.truncated(whole, Limit(energy=energy)),
        lowrank.of_dense(whole.up @ whole.down, Limit(energy=energy)),
    ):
        share = float(values[: product.rank].sum() / values.sum())
        assert share >= energy - 1e-12
        assert product.rank == 1 or float(values[: product.rank - 1].sum() / values.sum()) < energy
        assert product.rank <= 16


def test_an_alpha_changes_nothing() -> None:
    whole = lowrank.product(lora([16, 12, 3, 3], 5, 2.0, torch.Generator().manual_seed(1)))
    for alpha in (1.0, 5.0, 64.0):
        made = lowrank.weights_of(whole, alpha)
        assert made.tensors[DOWN].shape == (5, 12, 3, 3) and made.tensors[UP].shape == (16, 5, 1, 1)
        assert lowrank.distance(whole, lowrank.product(made)) < 1e-12


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_resizing_tells_the_true_error(tmp_path: Path, family: str) -> None:
    given = state(SD15 if family == "sd15" else FLUX, rank=8, alpha=4.0)
    file = saved(tmp_path / "a.safetensors", given, family)
    done = resize(file, tmp_path / "b.safetensors", Limit(3))
    after = dense(load.read(tmp_path / "b.safetensors").state)
    before = dense(given)
    assert {m.module for m in done.modules} == set(before)
    for module in done.modules:
        assert module.rank == 3
        true = float((before[module.module] - after[module.module]).norm())
        assert module.error == pytest.approx(true, rel=1e-4)
        assert module.error == pytest.approx(best(before[module.module], 3), rel=1e-4)
        assert module.norm == pytest.approx(float(before[module.module].norm()), rel=1e-5)
    squares = sum(best(matrix, 3) ** 2 for matrix in before.values())
    assert done.error == pytest.approx(squares**0.5, rel=1e-4)
    said = done.target.metadata
    assert (said["ss_network_dim"], said["ss_network_alpha"]) == ("3", "3")
    assert "resized to rank 3 from a.safetensors" in said["ss_training_comment"]
    assert resize(file, tmp_path / "c.safetensors", Limit(7), "bf16").target.dtype == "bf16"


def test_a_matrix_of_the_original_that_is_one_stays_one(tmp_path: Path) -> None:
    """As sd-scripts saves FLUX: query, key and value share the down weight; three would be three times larger."""
    shared = torch.randn(6, 16, generator=torch.Generator().manual_seed(4))
    modules = {
        name: ModuleWeights("lora", {DOWN: shared, UP: torch.randn(shape[0], 6)}, 6, 6.0)
        for name, shape in FLUX["denoiser"].items()
        if name.startswith(SINGLE)
    }
    file = saved(tmp_path / "a.safetensors", {"denoiser": modules}, "flux")
    done = resize(file, tmp_path / "b.safetensors", Limit(2))
    assert done.target.ranks == [2] and done.target.modules == {"unet": 1}
    whole = torch.cat([delta(w).double() for w in modules.values()])
    assert done.error == pytest.approx(best(whole, 2), rel=1e-4)
    again = combine([(file, 0.5), (file, 0.5)], tmp_path / "c.safetensors")
    assert again.target.ranks == [12] and again.relative < 1e-6


def test_the_sum_is_exact(tmp_path: Path) -> None:
    a, b = state(SD15, 4, 2.0, seed=1), state({"denoiser": SD15["denoiser"]}, 6, 6.0, seed=2)
    first = saved(tmp_path / "a.safetensors", a, **{"modelspec.trigger_phrase": "zorp"})
    second = saved(tmp_path / "b.safetensors", b, **{"modelspec.trigger_phrase": "ink"})
    done = combine([(first, 0.7), (second, -0.4)], tmp_path / "ab.safetensors")
    summed = dense(load.read(tmp_path / "ab.safetensors").state)
    for name, matrix in dense(a).items():
        wanted = 0.7 * matrix + (-0.4 * dense(b)[name] if name in dense(b) else 0)
        torch.testing.assert_close(summed[name], wanted, rtol=1e-5, atol=1e-6)
    assert done.relative < 1e-6 and done.target.ranks == [4, 10]
    assert done.target.trigger == "zorp, ink"
    files = json.loads(done.target.metadata["trainpilot_made_from"])["files"]
    assert [(f["file"], f["strength"]) for f in files] == [("a.safetensors", 0.7), ("b.safetensors", -0.4)]
    reduced = combine([(first, 0.7), (second, -0.4)], tmp_path / "r.safetensors", Limit(5))
    true = sum(best(matrix, 5) ** 2 for matrix in summed.values()) ** 0.5
    assert reduced.error == pytest.approx(true, rel=1e-4)


def test_half_precision_is_part_of_the_error(tmp_path: Path) -> None:
    given = state(SD15, 4, 3.0)
    files = [saved(tmp_path / f"{n}.safetensors", given, dtype=torch.float16) for n in "ab"]
    done = combine([(files[0], 0.3), (files[1], 0.3)], tmp_path / "h.safetensors")
    assert done.target.dtype == "f16" and 1e-5 < done.relative < 1e-3
    assert combine([(files[0], 0.3), (files[1], 0.3)], tmp_path / "f.safetensors", dtype="fp32").relative < 1e-6


def test_what_is_not_a_product_is_refused_by_name(tmp_path: Path) -> None:
    plain = saved(tmp_path / "a.safetensors", state(SD15))
    dora = saved(tmp_path / "d.safetensors", state(SD15, dora=True))
    with pytest.raises(PilotError, match="dora in "):
        combine([(plain, 1.0), (dora, 1.0)], tmp_path / "x.safetensors")
    with pytest.raises(PilotError, match=r"dora in .*extract"):
        resize(dora, None, Limit(1))
    with pytest.raises(PilotError, match="files of one family"):
        combine(
            [(plain, 1.0), (saved(tmp_path / "f.safetensors", state(FLUX), "flux"), 1.0)], tmp_path / "x.safetensors"
        )
    with pytest.raises(PilotError, match="exists already"):
        combine([(plain, 1.0), (plain, 1.0)], plain)
    with pytest.raises(PilotError, match="less than 4"):
        resize(plain, None, Limit(4))
    for wrong in ({"rank": 0}, {"energy": 1.5}, {"energy": 0.0}, {}):
        with pytest.raises(PilotError):
            Limit(**wrong)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "d.safetensors", "f.safetensors"]


def test_peft_naming_stays(tmp_path: Path) -> None:
    given = state(SD15, rank=4, alpha=8.0)
    peft.write(tmp_path / "a.safetensors", "sd15", given, {"ss_base_model_version": "sd_v1"}, torch.float32)
    done = resize(tmp_path / "a.safetensors", None, Limit(energy=0.9))
    assert done.target.naming == "peft" and done.target.path.name == "a-e0.9.safetensors"
    assert done.relative <= (1 - 0.9) ** 0.5


def test_the_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (str(saved(tmp_path / f"{n}.safetensors", state(SD15, seed=ord(n)))) for n in "ab")
    assert main(["merge", f"{a}:0.5", b, "--out", str(tmp_path / "ab.safetensors")]) == 0
    assert "of the Frobenius norm" in capsys.readouterr().out
    assert main(["resize", str(tmp_path / "ab.safetensors"), "--rank", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["target"]["ranks"] == [3] and 0 < told["relative_error"] < 1
    assert (tmp_path / "ab-r3.safetensors").is_file()
    assert main(["merge", f"{a}:0.5", "--out", str(tmp_path / "c.safetensors")]) == 2


def test_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the panel starts: into one file, and into a base; never over a file that is there."""
    monkeypatch.setenv("PILOT_LOCKS", str(tmp_path / "locks"))
    place = Workspace(tmp_path / "workspace")
    place.loras.mkdir(parents=True)
    for name in "ab":
        saved(place.loras / f"{name}.safetensors", state(SD15, seed=ord(name)))
    parts = [{"lora": "a.safetensors", "strength": 0.5}, {"lora": str(place.loras / "b.safetensors")}]
    job = JobDir.create(place, "merge", {"loras": parts, "name": "ab", "rank": 3})
    assert job.title == "a + b into ab" and job.resource == "cpu"
    assert main(["run", str(job.path)]) == 0
    (event,) = [event for event in history(job.path / "events.jsonl") if event["kind"] == "merged"]
    assert event["file"] == str(place.loras / "ab.safetensors") and 0 < event["relative_error"] < 1
    again = JobDir.create(place, "merge", {"loras": parts, "name": "ab"})
    assert main(["run", str(again.path)]) == 2 and "exists already" in (again.job.reason if again.job else "")
    (place.models / "tiny").symlink_to(TINY)
    shapes = {"denoiser": {n: s for n, s in detect(TINY).shapes["denoiser"].items() if n.endswith("to_q")}}
    own = saved(place.loras / "own.safetensors", state(shapes))
    into = JobDir.create(place, "merge", {"loras": [{"lora": str(own)}], "base": "tiny", "name": "tiny-own"})
    assert main(["run", str(into.path)]) == 0 and detect(place.models / "tiny-own").family == "sd15"
    for wrong in ({"name": "../x"}, {"name": "x", "base": "tiny", "rank": 3}, {"name": "x", "loras": parts[:1]}):
        with pytest.raises(PilotError):
            JobDir.create(place, "merge", {"loras": parts, **wrong})
