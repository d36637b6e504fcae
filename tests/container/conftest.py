"""The engine, the base and the image, made once for all tests of this folder; what has not changed is used again.

PILOT_CONTAINER=cpu builds on the CPU build of torch, for quicker turns; else it is the image that is shipped.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrors import mirror
from pods import DOCKER, LABEL, ROOT, Pod, docker

BUILD_SECONDS = 1500  # 150 on two free cores


KIND = "cpu" if os.environ.get("PILOT_CONTAINER") == "cpu" else "cuda"


def build(tag: str, **arguments: str) -> str:
    """The image's name, built from the working tree with these build arguments more. Skips where no engine can be had.

    Two test processes make it once: the second finds everything done.
    """
    with (Path(tempfile.gettempdir()) / "pilot-container-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        engine = subprocess.run(["bash", str(ROOT / "scripts/container/engine.sh")], capture_output=True, text=True)
        if engine.returncode == 3:
            pytest.skip(engine.stdout.strip())
        assert engine.returncode == 0, engine.stdout + engine.stderr
        words = ["bash", str(ROOT / "scripts/container/base.sh"), *(["cpu"] if KIND == "cpu" else [])]
        base = subprocess.run(words, capture_output=True, text=True, timeout=BUILD_SECONDS)
        assert base.returncode == 0, base.stderr
        torch = "torch==2.13.0" if KIND == "cpu" else "torch===2.13.0"
        given = {"BASE_IMAGE": base.stdout.strip(), "TORCH": torch, "REVISION": "of-the-tests"} | arguments
        built = subprocess.run(
            [DOCKER, "build", "--progress=plain", "--tag", tag]
            + [word for key, value in given.items() for word in ("--build-arg", f"{key}={value}")]
            + ["."],
            cwd=ROOT,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        assert built.returncode == 0, built.stderr[-6000:]
    return tag


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The name of the image, built from the working tree."""
    yield build(f"lora-pilot:test-{KIND}")
    left = docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={os.getpid()}", check=False).stdout.split()
    if left:
        docker("rm", "--force", "--volumes", *left, check=False)


@pytest.fixture(scope="session")
def full_image(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image with Kohya SS in it, from a mirror that has a stand-in for its repository."""
    with mirror(tmp_path_factory.mktemp("mirror")) as address:
        yield build(f"lora-pilot:test-full-{KIND}", SERVICES="kohya", GIT_MIRROR=address)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Path]:
    """A folder of root's that becomes /workspace, as an engine makes it."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    # Files of several users: pytest's own cleaning would stop at the first that it may not remove.
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=False)


@pytest.fixture(scope="module")
def pod(image: str) -> Iterator[Pod]:
    """One healthy pod for the tests of a file that leave it as they find it."""
    with Pod(image) as made:
        yield made.healthy()
