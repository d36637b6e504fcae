"""The folders of the FLUX identity guide in a workspace. Made whenever a workspace is seeded."""

from __future__ import annotations

from trainpilot import profiles
from trainpilot.guides.flux_identity import PROFILES
from trainpilot.workspace import Workspace

GUIDE = "lora_training"
FOLDERS = ("data/subject", "configs", "scripts", "output", "logs", "docs")


def grow(workspace: Workspace) -> None:
    """Make the folders, and our profiles as the guide's configurations where there are none of that name."""
    root = workspace.root / GUIDE
    for name in FOLDERS:
        (root / name).mkdir(parents=True, exist_ok=True)
    known = profiles.profiles(workspace)
    for name in PROFILES.values():
        target = root / "configs" / f"{name}.toml"
        if name in known and not target.exists():
            with target.open("x", encoding="utf-8") as file:
                file.write(known[name].read_text("utf-8"))
