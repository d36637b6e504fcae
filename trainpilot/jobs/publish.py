"""The job `publish`: a finished LoRA with its card, samples and settings to the Hugging Face Hub.

Run by the courier, which hands over the token. It reads only what lies in outputs/ and models/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trainpilot.errors import PilotError
from trainpilot.runs.secrets import taken

if TYPE_CHECKING:
    from trainpilot.runs.jobdir import JobDir, Resource
    from trainpilot.runs.progress import Progress
    from trainpilot.runs.stop import StopFlag

KIND = "publish"
LABEL = "Publish"
RESOURCE: Resource = "net"


class Params(BaseModel):
    """What is published, where, and what its card says."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    lora: str = Field(min_length=1, max_length=1000, description="Run by name, or a LoRA file in models/ or outputs/")
    repo: str = Field(description="Repository of the Hugging Face Hub, owner/name")
    private: bool = Field(True, description="Only you see it")
    update: bool = Field(False, description="Add a commit where the repository exists already")
    base_repo: str = Field("", max_length=200, description="The base's repository, for the card; none: what is known")
    licence: str = Field("", max_length=200, description="Licence of the LoRA; none: the file's, else the base's")
    trigger: str = Field("", max_length=200, description="Trigger word; none: the file's")
    samples: bool = Field(True, description="Send the last sample pictures")
    without_tags: bool = Field(False, description="Leave the captions' tags out of the file's metadata")
    message: str = Field("", max_length=200, description="The commit's message")

    @field_validator("repo", "base_repo")
    @classmethod
    def _owner_and_name(cls, given: str) -> str:
        from trainpilot.models.hub import REPO

        if given and not REPO.fullmatch(given):
            raise ValueError("owner/name, as in the repository's address")
        return given


def title(params: Params) -> str:
    return f"{params.lora} to {params.repo}"


def run(job: JobDir, params: Params, progress: Progress, stop: StopFlag) -> str:
    from trainpilot.formats.publication import prepared, send
    from trainpilot.formats.release import gather

    token = taken().get("HF_TOKEN", "")
    job.state.write("look", force=True)
    release = gather(
        job.workspace,
        params.lora,
        base_repo=params.base_repo,
        licence=params.licence,
        trigger=params.trigger,
        samples=params.samples,
    )
    places = (job.workspace.outputs.resolve(), job.workspace.models.resolve())
    if not any(release.file.is_relative_to(place) for place in places):
        raise PilotError("publish.lora", release.file, "a file in outputs/ or models/", "Copy it into models/loras.")
    with prepared(
        job.workspace, release, params.repo, private=params.private, without_tags=params.without_tags
    ) as publication:
        progress.say(publication.text())
        for warning in publication.warnings:
            job.events.append("warning", text=warning)
        progress.phase("upload (MB)", of=max(1, publication.size // 1_000_000))

        def on_progress(done: int, name: str) -> None:
            progress.update(done // 1_000_000)
            job.state.write("upload", done, publication.size, unit="bytes", file=name, force=True)

        done = send(
            publication,
            token,
            update=params.update,
            message=params.message,
            check=stop.check,
            progress=on_progress,
        )
    job.events.append("published", url=done.url, commit=done.commit, private=params.private, created=done.created)
    seen = "private" if params.private else "public"
    return f"{done.url} ({seen}, commit {done.commit[:12]})"
