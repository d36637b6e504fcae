"""Publishing a LoRA on the Hugging Face Hub, as its page shows it: what can be said about it, and the jobs so far.

The upload is the courier's job `publish` (`trainpilot.jobs.publish`); here it is started and told. Used by
pages/publish.py.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from controlpilot.views import jobs
from controlpilot.views.jobs import JobRow
from controlpilot.views.models import lora
from controlpilot.views.refusals import Conflict
from trainpilot.errors import PilotError
from trainpilot.runs.jobdir import JobDir, read_job
from trainpilot.template import check_writable
from trainpilot.workspace import Workspace

KIND = "publish"


class Publication(BaseModel):
    """One job that publishes this LoRA. url: where it is, once it is there."""

    job: JobRow
    repo: str
    private: bool
    url: str = ""


def subject(workspace: Workspace, name: str) -> str:
    """What the job calls a LoRA: its run, whose samples and settings go with it, else its file."""
    return lora(workspace, name).run or f"models/loras/{name}"


def publications(workspace: Workspace, name: str) -> list[Publication]:
    """The jobs that publish a LoRA, the newest first. NotFound where there is no such LoRA."""
    known = {subject(workspace, name), f"models/loras/{name}"}
    found = []
    for row in jobs.listing(workspace, KIND).jobs:
        try:
            params = read_job(workspace.jobs / row.id).get("params", {})
        except PilotError:
            continue  # the list of jobs says what is wrong with it
        if params.get("lora") in known:
            address = row.reason.partition(" ")[0] if row.status == "done" else ""
            url = address if address.startswith(("https://", "http://")) else ""
            private = params.get("private", True) is True
            found.append(Publication(job=row, repo=str(params.get("repo", "")), private=private, url=url))
    return found


def publish(workspace: Workspace, name: str, params: dict[str, Any]) -> JobRow:
    """Start a job. Conflict while one is under way for this LoRA; PilotError names every wrong field."""
    check_writable(workspace)
    if any(one.job.status in jobs.LIVE for one in publications(workspace, name)):
        raise Conflict(f"LoRA {name}", "it is being published", "one upload at a time", "Wait, or cancel it.")
    made = JobDir.create(workspace, KIND, params | {"lora": subject(workspace, name)})
    return jobs.one(workspace, made.path.name)
