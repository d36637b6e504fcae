"""The courier's lookout: two threads, one that looks (watch.py, life.py, idle.py) and one that sends (outbox.py).

It lives in the courier because that is supervised and knows secrets; a panel that is killed takes nothing of it along.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from urllib.parse import quote

from controlpilot.auth import secret_files
from controlpilot.auth.hosts import FILE as HOSTS_FILE
from controlpilot.idle import IdleStop, Times, Wish
from controlpilot.life import LifeSigns
from controlpilot.outbox import Outbox
from controlpilot.pod_stop import PodStop
from controlpilot.run_jobs import RunJobs
from controlpilot.settings import PORT, Settings, bracketed
from controlpilot.supervisor import Supervisor
from controlpilot.views.settings import Preferences, preferences
from controlpilot.watch import SETTLE, End, Watch
from controlpilot.words import money_text
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json

EVERY = 3.0  # seconds between two looks
STOPS_POD = "stop_pod"  # in a run's meta.json: stop the pod when this run is done


class Lookout:
    """start() and stop() may be called again. every: seconds between two looks; tell: one line for the log."""

    def __init__(
        self,
        settings: Settings,
        tell: Callable[[str], None],
        *,
        every: float = EVERY,
        settle: float = SETTLE,
        times: Times | None = None,
        pod: PodStop | None = None,
    ) -> None:
        self._settings, self._tell, self._every = settings, tell, every
        workspace, secrets = settings.workspace, settings.secrets
        runs = RunJobs(workspace)
        supervisor = Supervisor(settings.supervisor) if settings.supervisor else None
        self.outbox = Outbox(secrets, tell)
        self.watch = Watch(
            workspace, secrets, self.outbox, runs, supervisor, settle=settle, link=lambda path: link_to(settings, path)
        )
        self.life = LifeSigns(workspace, secrets, runs)
        self.idle = IdleStop(workspace, pod or PodStop(secrets), self.outbox, tell, times=times)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._said: dict[str, str] = {}  # what is wrong now, by what was tried

    def start(self) -> None:
        """Begin to look and to send; nothing where it does already."""
        if self._threads:
            return
        self._stop.clear()
        self._threads = [
            threading.Thread(target=self._work, name="lookout", daemon=True),
            threading.Thread(target=self.outbox.work, args=(self._stop,), name="outbox", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End both. What is being sent at this moment is cut off with the process, and sent again by the next one."""
        self._stop.set()
        self.outbox.filled.set()
        for thread in self._threads:
            thread.join(timeout=0.2)
        self._threads = []

    def look(self) -> None:
        """One look at everything. Raises OSError where the workspace or the secrets folder cannot be used."""
        set_to = self._preferences()
        for end in self.watch.look(set_to, self._at_rest(set_to)):
            if end.status in ("done", "failed") and (set_to.stop_when_done or self._flagged(end)):
                self.idle.want(f"run {end.name} {'is done' if end.status == 'done' else 'failed'}")
        self.idle.look(self.life.look(), Wish(set_to.idle_minutes))

    def _at_rest(self, set_to: Preferences) -> str:
        """What a person should know of a pod at rest that nothing will stop."""
        choice = self.idle.pod.choice()
        stops = choice.action != "none" and not choice.ready and (set_to.idle_minutes or set_to.stop_when_done)
        if stops or self.idle.wanted or set_to.price_per_hour is None:
            return ""
        return f"Nothing else runs or waits, and this pod keeps costing {money_text(set_to.price_per_hour)} an hour."

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
                self._said.pop("look", None)
            except OSError as error:
                self._complain("look", f"the workspace cannot be read or written now: {error}")
            except Exception:  # noqa: BLE001 - it must go on; what broke is said, whole, once
                self._complain("look", f"this is a fault of ours:\n{traceback.format_exc()}")
            self._stop.wait(self._every)

    def _complain(self, tried: str, text: str) -> None:
        """Say what is wrong, once until it is another thing or well again."""
        if text != self._said.get(tried):
            self._said[tried] = text
            self._tell(f"lookout: {text}")

    def _preferences(self) -> Preferences:
        """What is set; the defaults, said once, where somebody broke the file by hand."""
        try:
            found = preferences(self._settings.workspace)
        except PilotError as error:
            self._complain("preferences", f"the defaults are used: {error.message}")
            return Preferences()
        self._said.pop("preferences", None)
        return found

    def _flagged(self, end: End) -> bool:
        about = read_json(self._settings.workspace.outputs / end.name / "meta.json") or {}
        return about.get(STOPS_POD) is True


def link_to(settings: Settings, path: str) -> str:
    """The public address of a page of the panel; "" where nothing tells how it is reached.

    From the settings where they name it, else the host at which somebody logged in last.
    """
    where = settings.prefix + quote(path)
    if settings.url_template or settings.public_host:
        return settings.origin_of("panel", PORT, settings.public_host or "localhost", False) + where
    learned = (secret_files.read_json(settings.secrets / HOSTS_FILE) or {}).get("hosts")
    if isinstance(learned, list) and learned:
        return f"http://{bracketed(str(learned[-1]))}:{settings.port}{where}"
    return f"http://localhost:{settings.port}{where}"
