"""A run on a terminal, live: how far it is, its loss, its pictures, its GPU. Used by `trainpilot watch`.

It reads the run's files and nothing else, so it shows any run, whoever started it, and closing it stops nothing.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from trainpilot.runs import events, segments
from trainpilot.runs.job import Job
from trainpilot.runs.progress import duration
from trainpilot.runs.state import read_state

PERIOD = 0.5  # seconds between two looks
LINE_PERIOD = 5.0  # seconds between two lines where there is no terminal
_KEPT = 20_000  # steps of the loss line
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOTICES = 4


class Dashboard:
    """What is known of one run, and how it looks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._cursor = segments.START
        self._losses: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        self._step: dict[str, Any] = {}
        self._samples: deque[str] = deque(maxlen=3)
        self._notices: deque[str] = deque(maxlen=_NOTICES)
        self._checkpoint = ""

    @property
    def job(self) -> Job | None:
        return Job.read(self.folder)

    def look(self) -> None:
        """Take in what the run has written since the last look."""
        while True:
            found, cursor = events.read(self.folder / "events.jsonl", self._cursor)
            if cursor == self._cursor:
                return
            self._cursor = cursor
            for event in found:
                self._take(event)

    def _take(self, event: dict[str, Any]) -> None:
        match event.get("kind"):
            case "start":  # a new attempt does the steps after its checkpoint again
                begun = event.get("from_step", 1)
                while self._losses and self._losses[-1][0] >= begun:
                    self._losses.pop()
            case "step":
                self._step = event
                if isinstance(loss := event.get("loss_avg"), (int, float)):
                    self._losses.append((event["step"], loss))
            case "sample":
                self._samples.append(str(self.folder / "samples" / str(event.get("file", ""))))
            case "checkpoint":
                self._checkpoint = str(self.folder / "checkpoints" / str(event.get("folder", "")))
            case "warning" | "notice":
                self._notices.append(str(event.get("text", "")))

    def render(self, width: int) -> RenderableType:
        """The whole picture, `width` columns wide."""
        job, state = self.job, read_state(self.folder / "state.json") or {}
        parts: list[RenderableType] = [self._progress(state, width)]
        parts.append(self._numbers())
        if self._losses:
            parts.append(self._loss_line(width - 4))
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim")
        facts.add_column(overflow="fold")
        for path in self._samples:
            facts.add_row("sample", path)
        if self._checkpoint:
            facts.add_row("checkpoint", self._checkpoint)
        for gpu in gpu_lines():
            facts.add_row("GPU", gpu)
        for text in self._notices:
            facts.add_row("notice", Text(text))
        parts.append(facts)
        status = job.view if job else "being made"
        return Panel(Group(*parts), title=f"{self.folder.name} · {status}", title_align="left", width=width)

    def _progress(self, state: dict[str, Any], width: int) -> RenderableType:
        step, of = int(state.get("step") or 0), int(state.get("of") or 0)
        line = Table.grid(padding=(0, 2))
        words = [str(state.get("phase", "waiting")), f"{step} of {of}" if of else ""]
        if of and step:
            words.append(f"{100 * step / of:.0f}%")
        if (left := state.get("eta")) is not None:
            words.append(f"{duration(float(left))} left")
        line.add_row(
            ProgressBar(total=max(of, 1), completed=step, width=max(10, min(40, width // 3))), "  ".join(words)
        )
        return line

    def _numbers(self) -> RenderableType:
        shown = [
            ("loss", "loss_avg", "{:.4f}"),
            ("rate", "lr", "{:.2e}"),
            ("it/s", "it_s", "{:.2f}"),
            ("images/s", "images_s", "{:.1f}"),
            ("gradient", "grad_norm", "{:.3f}"),
            ("VRAM", "vram_gb", "{:.1f} GB"),
        ]
        known = [
            f"{name} {form.format(value)}"
            for name, key, form in shown
            if isinstance(value := self._step.get(key), (int, float))
        ]
        return Text("   ".join(known) or "no step yet", style="bold" if known else "dim")

    def _loss_line(self, width: int) -> RenderableType:
        first, last = self._losses[0], self._losses[-1]
        line = sparkline([loss for _, loss in self._losses], max(10, width))
        ends = f"step {first[0]}: {first[1]:.4f}   step {last[0]}: {last[1]:.4f}   (averaged over 50 steps)"
        return Group(Text(line, style="cyan"), Text(ends, style="dim"))

    def line(self) -> str:
        """The state in one line, where there is no terminal."""
        state = read_state(self.folder / "state.json") or {}
        words = [str(state.get("phase", "waiting"))]
        if state.get("of"):
            words.append(f"{state.get('step')}/{state['of']}")
        if isinstance(loss := self._step.get("loss_avg"), (int, float)) and state.get("phase") == "train":
            words.append(f"loss {loss:.4f}")
        if state.get("eta") is not None:
            words.append(f"{duration(float(state['eta']))} left")
        return "  ".join(words)


def sparkline(values: list[float], width: int) -> str:
    """Means of equal shares of the values as block characters, from the least to the greatest."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(place * len(finite) / count) for place in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((mean - low) * scale)] for mean in means)


def gpu_lines() -> list[str]:
    """One line for each GPU: name, load, memory, heat; one that says why there is none."""
    import pynvml as nvml

    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return [f"none: {error}"]
    try:
        found = []
        for number in range(nvml.nvmlDeviceGetCount()):
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            load = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
            heat = nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            used = f"{memory.used / 1e9:.1f} of {memory.total / 1e9:.0f} GB"
            found.append(f"{nvml.nvmlDeviceGetName(handle)}  {load}%  {used}  {heat} °C")
        return found
    except nvml.NVMLError as error:
        return [f"cannot be read: {error}"]
    finally:
        nvml.nvmlShutdown()


def follow(folder: Path, console: Console, *, going: Callable[[], bool]) -> None:
    """Show the run until `going()` says that nothing more will come. Plain lines where there is no terminal."""
    board = Dashboard(folder)
    if not console.is_terminal:
        said = ""
        while True:
            more = going()
            board.look()
            if (line := board.line()) != said:
                console.print(line, markup=False, highlight=False)
                said = line
            if not more:
                return
            time.sleep(LINE_PERIOD)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            more = going()
            board.look()
            live.update(board.render(console.width), refresh=True)
            if not more:
                return
            time.sleep(PERIOD)
