"""A mirror of GitHub for a build: one repository of our own, which stands in for Kohya SS. Used by conftest.py."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from pods import docker

PIN = "45088f04"  # of scripts/services/kohya.sh
PAGE = """\
import argparse, gradio
flags = argparse.ArgumentParser()
flags.add_argument("--listen")
flags.add_argument("--server_port", type=int)
flags.add_argument("--config")
for name in ("--headless", "--noverify", "--do_not_share", "--do_not_use_shell"):
    flags.add_argument(name, action="store_true")
given = flags.parse_args()
with gradio.Blocks(title="kohya stand-in") as page:
    gradio.Markdown("Gradio " + gradio.__version__)
page.launch(server_name=given.listen, server_port=given.server_port, share=False)
"""


@contextlib.contextmanager
def mirror(folder: Path) -> Iterator[str]:
    """Its address as a build on the engine's bridge reaches it, for GIT_MIRROR."""
    repository = folder / "bmaltais" / "kohya_ss.git"
    repository.mkdir(parents=True)
    (repository / "kohya_gui.py").write_text(PAGE)
    (repository / "requirements_linux.txt").write_text("gradio==6.17.3\n")  # Kohya's own pin
    who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main")
    for words in (("init", "-q"), ("add", "."), ("commit", "-qm", "a stand-in"), ("tag", PIN)):
        subprocess.run(["git", *who, *words], cwd=repository, check=True)
    bridge = docker("network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}").stdout.strip()
    command = ["git", "daemon", "--export-all", f"--base-path={folder}", f"--listen={bridge}", "--port=9418"]
    with subprocess.Popen([*command, "--reuseaddr"]) as daemon:
        time.sleep(0.5)
        assert daemon.poll() is None, "git daemon does not start"
        try:
            yield f"git://{bridge}/"
        finally:
            daemon.terminate()
