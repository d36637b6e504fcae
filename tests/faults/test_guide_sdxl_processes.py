"""The SDXL guide's train_lora.py as two processes: the first makes the run, both train it, checkpoints as named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2] / "workspace-template"
CONFIG = f"""
[run]
name = "sdxl_guide"
[model]
base = "{TEMPLATE / "models" / "pilot-tiny"}"
[[datasets]]
path = "{TEMPLATE / "datasets" / "images" / "10_zorp"}"
[buckets]
resolution = 64
[training]
steps = 4
[saving]
every_steps = 2
keep = 1
[sampling]
evaluate_at_end = false
[precision]
mixed = "fp32"
"""

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(workspace: Path, config: str, *command: str) -> subprocess.CompletedProcess[str]:
    (workspace / "training").mkdir(parents=True)
    shutil.copy(TEMPLATE / "training" / "train_lora.py", workspace / "training")
    (workspace / "training_config.toml").write_text(config)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PILOT_")}
    environment |= {"OMP_NUM_THREADS": "1", "TMPDIR": str(workspace)}
    script = [*command, "training/train_lora.py", "--config", "training_config.toml"]
    return subprocess.run(
        script, cwd=workspace, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_train_one_run(tmp_path: Path) -> None:
    said = launch(tmp_path / "ws", CONFIG, *TORCHRUN)
    assert said.returncode == 0, said.stdout[-2000:] + said.stderr[-2000:]
    outputs = tmp_path / "ws" / "outputs"
    assert [path.parent.name for path in outputs.glob("*/run.toml")] == ["sdxl_guide"]
    assert json.loads((outputs / "sdxl_guide" / "job.json").read_text())["status"] == "done"
    # saving.keep = 1: the link of the checkpoint that is gone is gone with it.
    assert [path.name for path in sorted(outputs.glob("checkpoint-*"))] == ["checkpoint-4"]
    assert (outputs / "checkpoint-4" / "COMMITTED").is_file()


def test_both_end_where_the_first_finds_nothing_to_train_on(tmp_path: Path) -> None:
    said = launch(tmp_path / "ws", CONFIG.replace("10_zorp", "no_such_folder"), *TORCHRUN)
    assert said.returncode != 0
    assert "no_such_folder does not exist" in said.stdout + said.stderr
