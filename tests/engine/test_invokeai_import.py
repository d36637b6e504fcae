"""Full-shape LoRA files of every family, identified and loaded by InvokeAI, a consumer nobody here wrote.

Opt-in: `bash scripts/invokeai_venv.sh` makes the environment, PILOT_INVOKEAI names its folder.
The result is recorded in benchmarks/results/invokeai_import.json.
"""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from lora_states import state

from trainpilot.families.card import card, select
from trainpilot.formats import kohya
from trainpilot.formats.names import names
from trainpilot.formats.state import DOWN, UP, AdapterState, ModuleWeights

# Read when the module is loaded: a fixture takes the caller's PILOT_* variables away from the tests themselves.
FOLDER = os.environ.get("PILOT_INVOKEAI")
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "invokeai_import.json"
BASES = {"sd15": "sd-1", "sdxl": "sdxl", "flux": "flux"}
RANK, ALPHA = 4, 2.0

pytestmark = pytest.mark.invokeai


def full_shape(family: str) -> AdapterState:
    """A LoRA on everything Kohya covers: the denoiser's blocks and the CLIP encoders, in the full-size shapes."""
    about = card(family)
    shapes = about.shapes()
    chosen = {"denoiser": select(shapes["denoiser"], about.targets["kohya"])}
    for encoder in about.text_encoders:
        if encoder["trainable"]:
            chosen[encoder["component"]] = select(shapes[encoder["component"]], about.text_targets)
    wanted = {component: {name: shapes[component][name] for name in modules} for component, modules in chosen.items()}
    return state(wanted, RANK, ALPHA)


def expected(family: str, given: AdapterState) -> dict[str, tuple[float, float]]:
    """InvokeAI's name of each original matrix -> norm and sum of its change, from the adapter's factors."""
    table = names(family)
    found: dict[str, tuple[float, float]] = {}
    for component, modules in given.items():
        for module in modules:
            place = table.place(component, module)
            if module != place.parts[0]:
                continue
            rows = [_norm_and_sum(modules[part]) for part in place.parts]
            # InvokeAI has SDXL under diffusers' names, and everything else as the original has it.
            named = module.replace(".", "_") if family == "sdxl" and component == "denoiser" else place.name
            prefix = {"flux": "flux_" + component}.get(family, table.KOHYA[component])
            found[f"{prefix}_{named}"] = sum(norm**2 for norm, _ in rows) ** 0.5, sum(total for _, total in rows)
    return found


def _norm_and_sum(weights: ModuleWeights) -> tuple[float, float]:
    """Of s B A, without forming it: |B A|^2 = tr((B'B)(AA')), and the sum of all entries is (1'B)(A1)."""
    a, b = weights.tensors[DOWN].double().flatten(1), weights.tensors[UP].double().flatten(1)
    scale = weights.alpha / weights.rank
    norm = ((b.T @ b) * (a @ a.T)).sum().sqrt()
    return scale * float(norm), scale * float(b.sum(0) @ a.sum(1))


def plain(name: str) -> str:
    """InvokeAI writes FLUX layers as lora_transformer-double_blocks.0.img_attn.qkv and lora_clip-text_model...."""
    swapped = name.replace("lora_transformer-", "flux_denoiser_").replace("lora_clip-", "flux_text_encoder_")
    return swapped.replace(".", "_")


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not FOLDER:
        pytest.skip("opt-in: bash scripts/invokeai_venv.sh, then set PILOT_INVOKEAI to its folder")
    python = Path(FOLDER) / "bin" / "python"
    folder = tmp_path_factory.mktemp("loras")
    files = [folder / f"{family}.safetensors" for family in BASES]
    for family, file in zip(BASES, files, strict=True):
        version = card(family).ss_base_model_version
        kohya.write(file, family, full_shape(family), {"ss_base_model_version": version}, torch.float32)
    command = [python, Path(__file__).with_name("invokeai_probe.py"), *files]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"INVOKEAI_ROOT": str(folder)})
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("family", BASES)
def test_invokeai_identifies_and_loads_a_full_shape_lora(answer: dict[str, Any], family: str) -> None:
    found = answer["files"][family]
    assert (found["base"], found["type"], found["format"]) == (BASES[family], "lora", "lycoris")
    layers = {plain(name): layer for name, layer in found["layers"].items()}
    wanted = expected(family, full_shape(family))
    assert layers.keys() == wanted.keys()
    compared = 0
    for name, (norm, total) in wanted.items():
        assert layers[name]["scale"] == ALPHA / RANK
        if "norm" in layers[name]:
            compared += 1
            assert layers[name]["norm"] == pytest.approx(norm, rel=1e-4)
            assert layers[name]["sum"] == pytest.approx(total, rel=1e-3, abs=1e-3 * norm)
    assert compared >= len(wanted) // 10


def test_the_result_is_recorded(answer: dict[str, Any]) -> None:
    record = {
        "what": f"full-shape Kohya files of rank {RANK}, alpha {ALPHA}, fp32, identified and loaded by InvokeAI",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": answer["versions"],
        "files": {
            family: {key: found[key] for key in ("class", "base", "type", "format")} | {"layers": len(found["layers"])}
            for family, found in answer["files"].items()
        },
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    assert {family: entry["layers"] for family, entry in record["files"].items()} == {
        # denoiser + CLIP encoders, as tests/unit/test_names.py derives them
        "sd15": 192 + 72,
        "sdxl": 722 + 72 + 192,
        "flux": 304 + 72,
    }
