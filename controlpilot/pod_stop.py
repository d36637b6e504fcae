"""How this pod is stopped, so that it costs nothing more: RunPod's API, Vast's API, or a command of the user's own.

The choice and the API keys lie 0600 in the secrets folder; the Settings page writes them for who repeats the password,
boot for keys that the provider put into the container's environment. The courier acts (controlpilot/idle.py says when);
everybody else is told what is chosen and where a key comes from, never a key.

Both APIs were tried against a local server only:
- RunPod: POST https://rest.runpod.io/v1/pods/ID/stop with the key as bearer. The pod knows its ID as RUNPOD_POD_ID.
- Vast: PUT https://console.vast.ai/api/v0/instances/ID/ with {"state": "stopped"}; ID is CONTAINER_ID, and Vast gives
  each instance a key of its own, CONTAINER_API_KEY.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from controlpilot.auth import secret_files
from trainpilot.errors import PilotError
from trainpilot.runs.secrets import redact, without_tokens

FILE = "pod_stop.json"
Action = Literal["none", "runpod", "vast", "command"]
LABELS: dict[Action, str] = {
    "none": "Nothing: say that it keeps costing",
    "runpod": "RunPod stops it",
    "vast": "Vast stops it",
    "command": "A command of mine stops it",
}
HOSTS: dict[str, str] = {"runpod": "https://rest.runpod.io/v1", "vast": "https://console.vast.ai/api/v0"}
# Where a provider puts the pod's own name and key, the first that is set.
IDS = {"runpod": ("RUNPOD_POD_ID",), "vast": ("CONTAINER_ID", "VAST_CONTAINERLABEL")}
KEYS = {"runpod": ("RUNPOD_API_KEY",), "vast": ("CONTAINER_API_KEY", "VAST_API_KEY")}
TIMEOUT = 20.0  # seconds for an answer
COMMAND_TIMEOUT = 120.0
MOST_WORDS, LONGEST_WORD = 50, 1000
LARGEST_ANSWER = 64 << 10
_POD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_KEY = re.compile(r"[\x21-\x7e]{8,500}")


class NotStopped(PilotError):
    """The pod goes on; the message says why and holds no secret."""


@dataclass(frozen=True)
class Choice:
    """What stops the pod. pod: its ID at the provider, "" where that is not known; key: where it comes from, never the
    key; ready: "" or what is missing, in words."""

    action: Action
    pod: str
    key: Literal["saved", "environment", ""]
    command: tuple[str, ...]
    ready: str


class PodStop:
    """hosts: the addresses of the APIs, without a final slash; tests put a local server there."""

    def __init__(
        self, secrets: Path, environment: Mapping[str, str] | None = None, hosts: Mapping[str, str] | None = None
    ) -> None:
        self._path = secrets / FILE
        self._environment = os.environ if environment is None else environment
        self._hosts = HOSTS if hosts is None else hosts

    def choice(self) -> Choice:
        """What is set now."""
        kept = self._kept()
        action = kept["action"]
        pod, (key, source) = self._pod(action, kept), self._key(action, kept)
        command = tuple(kept["command"])
        return Choice(action, pod, source, command, _missing(action, pod, bool(key), command))

    def save(self, action: Action, *, pod: str = "", key: str = "", command: Sequence[str] = ()) -> None:
        """Set what stops the pod. An empty pod or key leaves what is there. The caller has checked the password.

        Raises PilotError for what cannot be; the message does not repeat a key.
        """
        kept, pod, key = self._kept(), pod.strip(), key.strip()
        if action not in get_args(Action):
            raise PilotError("action", action[:20], ", ".join(get_args(Action)), "Choose one of these.")
        if pod and not _POD.fullmatch(pod):
            raise PilotError("pod", pod[:80], "letters, digits and -", "Copy the ID from the provider's page.")
        if key and not _KEY.fullmatch(key):
            given = "something that is no key"
            raise PilotError("API key", given, "8 to 500 characters without spaces", "Paste it again.")
        words = list(command)
        if action == "command":
            check_command(words)
        pods, keys = dict(kept["pods"]), dict(kept["keys"])
        if action in HOSTS and pod:
            pods[action] = pod
        if action in HOSTS and key:
            keys[action] = key
        words = words or kept["command"]
        self._write(kept | {"action": action, "pods": pods, "keys": keys, "command": words})

    def forget_key(self) -> None:
        """Forget the keys that a person saved; those that the container was given stay in effect."""
        self._write(self._kept() | {"keys": {}})

    def keep_given(self, environment: Mapping[str, str]) -> list[str]:
        """Take over keys from an environment that is about to lose them; the names of those that are new here. One that
        a person saved still goes before them."""
        kept = self._kept()
        given = {}
        for action, names in KEYS.items():
            name = next((one for one in names if _KEY.fullmatch(environment.get(one, ""))), None)
            if name is not None:
                given[action] = (name, environment[name])
        taken = [name for action, (name, key) in given.items() if kept["given"].get(action) != key]
        if taken:
            self._write(kept | {"given": kept["given"] | {action: key for action, (_, key) in given.items()}})
        return taken

    def act(self) -> str:
        """Stop the pod; what answered, in words. Raises NotStopped. Takes as long as the other side, within limits."""
        kept, choice = self._kept(), self.choice()
        if choice.ready or choice.action == "none":
            remedy = "Set it on the Settings page."
            raise NotStopped("stopping the pod", choice.ready or "nothing is set", "an action that is set up", remedy)
        if choice.action == "command":
            return _run(choice.command, self._environment)
        key, _ = self._key(choice.action, kept)
        if choice.action == "runpod":
            request = urllib.request.Request(f"{self._hosts['runpod']}/pods/{choice.pod}/stop", method="POST", data=b"")
        else:
            address = f"{self._hosts['vast']}/instances/{choice.pod}/"
            request = urllib.request.Request(address, method="PUT", data=json.dumps({"state": "stopped"}).encode())
        request.add_header("Authorization", f"Bearer {key}")
        request.add_header("Content-Type", "application/json")
        request.add_header("Accept", "application/json")
        request.add_header("User-Agent", "lora-pilot")
        said = _ask(choice.action, request)
        if choice.action == "vast" and said.get("success") is False:
            text = redact(str(said.get("msg") or said.get("error") or "it refused"))[:200]
            raise NotStopped("Vast", text, "success", "Look at the instance on Vast's page.")
        return f"{_NAMES[choice.action]} took the request"

    def _pod(self, action: Action, kept: Mapping[str, Any]) -> str:
        if action not in HOSTS:
            return ""
        given = kept["pods"].get(action) or next(filter(None, (self._environment.get(n) for n in IDS[action])), "")
        given = given.removeprefix("C.")  # as in VAST_CONTAINERLABEL
        return given if _POD.fullmatch(given) else ""

    def _key(self, action: Action, kept: Mapping[str, Any]) -> tuple[str, Literal["saved", "environment", ""]]:
        if action not in HOSTS:
            return "", ""
        if saved := kept["keys"].get(action):
            return saved, "saved"
        given = kept["given"].get(action) or next(filter(None, (self._environment.get(n) for n in KEYS[action])), "")
        return (given, "environment") if _KEY.fullmatch(given) else ("", "")

    def _write(self, kept: Mapping[str, Any]) -> None:
        secret_files.write_json(self._path, {"schema": 1, **kept})

    def _kept(self) -> dict[str, Any]:
        """The file with every part of it of the right kind; parts that somebody broke by hand are as if not set."""
        found = secret_files.read_json(self._path) or {}
        action, command = found.get("action"), found.get("command")
        return {
            "action": action if action in get_args(Action) else "none",
            "pods": _texts(found.get("pods")),
            "keys": _texts(found.get("keys")),  # that a person saved
            "given": _texts(found.get("given")),  # that the container was given
            "command": [str(word) for word in command] if isinstance(command, list) else [],
        }


_NAMES = {"runpod": "RunPod", "vast": "Vast"}


def _texts(value: Any) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


def _missing(action: Action, pod: str, key: bool, command: Sequence[str]) -> str:
    if action in HOSTS:
        needs = [] if pod else [f"the pod's ID ({' or '.join(IDS[action])} is not set here)"]
        needs += [] if key else ["an API key"]
        return f"{' and '.join(needs)} {'are' if len(needs) > 1 else 'is'} missing" if needs else ""
    return "the command is missing" if action == "command" and not command else ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _ask(action: str, request: urllib.request.Request) -> dict[str, Any]:
    """The JSON object that the API answers with; {} where it answers with something else. Raises NotStopped."""
    name = _NAMES[action]
    try:
        with urllib.request.build_opener(_NoRedirects).open(request, timeout=TIMEOUT) as answer:
            said = answer.read(LARGEST_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        remedies = {
            401: "Save a key on the Settings page that may stop pods.",
            403: "Save a key on the Settings page that may stop pods.",
            404: "Check the pod's ID on the Settings page.",
            429: "It is asked again.",
        }
        remedy = remedies.get(error.code, f"It is asked again; if that does not help, stop the pod on {name}'s page.")
        raise NotStopped(name, f"answered {error.code}", "an answer of 200", remedy) from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The reason of a URLError is an OSError; only its type is certain not to quote what was sent.
        kind = type(getattr(error, "reason", error)).__name__
        remedy = f"It is asked again; if that does not help, stop the pod on {name}'s page."
        raise NotStopped(name, f"could not be reached ({kind})", "an answer", remedy) from None
    try:
        value = json.loads(said)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


# --- a command of the user's own --------------------------------------------------------------------------------------


def check_command(words: Sequence[str]) -> None:
    """PilotError unless this may be run as the panel's user: a program by its whole path, and no file in it that
    somebody else could rewrite."""
    where, remedy = "command", "One argument a line; the first is the program's whole path. No shell reads it."
    if not 0 < len(words) <= MOST_WORDS or not all(0 < len(word) <= LONGEST_WORD for word in words):
        allowed = f"1 to {MOST_WORDS} arguments of at most {LONGEST_WORD} letters"
        raise PilotError(where, f"{len(words)} arguments", allowed, remedy)
    if any(not word.isprintable() for word in words):
        raise PilotError(where, "letters that cannot be printed", "printable text", remedy)
    program = Path(words[0])
    if not program.is_absolute() or not os.access(program, os.X_OK) or not program.is_file():
        raise PilotError(where, words[0][:200], "the whole path of a program", remedy)
    for word in words:
        if word.startswith("/") and (changeable := _changeable(Path(word))):
            given, allowed = f"{changeable} can be changed by others", "files of root or of the panel's user alone"
            mend = "Put it where only root writes, such as /usr/local/bin, or take the rights from others (chmod go-w)."
            raise PilotError(where, given, allowed, mend)


def _changeable(path: Path) -> Path | None:
    """The part of a path that another user could replace, on the way through links too; None where there is none."""
    real = path.resolve()
    for place in {*(path, *path.parents), *(real, *real.parents)}:
        try:
            found = place.lstat()
        except OSError:
            continue
        if stat.S_ISLNK(found.st_mode):
            if found.st_uid not in (0, os.geteuid()):
                return place
            continue
        sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & 0o022 and not sticky):
            return place
    return None


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run it to its end, without a shell, without our secrets. Raises NotStopped."""
    try:
        check_command(command)
    except PilotError as error:
        raise NotStopped(error.where, str(error.given), str(error.allowed), error.remedy) from error
    given = {name: value for name, value in without_tokens(environment).items() if name != "PILOT_SECRETS"}
    remedy = "Try it by hand, and correct it on the Settings page."
    try:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=given,
            cwd="/", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise NotStopped("command", f"cannot be started: {error.strerror}", "a program", remedy) from error
    try:
        said, _ = process.communicate(timeout=COMMAND_TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        given_ = f"did not end within {COMMAND_TIMEOUT:g} s and was killed"
        raise NotStopped("command", given_, "an end", remedy) from None
    lines = redact(said.decode(errors="replace")).strip().splitlines()
    last = f": {lines[-1][:200]}" if lines else ""
    if process.returncode:
        raise NotStopped("command", f"exit status {process.returncode}{last}", "exit status 0", remedy)
    return f"the command ended well{last}"
