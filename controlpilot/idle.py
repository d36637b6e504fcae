"""Stops a pod that nobody needs: when it has been idle for some minutes, or when all runs are done, after a countdown
that every page shows and anybody can cancel.

The courier's lookout calls `IdleStop.look` every few seconds with what it found (controlpilot/life.py). It writes
`jobs/idle.json` for the panel and takes requests from `jobs/idle/`: `stay` (cancel) and `stop` (when nothing works any
more). How a pod is stopped is controlpilot/pod_stop.py's. Times are taken on a clock that nobody can set.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from controlpilot.outbox import Outbox
from controlpilot.pod_stop import NotStopped, PodStop
from controlpilot.words import duration_text
from trainpilot.errors import PilotError
from trainpilot.runs.atomic import read_json, write_beside, write_json
from trainpilot.runs.process import Identity
from trainpilot.workspace import Workspace

FILE, REQUESTS = "idle.json", "idle"
Phase = Literal["off", "awake", "quiet", "waits", "countdown", "asking", "asked", "failed"]
Ask = Literal["stay", "stop"]


@dataclass(frozen=True)
class Times:
    """Seconds. accepted: after which a provider that took the request and did nothing is asked again."""

    countdown: float = 180.0
    last_words: float = 15.0  # for notifications, before the pod is stopped
    again: tuple[float, ...] = (15.0, 60.0, 300.0)
    accepted: float = 600.0


class IdleState(BaseModel):
    """What the panel shows. Times are unix seconds."""

    phase: Phase = "off"
    why: str = Field(default="", description="Why the pod is to be stopped, in words")
    at: float | None = Field(default=None, description="When it is stopped, or asked for again")
    quiet_since: float | None = Field(default=None, description="Since when nothing was going on")
    keeps: list[str] = Field(default_factory=list, description="What keeps the pod on, in words")
    error: str = Field(default="", description="Why the last try did not stop it")
    tries: int = 0
    wanted: str = Field(default="", description="What asked for a stop when all is done; empty: nothing did")
    live: bool = Field(default=False, description="Whether somebody watches; without that nothing is stopped")


@dataclass
class Life:
    """What goes on, in words. work: what must not be cut off; people: signs of somebody who is there."""

    work: Sequence[str] = ()
    people: Sequence[str] = ()


@dataclass(frozen=True)
class Wish:
    """What is set: minutes of idleness after which the pod is stopped, None for never."""

    minutes: int | None = None


@dataclass
class _Stop:
    """A stop on its way. at, again: on the steady clock."""

    why: str
    at: float
    by_wish: bool  # somebody wanted it when all is done: that they are still there is no reason against it
    tries: int = 0
    error: str = ""
    accepted: bool = False
    told: set[str] = field(default_factory=set)


class IdleStop:
    """steady: seconds that never jump; clock: unix seconds, for showing; tell: one line for the log."""

    def __init__(
        self,
        workspace: Workspace,
        pod: PodStop,
        outbox: Outbox,
        tell: Callable[[str], None],
        *,
        times: Times | None = None,
        steady: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = workspace.jobs / FILE
        self.requests = workspace.jobs / REQUESTS
        self.pod, self.outbox, self.tell = pod, outbox, tell
        self.times, self._steady, self._clock = times or Times(), steady, clock
        self.wanted = str((read_json(self.path) or {}).get("wanted") or "")
        self._sign = steady()  # when something last went on
        self._stop: _Stop | None = None

    def want(self, why: str) -> None:
        """Stop the pod when nothing works any more. why: in words, such as "run zorp is done"."""
        self.wanted = why

    def look(self, life: Life, wish: Wish) -> IdleState:
        """One look; takes as long as stopping a pod takes where it is time for that."""
        for do in self._asked():
            if do == "stay":
                if self._stop or self.wanted:
                    self.tell("somebody keeps the pod on")
                self.wanted, self._stop, self._sign = "", None, self._steady()
            else:
                self.want("somebody asked for it")
        now = self._steady()
        if life.work or life.people:
            self._sign = now
        choice = self.pod.choice()
        if choice.action == "none" or choice.ready:
            self._stop = None
        else:
            self._decide(life, wish, now)
            if self._stop is not None and now >= self._stop.at:
                self._act(self._stop, life)
        return self._say(life, wish, choice.action == "none" or bool(choice.ready))

    def _decide(self, life: Life, wish: Wish, now: float) -> None:
        """Begin a countdown, or end one that has lost its reason."""
        if self._stop is not None:
            against = [*life.work, *([] if self._stop.by_wish else life.people)]
            if against or (not self._stop.by_wish and wish.minutes is None):
                self.tell(f"the pod stays on: {against[0] if against else 'the idle stop was switched off'}")
                self._stop = None
            return
        if self.wanted and not life.work:
            why, by_wish = self.wanted, True
        elif wish.minutes is not None and now - self._sign >= wish.minutes * 60:
            why, by_wish = f"nothing was going on for {duration_text(wish.minutes * 60)}", False
        else:
            return
        self._stop = _Stop(why, now + self.times.countdown, by_wish)
        self.tell(f"the pod is stopped in {duration_text(self.times.countdown)}: {why}")

    def _act(self, stop: _Stop, life: Life) -> None:
        """Stop the pod; a failure is told and tried again."""
        if stop.accepted:
            self._failed(stop, "the request was taken, but this pod still runs")
            return
        stop.tries += 1
        self._say_phase(stop, life, "asking")
        if stop.tries == 1:
            self.outbox.put(f"pod stops {self._clock()}", "The pod stops now", f"Because {stop.why}.")
            self.outbox.flush(self.times.last_words)
        try:
            said = self.pod.act()
        except NotStopped as error:
            self._failed(stop, f"{error.where}: {error.given}. {error.remedy}")
            return
        stop.accepted, stop.error, stop.at = True, "", self._steady() + self.times.accepted
        self.tell(f"the pod is asked to stop: {said}")

    def _failed(self, stop: _Stop, error: str) -> None:
        wait = self.times.again[min(stop.tries, len(self.times.again)) - 1]
        stop.accepted, stop.error, stop.at = False, error, self._steady() + wait
        self.tell(f"the pod could not be stopped, another try in {wait:g} s: {error}")
        if error not in stop.told:
            stop.told.add(error)
            text = f"{error}\nIt is tried again, and costs on until then. Why it should stop: {stop.why}."
            self.outbox.put(f"pod not stopped {error}", "The pod could not be stopped", text)

    # -- what others read and write ---------------------------------------------------------------------------------

    def _asked(self) -> list[Ask]:
        found: list[Ask] = []
        both: tuple[Ask, ...] = ("stop", "stay")
        for do in both:  # who wants it to stay comes last and wins
            path = self.requests / do
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            found.append(do)
        return found

    def _say(self, life: Life, wish: Wish, off: bool) -> IdleState:
        stop = self._stop
        if stop is not None:
            phase: Phase = "asked" if stop.accepted else "failed" if stop.error else "countdown"
            return self._say_phase(stop, life, phase)
        if off or (wish.minutes is None and not self.wanted):
            phase = "off"
        elif self.wanted:
            phase = "waits"
        else:
            phase = "awake" if life.work or life.people else "quiet"
        return self._write(IdleState(phase=phase, keeps=self._keeps(life), at=self._at(wish, phase)))

    def _say_phase(self, stop: _Stop, life: Life, phase: Phase) -> IdleState:
        at = self._clock() + stop.at - self._steady()
        state = IdleState(phase=phase, why=stop.why, at=at, error=stop.error, tries=stop.tries, keeps=self._keeps(life))
        return self._write(state)

    def _at(self, wish: Wish, phase: Phase) -> float | None:
        """When the countdown of a quiet pod would begin."""
        if phase != "quiet" or wish.minutes is None:
            return None
        return self._clock() + self._sign + wish.minutes * 60 - self._steady()

    def _keeps(self, life: Life) -> list[str]:
        return [*life.work, *life.people]

    def _write(self, state: IdleState) -> IdleState:
        state.wanted, state.live = self.wanted, True
        if not state.keeps:
            state.quiet_since = self._clock() - (self._steady() - self._sign)
        about = {"schema": 1, **state.model_dump(), "process": Identity.own().as_dict()}
        self.requests.mkdir(parents=True, exist_ok=True)  # ours, so that what others put there can be taken away
        write_json(self.path, about, durable=False)
        return state


def read_idle(workspace: Workspace) -> IdleState:
    """What the lookout last said; `live` tells whether it still looks. A damaged file is as if there were none."""
    told = read_json(workspace.jobs / FILE) or {}
    watcher = Identity.parse(told.get("process"))
    known = {name: told[name] for name in IdleState.model_fields if name in told}
    try:
        state = IdleState.model_validate(known)
    except ValueError:
        return IdleState()
    state.live = watcher is not None and watcher.alive()
    return state


def ask(workspace: Workspace, do: Ask) -> None:
    """Ask for a `stop` when all is done, or to `stay`: cancels every stop that is on its way."""
    if do not in ("stay", "stop"):
        raise PilotError("pod", do, "stay, stop", "Choose one of these.")
    folder: Path = workspace.jobs / REQUESTS
    folder.mkdir(parents=True, exist_ok=True)
    write_beside(folder / do, b"", durable=False)
