"""What a server's refusal means, and what a person does about it: 401, 403, 404 told apart. Used by the downloads."""

from __future__ import annotations

from urllib.parse import urlsplit

from trainpilot.errors import PilotError, RunFailed
from trainpilot.models.web import CIVITAI, Answer, hub, shown

SAVE_TOKEN = "Save a token on the Models page (or set {name} where the pod starts), then resume."


def refusal(answer: Answer) -> PilotError:
    """The error for a status that is no file. The Hub says more than the status in its own headers."""
    place, status = shown(answer.url), answer.status
    code = {**answer.linked, **answer.headers}.get("X-Error-Code", "")
    on_hub = answer.host == urlsplit(hub()).hostname
    name = "HF_TOKEN" if on_hub else "CIVITAI_TOKEN" if answer.host == urlsplit(CIVITAI).hostname else ""
    if code == "GatedRepo" or (status == 403 and on_hub):
        page = licence_page(answer.url)
        remedy = f"Open {page} while logged in, accept the licence, and resume. "
        remedy += "The token must be of that account, and allowed to read gated repositories."
        if status == 401:
            remedy = f"Open {page}, log in and accept the licence. {SAVE_TOKEN.format(name='HF_TOKEN')}"
        return PilotError(
            place, f"{status}: a gated model, whose licence this account has not accepted", "access", remedy
        )
    if status == 401 and code == "RepoNotFound":
        # The Hub answers like this, too, where a repository is private: it does not tell which exist.
        remedy = f"Check the name. If it is private: {SAVE_TOKEN.format(name='HF_TOKEN')}"
        return PilotError(place, "401: no such repository, or a private one", "a repository that exists", remedy)
    if status == 401:
        remedy = SAVE_TOKEN.format(name=name) if name else "Use a source that needs no login."
        given = "401: the server wants a login, or does not know the token"
        return PilotError(place, given, "a valid token", remedy)
    if status == 403:
        remedy = "Look at the file's page in a browser: it may be for members, or not for your country."
        return PilotError(place, "403: the server refuses this file to us", "a file we may read", remedy)
    if status in (404, 410):
        what = {
            "RepoNotFound": "there is no such repository",
            "RevisionNotFound": "the repository has no such revision",
            "EntryNotFound": "the repository has no such file",
        }.get(code, "there is no such file")
        return PilotError(place, f"{status}: {what}", "an address that exists", "Check the address; it may have moved.")
    if status == 451:
        return PilotError(place, "451: withheld for legal reasons", "a file that is offered", "Use another source.")
    if status >= 500:
        return RunFailed(place, f"{status}: the server has trouble", "200", "Try again later; what arrived is kept.")
    return PilotError(place, f"status {status}", "200", "Open the address in a browser to see what it says.")


def licence_page(url: str) -> str:
    """The page of the repository that a Hub URL belongs to, where its licence is accepted."""
    parts = urlsplit(url)
    words = [word for word in parts.path.split("/") if word]
    if words[:2] == ["api", "models"]:
        words = words[2:]
    return f"{parts.scheme}://{parts.netloc}/{'/'.join(words[:2])}"
