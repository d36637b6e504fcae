"""What a repository of the Hugging Face Hub holds: files with size and hash, at one commit. Used by downloads."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote, urljoin

from trainpilot.errors import PilotError, RunFailed
from trainpilot.models.refusals import refusal
from trainpilot.models.web import Web, hub, shown

REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_MOST_PAGES = 100
_NEXT = re.compile(r'<([^>]+)>;\s*rel="next"')


@dataclass(frozen=True)
class HubFile:
    """path: inside the repository; sha256: of large files; git_sha1: of the others; url: of this very commit's file."""

    path: str
    size: int
    sha256: str | None
    git_sha1: str | None
    url: str


def listing(web: Web, repo: str, revision: str) -> tuple[str, list[HubFile]]:
    """(commit, files) of a repository. PilotError where it cannot be read, and why."""
    base = f"{hub()}/api/models/{repo}"
    about = _json(web, f"{base}/revision/{quote(revision, safe='')}")
    commit = str(about.get("sha") or "") if isinstance(about, dict) else ""
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise RunFailed(base, "an answer without a commit", "the Hub's answer", "Try again later.")
    url: str | None = f"{base}/tree/{commit}?recursive=true"
    found: list[HubFile] = []
    for _ in range(_MOST_PAGES):
        if url is None:
            break
        answer = web.get(url)
        if answer.status != 200:
            raise refusal(answer)
        found += [_file(repo, commit, entry) for entry in json.loads(answer.text()) if entry.get("type") == "file"]
        match = _NEXT.search(answer.headers.get("Link", ""))
        url = urljoin(url, match[1]) if match else None
    return commit, found


def chosen(files: Sequence[HubFile], patterns: Sequence[str], repo: str) -> list[HubFile]:
    """The files that any pattern names (`unet/*.json`, or exactly), in the repository's order; no pattern: all."""
    picked = [file for file in files if not patterns or any(fnmatchcase(file.path, pattern) for pattern in patterns)]
    missing = [p for p in patterns if not any(fnmatchcase(file.path, p) for file in files)]
    if missing or not picked:
        given = f"{repo} has no {', '.join(missing) or 'files'}"
        names = ", ".join(file.path for file in files[:20])
        raise PilotError("files", given, names or "nothing is there", "Choose from what the repository has.")
    return picked


def _file(repo: str, commit: str, entry: dict[str, Any]) -> HubFile:
    large = entry.get("lfs") or {}
    path = str(entry["path"])
    return HubFile(
        path=path,
        size=int(large.get("size", entry.get("size", 0))),
        sha256=str(large["oid"]) if large.get("oid") else None,
        git_sha1=None if large else str(entry.get("oid") or "") or None,
        url=f"{hub()}/{repo}/resolve/{commit}/{quote(path)}",
    )


def _json(web: Web, url: str) -> Any:
    answer = web.get(url)
    if answer.status != 200:
        raise refusal(answer)
    try:
        return json.loads(answer.text())
    except ValueError as error:
        raise RunFailed(shown(url), "an answer that is not JSON", "the Hub's answer", "Try again later.") from error
