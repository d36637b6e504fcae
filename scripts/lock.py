"""Write requirements.lock: the exact version of every package that an installation brings, direct or not.

Run `.venv/bin/python scripts/lock.py` after changing a dependency in pyproject.toml, and commit the result.
scripts/setup.sh and the image install with it as a constraint; scripts/container/tools.lock is the same for the image's
second environment, JupyterLab and TensorBoard. torch is pinned here alone (its build, CPU or CUDA, is setup.sh's
choice); the CUDA packages that torch's CUDA build brings are left out, because torch pins those itself.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
TOOLS = ROOT / "scripts" / "container" / "tools.txt"  # what is wanted; tools.lock beside it is what that brings
CUDA = re.compile(r"^(nvidia-(?!ml-py)|cuda-|triton$)")
HEAD = """\
# Exact versions of everything scripts/setup.sh installs; made by `.venv/bin/python scripts/lock.py`.
# torch's CUDA packages are not listed: torch pins them itself.
"""
TOOLS_HEAD = "# Exact versions of the image's tools; made from tools.txt by `.venv/bin/python scripts/lock.py`.\n"


def torch_pin() -> str:
    """The torch line of the present lock: changed by hand, because the family tests freeze what it computes."""
    found = re.search(r"^torch==\S+$", LOCK.read_text(), re.MULTILINE)
    if not found:
        sys.exit(f"{LOCK}: no line torch==VERSION; add the version to build the lock on")
    return found.group()


def resolve(*wanted: str) -> dict[str, str]:
    """Ask pip what it would install into an empty environment, name -> version without a build's local part."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *wanted], check=True)
        installed = json.loads(report.read_text())["install"]
    found = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"] for item in installed
    }
    return {name: version.partition("+")[0] for name, version in found.items()}


def write(lock: Path, head: str, pinned: dict[str, str]) -> None:
    lines = [f"{name}=={pinned[name]}\n" for name in sorted(pinned) if name != "lora-pilot" and not CUDA.match(name)]
    beside = lock.with_suffix(".lock.new")
    beside.write_text(head + "".join(lines))
    beside.replace(lock)
    print(f"{lock.name}: {len(lines)} packages")


def main() -> None:
    write(LOCK, HEAD, resolve(torch_pin(), "-e", f"{ROOT}[train,panel,dev]"))
    write(TOOLS.with_suffix(".lock"), TOOLS_HEAD, resolve("-r", str(TOOLS)))


if __name__ == "__main__":
    main()
