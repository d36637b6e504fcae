"""Publishing a LoRA: what would be sent, whether it may be, and sending it. Used by the job and the verb `publish`.

No torch. Only what `package.contents` lists is sent, and each text and header is searched for secrets before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from trainpilot.errors import PilotError
from trainpilot.formats.edit import edit
from trainpilot.formats.identify import identify
from trainpilot.formats.package import Content, contents
from trainpilot.formats.release import Release
from trainpilot.models.detect import refuse_pickle
from trainpilot.models.hub import REPO
from trainpilot.models.hub_upload import Published, upload
from trainpilot.models.safetensors_header import read_header
from trainpilot.models.web import hub
from trainpilot.runs.secrets import redact
from trainpilot.workspace import Workspace

_TEXTS = (".md", ".toml", ".json", ".txt", ".yaml", ".yml")
_PRIVATE = re.compile(
    r"^\.|id_(rsa|dsa|ecdsa|ed25519)|\.(pem|key|p12|pfx|env|kdbx)$|token|secret|passw|credential", re.I
)
# Metadata that tells of the dataset: tags of the captions, names of folders.
OF_THE_DATA = ("ss_tag_frequency", "ss_dataset_dirs", "ss_reg_dataset_dirs")


@dataclass(frozen=True)
class Publication:
    """What would be sent, and where."""

    repo: str
    private: bool
    files: list[Content]
    warnings: list[str]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    def text(self) -> str:
        """Several lines for a terminal."""
        seen = "private: only you see it" if self.private else "PUBLIC: everybody sees it"
        lines = [f"{hub()}/{self.repo}  ({seen})"]
        lines += [f"  {file.size:>13,}  {file.name}" for file in self.files]
        lines.append(f"  {self.size:>13,}  bytes in {len(self.files)} files")
        return "\n".join(lines + [f"  note: {warning}" for warning in self.warnings])


@contextmanager
def prepared(
    workspace: Workspace,
    release: Release,
    repo: str,
    *,
    private: bool = True,
    without_tags: bool = False,
    include: Sequence[Path] = (),
) -> Iterator[Publication]:
    """What would be sent of a release, checked. Copies that it needs live as long as the context.

    without_tags: the captions' tags and the datasets' folder names are taken out of the file's metadata. include:
    further files. Raises PilotError for a secret, a file of a dataset, or a name that is no repository.
    """
    if not REPO.fullmatch(repo):
        raise PilotError("repo", repo, "owner/name, of letters, digits, - _ and .", "For example me/zorp-lora.")
    extra = [Content(path.name, _allowed(workspace, path)) for path in include]
    with TemporaryDirectory(prefix="publish-") as folder:
        if without_tags:
            release = _without_tags(release, Path(folder))
        files = contents(release, repo)
        taken = {file.name for file in files}
        doubled = [file.name for file in extra if file.name in taken]
        if doubled:
            raise PilotError("--include", ", ".join(doubled), "names that are not taken", "Rename the file.")
        files += extra
        for file in files:
            _search(file)
        yield Publication(repo, private, files, release.warnings)


def send(
    publication: Publication,
    token: str,
    *,
    update: bool = False,
    message: str = "",
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, str], None] = lambda done, name: None,
) -> Published:
    """Upload it, as `hub_upload.upload` does."""
    return upload(
        publication.files,
        publication.repo,
        token,
        private=publication.private,
        update=update,
        message=message or f"Upload {publication.repo.rpartition('/')[2]}",
        check=check,
        progress=progress,
    )


def _without_tags(release: Release, folder: Path) -> Release:
    def stripped(path: Path) -> Path:
        out = folder / path.name
        edit(path, dict.fromkeys(OF_THE_DATA), out)
        return out

    file = stripped(release.file)
    warnings = [text for text in release.warnings if "--without-tags" not in text]
    return replace(
        release, file=file, about=identify(file), others=[stripped(path) for path in release.others], warnings=warnings
    )


def _allowed(workspace: Workspace, path: Path) -> Path:
    """A further file, where it may leave this machine."""
    real = path.expanduser().resolve()
    if not real.is_file():
        raise PilotError("--include", path, "an existing file", "Check the path.")
    refuse_pickle(real)
    for place, what in ((workspace.datasets, "a dataset"), (workspace.root / "config", "the configuration")):
        if real.is_relative_to(place.resolve()):
            given = f"{path}, a file of {what}"
            raise PilotError("--include", given, "files that are yours to give away", "Leave it out.")
    if _PRIVATE.search(real.name):
        raise PilotError("--include", f"{path}, by its name a secret", "files without secrets", "Leave it out.")
    return real


def _search(file: Content) -> None:
    """PilotError where a text, or a header's metadata, holds what looks like a secret."""
    if isinstance(file.source, Path) and file.source.suffix == ".safetensors":
        texts = list(read_header(file.source).metadata.values())
    elif Path(file.name).suffix.lower() in _TEXTS:
        texts = [b"".join(file.blocks()).decode("utf-8", "replace")]
    else:
        return
    for text in texts:
        if redact(text) != text:
            remedy = "Take it out (trainpilot metadata --set, or the run's comment and description), then try again."
            raise PilotError(file.name, "something that looks like a token or a password", "no secrets", remedy)
