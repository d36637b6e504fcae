"""Write requirements.lock: the exact version of every package that an installation brings, direct or not.

Run `.venv/bin/python scripts/lock.py` after changing a dependency in pyproject.toml, and commit the result.
scripts/setup.sh installs with it as a constraint. The image installs scripts/container/core.lock, the part of it that
runs, and tools.lock, for its second environment: JupyterLab and TensorBoard. torch is pinned here alone (its build, CPU
or CUDA, is setup.sh's choice); the CUDA packages that torch's CUDA build brings are left out, because torch pins those.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
CORE = ROOT / "scripts" / "container" / "core.lock"
TOOLS = ROOT / "scripts" / "container" / "tools.txt"  # what is wanted; tools.lock beside it is what that brings
# The image's Python is Debian's, older than some releases ask for.
IMAGE_PYTHON = ("--python-version", "3.11.2", "--only-binary", ":all:", "--target", "unused")
CUDA = re.compile(r"^(nvidia-(?!ml-py)|cuda-|triton$)")
HEAD = """\
# Exact versions of everything scripts/setup.sh installs; made by `.venv/bin/python scripts/lock.py`.
# torch's CUDA packages are not listed: torch pins them itself.
"""
CORE_HEAD = (
    "# What of requirements.lock the image's trainer and panel need; made by `.venv/bin/python scripts/lock.py`.\n"
)
TOOLS_HEAD = "# Exact versions of the image's tools; made from tools.txt by `.venv/bin/python scripts/lock.py`.\n"
Metadata = dict[str, Any]  # of one package, as pip's report has it


def torch_pin() -> str:
    """The torch line of the present lock: changed by hand, because the family tests freeze what it computes."""
    found = re.search(r"^torch==\S+$", LOCK.read_text(), re.MULTILINE)
    if not found:
        sys.exit(f"{LOCK}: no line torch==VERSION; add the version to build the lock on")
    return found.group()


def resolve(*wanted: str) -> dict[str, Metadata]:
    """Ask pip what it would install into an empty environment: name -> its metadata."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), *wanted], check=True)
        installed = json.loads(report.read_text())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["metadata"] for item in installed}


def needed(name: str, extras: frozenset[str], known: dict[str, Metadata]) -> set[str]:
    """A package and everything it asks for, with these extras of it, directly or not."""
    found: set[str] = set()
    open_ = [(name, extras)]
    seen = set(open_)
    while open_:
        one, wanted = open_.pop()
        found.add(one)
        for line in known[one].get("requires_dist", []):
            asked = Requirement(line)
            if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                following = (canonicalize_name(asked.name), frozenset(asked.extras))
                if following not in seen and following[0] in known:
                    seen.add(following)
                    open_.append(following)
    return found


def write(lock: Path, head: str, known: dict[str, Metadata]) -> None:
    """Versions without a build's local part (2.13.0+cpu)."""
    names = sorted(name for name in known if name != "lora-pilot" and not CUDA.match(name))
    lines = [f"{name}=={known[name]['version'].partition('+')[0]}\n" for name in names]
    beside = lock.with_suffix(".lock.new")
    beside.write_text(head + "".join(lines))
    beside.replace(lock)
    print(f"{lock.name}: {len(lines)} packages")


def main() -> None:
    every = resolve(torch_pin(), "-e", f"{ROOT}[train,panel,caption,evaluate,dev]")
    write(LOCK, HEAD, every)
    runs = needed("lora-pilot", frozenset({"train", "panel", "caption", "evaluate"}), every) - {"torch"}
    write(CORE, CORE_HEAD, {name: every[name] for name in runs})
    write(TOOLS.with_suffix(".lock"), TOOLS_HEAD, resolve(*IMAGE_PYTHON, "-r", str(TOOLS)))


if __name__ == "__main__":
    main()
