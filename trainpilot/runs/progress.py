"""How a run shows where it is: a live bar on a terminal, plain lines everywhere else.

The verbs make one and hand it to the trainer. Everything shown is also in state.json and events.jsonl; nothing is
computed from what is printed here.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.text import Text

LINE_GAP = 5.0  # seconds between two plain lines of one phase
BAR_GAP = 0.1  # seconds between two changes of the bar
_WINDOW = 30.0  # seconds over which the speed is averaged


class Progress:
    """Shows phase, step, time left, loss, rate, speed and memory.

    out: where to show it (a terminal gets the bar); log: a further place for plain lines while the bar is shown.
    """

    def __init__(self, out: TextIO | None = None, log: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.console = Console(file=self.out)
        self._log = log
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._phase, self._step, self._of, self._from = "", 0, 0, 0
        self._times: deque[tuple[float, int]] = deque()
        self._begun = self._shown = self._lined = float("-inf")
        if self.console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
            )
            self._bar = Bar(
                *columns, console=self.console, redirect_stdout=False, redirect_stderr=False, transient=True
            )

    def phase(self, name: str, of: int = 0, done: int = 0) -> None:
        """Begin a phase of `of` units (0: unknown), `done` of which are there already, as after a resume."""
        self._finish_line()
        self._phase, self._step, self._of, self._from = name, done, of, done
        self._begun = time.monotonic()
        self._times.append((self._begun, done))
        self._shown = self._lined = float("-inf")
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._bar.start()
            self._task = self._bar.add_task(name, total=of or None, completed=done, facts="")
        if not of:
            self._line(name)

    def update(
        self,
        step: int,
        *,
        loss: float | None = None,
        rate: float | None = None,
        memory_gb: float | None = None,
        epoch: int | None = None,
    ) -> None:
        """`step` units of the phase are done. loss: averaged; rate: learning rate; memory_gb: on the device.

        Costs a comparison or two, unless it is time to show something.
        """
        now = time.monotonic()
        self._step = step
        last = self._of and step >= self._of
        if not last and now - self._shown < BAR_GAP:
            return
        self._shown = now
        self._times.append((now, step))
        while len(self._times) > 2 and now - self._times[1][0] > _WINDOW:
            self._times.popleft()
        facts = self._facts(loss, rate, memory_gb, epoch)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, facts=facts)
        if step > self._from and (last or now - self._lined >= LINE_GAP):
            self._lined = now
            of = f"/{self._of}" if self._of else ""
            self._line(f"{self._phase} {step}{of}  {facts}")

    @property
    def speed(self) -> float | None:
        """Units a second over the last half minute; None before two measurements."""
        if not self._times:
            return None
        (first, begun), (last, reached) = self._times[0], self._times[-1]
        return (reached - begun) / (last - first) if last > first and reached > begun else None

    @property
    def eta(self) -> float | None:
        """Seconds left in this phase; None while unknown."""
        speed = self.speed
        return (self._of - self._step) / speed if speed and self._of else None

    def say(self, text: str) -> None:
        """A line of its own, above the bar."""
        if self._bar is not None:
            self.above(text)
        self._line(text)

    def above(self, text: str) -> None:
        """A line above the bar alone: what others print while the bar is shown."""
        self.console.print(Text.from_ansi(text))

    def close(self) -> None:
        """Take the bar away. The object may be used again after it."""
        self._finish_line()
        if self._bar is not None:
            self._bar.stop()

    def _finish_line(self) -> None:
        """The last state of a phase that ended between two lines is worth a line."""
        if self._times and self._times[-1][1] > 0 and self._lined < self._shown:
            of = f"/{self._of}" if self._of else ""
            self._line(f"{self._phase} {self._times[-1][1]}{of}")
            self._lined = self._shown
        if self._bar is not None and self._phase and self._times:
            seconds = duration(time.monotonic() - self._begun)
            self.above(f"{self._phase} {f'{self._step} ' if self._step else ''}in {seconds}")
        self._times.clear()

    def _line(self, text: str) -> None:
        place = self._log if self._bar is not None else self.out
        if place is not None:
            place.write(text.rstrip() + "\n")
            place.flush()

    def _facts(self, loss: float | None, rate: float | None, memory_gb: float | None, epoch: int | None) -> str:
        speed, eta = self.speed, self.eta
        facts = [
            f"epoch {epoch}" if epoch is not None else "",
            f"{duration(eta)} left" if eta is not None else "",
            f"loss {loss:.4f}" if loss is not None else "",
            f"rate {rate:.2e}" if rate is not None else "",
            "" if speed is None else f"{speed:.2f}/s" if speed >= 1 else f"{1 / speed:.2f} s each",
            f"{memory_gb:.1f} GB" if memory_gb is not None else "",
        ]
        return "  ".join(fact for fact in facts if fact)


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
