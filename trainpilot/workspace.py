"""Where everything of a person's lives: one folder, the only meeting place of panel, worker, trainer and shell."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from trainpilot.errors import PilotError

LONGEST_PATH = 3000  # bytes; a system's limit is about 4096, and a folder comes before a relative one


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
        path = possible_path(given)
        if path.is_absolute():
            return path
        candidates = [place / path for place in (*places, self.root)] + [Path.cwd() / path]
        return next((candidate for candidate in candidates if candidate.exists()), candidates[0])


def possible_path(given: str | Path) -> Path:
    """A text as a path, ~ expanded. PilotError where it can be none: a zero byte, an unknown ~user, far too long."""
    shown = repr(str(given)[:100])
    try:
        path = Path(given).expanduser()
        os.lstat(path)
    except (ValueError, RuntimeError) as error:
        raise PilotError("path", f"{shown}: {error}", "a path", "Correct it.") from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise PilotError("path", f"{shown} ...: too long", "a path", "Shorten it.") from error
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise PilotError("path", f"{shown} ...: too long", f"at most {LONGEST_PATH} bytes", "Shorten it.")
    return path
