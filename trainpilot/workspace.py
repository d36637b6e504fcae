"""Where everything of a person's lives: one folder, the only meeting place of panel, worker, trainer and shell."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Workspace:
    """The workspace tree of `contracts.md`. Properties name folders; nothing is created before it is needed."""

    root: Path

    @classmethod
    def find(cls) -> Workspace:
        """`PILOT_WORKSPACE`, else `/workspace` where it exists (the pod), else `./workspace`."""
        given = os.environ.get("PILOT_WORKSPACE")
        if given:
            return cls(Path(given).expanduser().resolve())
        pod = Path("/workspace")
        return cls(pod if pod.is_dir() else Path("workspace").resolve())

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def loras(self) -> Path:
        return self.models / "loras"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def profiles(self) -> Path:
        return self.root / "config" / "profiles"

    @property
    def cache(self) -> Path:
        """Content-addressed and safe to delete; `PILOT_CACHE` moves it to a local disk."""
        given = os.environ.get("PILOT_CACHE")
        return Path(given).expanduser().resolve() if given else self.root / "cache"

    def locate(self, given: str | Path, *places: Path) -> Path:
        """An absolute path, or the first existing one of: each place, the workspace, the current folder.

        A path that exists nowhere is returned under the first place, so that the error names where it was expected.
        """
        path = Path(given).expanduser()
        if path.is_absolute():
            return path
        candidates = [place / path for place in (*places, self.root)] + [Path.cwd() / path]
        return next((candidate for candidate in candidates if candidate.exists()), candidates[0])
