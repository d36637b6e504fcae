"""Files to a repository of the Hugging Face Hub: created private, large files first, then one commit. No torch.

huggingface_hub speaks the protocol (create, preupload, LFS, commit); its newer storage (Xet) is left off, because that
part is a binary of its own that can neither be stopped nor told where to connect. Used by the job and verb `publish`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from trainpilot.errors import PilotError, RunFailed
from trainpilot.models.hub import REPO
from trainpilot.models.web import hub, shown
from trainpilot.runs.secrets import redact

T = TypeVar("T")
LOOK = 0.1  # seconds between two looks whether to stop
_SAVE_TOKEN = "Save a token with write access on the Models page, or set HF_TOKEN, then try again."


class File(Protocol):
    """What is sent: `formats.package.Content`."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> Any: ...
    @property
    def size(self) -> int: ...


@dataclass(frozen=True)
class Published:
    """Where it is now. created: whether the repository is new."""

    url: str
    commit: str
    created: bool


def upload(
    files: Sequence[File],
    repo: str,
    token: str,
    *,
    private: bool = True,
    update: bool = False,
    message: str = "Upload a LoRA",
    check: Callable[[], None] = lambda: None,
    progress: Callable[[int, str], None] = lambda done, name: None,
) -> Published:
    """Send `files` to `repo` (owner/name) as one commit.

    update: an existing repository gets a commit; without it one that exists is refused. A public repository is never
    written to where `private` was asked for. check may raise to stop, within a second also in the middle of a file;
    nothing is visible in the repository before the commit. Raises PilotError where a person must act, RunFailed where
    a retry may help.
    """
    if not REPO.fullmatch(repo):
        raise PilotError("repo", repo, "owner/name, of letters, digits, - _ and .", "For example me/zorp-lora.")
    if not token:
        raise PilotError("HF_TOKEN", "no token", "a token with write access", _SAVE_TOKEN)
    api, add = _api(token)
    created = _ask(lambda: _create(api, repo, private, update), check, repo)
    additions = [add(path_in_repo=file.name, path_or_fileobj=file.source) for file in files]
    sent = 0
    for file, addition in zip(files, additions, strict=True):
        progress(sent, file.name)
        _ask(lambda one=addition: api.preupload_lfs_files(repo, additions=[one]), check, repo)  # type: ignore[misc]
        sent += file.size
    progress(sent, "commit")
    done = _ask(lambda: api.create_commit(repo, operations=additions, commit_message=message), check, repo)
    return Published(f"{hub()}/{repo}", str(done.oid), created)


def _api(token: str) -> tuple[Any, Any]:
    from huggingface_hub import CommitOperationAdd, HfApi, constants
    from huggingface_hub.utils import disable_progress_bars

    constants.HF_HUB_DISABLE_XET = True
    disable_progress_bars()
    return HfApi(endpoint=hub(), token=token, library_name="lora-pilot"), CommitOperationAdd


def _create(api: Any, repo: str, private: bool, update: bool) -> bool:
    """Whether the repository is new. PilotError where one is there that may not be written to."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.create_repo(repo, private=private, exist_ok=False)
        return True
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code != 409:
            raise
    if not update:
        remedy = "Choose another name, or allow a new commit to it (--update)."
        raise PilotError(f"{hub()}/{repo}", "409: this repository exists already", "a new repository", remedy)
    if private and not api.model_info(repo).private:
        given = "a public repository, and the LoRA was to stay private"
        raise PilotError(f"{hub()}/{repo}", given, "a private repository", "Make it private, or publish with --public.")
    return False


def _ask(work: Callable[[], T], check: Callable[[], None], repo: str) -> T:
    """`work` in a thread of its own, so that a stop need not wait for the network; its errors as ours."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(LOOK)
        check()
    if failure:
        raise _told(failure[0], repo)
    return result[0]


def _told(error: BaseException, repo: str) -> BaseException:
    """The library's error as one that says what a person does about it."""
    # HTTPError is that of the HTTP library it uses, whose name has changed before.
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # the library wraps what went wrong with one file
    place = f"{hub()}/{repo}"
    if isinstance(error, OfflineModeIsEnabled):
        return PilotError("HF_HUB_OFFLINE", "offline mode is on", "0, or not set", "Unset it to publish.")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return refused(error.response.status_code, place, str(error.server_message or ""))
    if isinstance(error, (HTTPError, OSError)):
        given = f"no connection: {redact(str(error))[:200]}"
        return RunFailed(shown(hub()), given, "an answer", "Check the network and try again; nothing is visible yet.")
    if isinstance(error, ValueError):
        given = f"an answer that is not understood: {redact(str(error))[:200]}"
        return RunFailed(place, given, "the Hub's answer", "Try again later.")
    return error


def refused(status: int, place: str, said: str) -> PilotError:
    """What a status means for somebody who wants to publish. said: the server's own words."""
    words = f" ({redact(said.strip())[:300]})" if said.strip() else ""
    if status == 401:
        return PilotError(place, f"401: the Hub does not know this token{words}", "a valid token", _SAVE_TOKEN)
    if status == 403:
        remedy = "Make a token with write access for this owner, or choose your own name before the slash."
        return PilotError(place, f"403: this token may not write there{words}", "a token that may write", remedy)
    if status == 404:
        given = f"404: there is no such owner or repository{words}"
        return PilotError(
            place, given, "your user name or an organisation of yours", "Check the name before the slash."
        )
    if status in (409, 412):
        given = f"{status}: the repository was changed meanwhile{words}"
        return RunFailed(place, given, "nobody else writing to it", "Try again.")
    if status == 413:
        return PilotError(place, f"413: too large{words}", "files that the Hub takes", "Publish fewer files.")
    if status == 429:
        return RunFailed(place, f"429: too many requests{words}", "fewer", "Wait some minutes and try again.")
    if status >= 500:
        return RunFailed(place, f"{status}: the Hub has trouble{words}", "200", "Try again later.")
    return PilotError(place, f"status {status}{words}", "200", "Read what the Hub says, and correct it.")
