"""What the machine does: GPU, CPU, memory, disk; sampled every two seconds by one thread, kept for a day.

`Telemetry.start` is called by whoever serves the panel; `now` and `history` are for pages and the API. A day costs the
same memory whatever happens: fine for a quarter of an hour, coarser before that. Nothing is written to disk.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from pydantic import BaseModel, Field

from controlpilot import limits

log = logging.getLogger(__name__)

EVERY = 2.0  # seconds between two samples
# (seconds a point stands for, points kept): 15 minutes, 2 hours, 24 hours.
TIERS = ((2.0, 450), (15.0, 480), (120.0, 720))
MOST_GPUS = 16
_MACHINE = ("cpu", "memory", "disk")
_OF_GPU = ("load", "memory", "temperature", "power")


class Gpu(BaseModel):
    """One GPU. What its driver does not tell is null."""

    uuid: str
    name: str
    load: float | None = Field(description="Share of the last interval in which it computed, 0 to 1")
    memory_used: int = Field(description="Bytes")
    memory_total: int
    temperature: float | None = Field(description="Degrees Celsius")
    power: float | None = Field(description="Watts")
    power_limit: float | None


class Sample(BaseModel):
    """One look at the machine, or at the part of it that this container may use."""

    t: float
    cpu: float = Field(description="Share of the allowed cores that is in use, 0 to 1")
    cores: float = Field(description="Cores that may be used")
    memory_used: int = Field(description="Bytes, without what the kernel gives back at need")
    memory_total: int = Field(description="Bytes that may be used")
    limited: bool = Field(description="Whether a container sets the limit of memory or CPU")
    disk_used: int = Field(description="Bytes on the workspace's disk")
    disk_free: int = Field(description="Bytes that can still be written there")
    disk_total: int
    gpus: list[Gpu]
    no_gpu: str = Field(description="Why there is no GPU; empty where there is one")


class History(BaseModel):
    """Lines over time. Keys of `lines`: cpu, memory, disk, and for each GPU gpu0.load, gpu0.memory, ...

    cpu and load are shares, memory and disk bytes, temperature in degrees, power in watts. Null: not told.
    """

    each: float = Field(description="Seconds between two points")
    t: list[float]
    lines: dict[str, list[float | None]]


class Ring:
    """The last points of one resolution: means over `each` seconds."""

    def __init__(self, each: float, points: int, columns: int) -> None:
        self.each, self.points = each, points
        self.times = np.zeros(points)
        self.values = np.full((points, columns), np.nan, np.float32)
        self.count = 0  # ever written
        self._slot: int | None = None
        self._sums = np.zeros(columns)
        self._seen = np.zeros(columns, np.int32)

    def add(self, t: float, row: np.ndarray) -> None:
        """Take a sample into the point of its time; a point is shown as soon as it has one."""
        slot = int(t // self.each)
        if slot != self._slot:
            self._slot = slot
            self._sums[:], self._seen[:] = 0, 0
            self.count += 1
        known = ~np.isnan(row)
        self._sums[known] += row[known]
        self._seen[known] += 1
        place = (self.count - 1) % self.points
        self.times[place] = slot * self.each
        with np.errstate(invalid="ignore"):
            self.values[place] = self._sums / self._seen

    def since(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Times and values of the points from `t` on, the oldest first."""
        kept = min(self.count, self.points)
        order = np.arange(self.count - kept, self.count) % self.points
        order = order[self.times[order] >= t]
        return self.times[order], self.values[order]


class Nvml:
    """The NVIDIA driver, asked through NVML. Opened once; one that fails later is opened again after a minute."""

    AGAIN = 60.0

    def __init__(self) -> None:
        self.why = ""
        self._handles: list[Any] = []
        self._next_try = 0.0

    def read(self) -> tuple[list[Gpu], str]:
        """The GPUs, and why there is none."""
        import pynvml as nvml

        try:
            if not self._handles:
                if time.monotonic() < self._next_try:
                    return [], self.why
                nvml.nvmlInit()
                self._handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
                if not self._handles:
                    return self._gone("the NVIDIA driver lists no GPU")
            return [self._gpu(nvml, handle) for handle in self._handles[:MOST_GPUS]], ""
        except nvml.NVMLError as error:
            absent = isinstance(error, nvml.NVMLError_LibraryNotFound)
            return self._gone("no NVIDIA driver" if absent else f"the NVIDIA driver answers: {error}")

    def _gone(self, why: str) -> tuple[list[Gpu], str]:
        if why != self.why:
            log.info("telemetry: %s", why)
        self.why, self._handles = why, []
        self._next_try = time.monotonic() + self.AGAIN
        return [], why

    @staticmethod
    def _gpu(nvml: Any, handle: Any) -> Gpu:
        def told(ask: Callable[[], float]) -> float | None:
            try:
                return ask()
            except nvml.NVMLError_NotSupported:
                return None  # a partitioned GPU tells no load, a virtual one no power

        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        name = nvml.nvmlDeviceGetName(handle)
        return Gpu(
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=name.removeprefix("NVIDIA "),
            load=told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100),
            memory_used=int(memory.used),
            memory_total=int(memory.total),
            temperature=told(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
            power=told(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            power_limit=told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
        )


class Telemetry:
    """The samples of one machine. Thread-safe. disk: a folder on the disk to watch."""

    def __init__(self, disk: Path, every: float = EVERY, clock: Callable[[], float] = time.time) -> None:
        self.disk, self.every, self.clock = disk, every, clock
        self._lock = threading.Lock()
        self._rings = [Ring(each, points, len(_MACHINE) + MOST_GPUS * len(_OF_GPU)) for each, points in TIERS]
        self._last: Sample | None = None
        self._gpus_seen = 0
        self._nvml = Nvml()
        self._memory = limits.memory_group()
        self._cpu = limits.cpu_group()
        self._cpu_before: tuple[float, float] | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to sample. A second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def now(self) -> Sample:
        """The newest sample; taken at once where the thread has none that is fresh."""
        with self._lock:
            last = self._last
        if last is None or not 0 <= self.clock() - last.t < 3 * self.every:
            return self.take()
        return last

    def history(self, seconds: float = 86400.0) -> History:
        """The lines of the last `seconds`, as fine as they are kept."""
        ring = next((one for one in self._rings if one.each * one.points >= seconds), self._rings[-1])
        with self._lock:
            times, values = ring.since(self.clock() - seconds)
            names = [*_MACHINE, *(f"gpu{n}.{key}" for n in range(self._gpus_seen) for key in _OF_GPU)]
        columns = {name: values[:, place] for place, name in enumerate(names)}
        return History(
            each=ring.each,
            t=times.tolist(),
            lines={
                name: [float(f"{v:.5g}") if np.isfinite(v) else None for v in line] for name, line in columns.items()
            },
        )

    def take(self) -> Sample:
        """Look at the machine now, and keep it."""
        sample = self._look()
        row = np.full(self._rings[0].values.shape[1], np.nan)
        row[: len(_MACHINE)] = sample.cpu, sample.memory_used, sample.disk_used
        for number, gpu in enumerate(sample.gpus):
            told = (gpu.load, gpu.memory_used, gpu.temperature, gpu.power)
            first = len(_MACHINE) + number * len(_OF_GPU)
            row[first : first + len(told)] = [np.nan if value is None else value for value in told]
        with self._lock:
            for ring in self._rings:
                ring.add(sample.t, row)
            self._last = sample
            self._gpus_seen = max(self._gpus_seen, len(sample.gpus))
        return sample

    def _work(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.take()
            except OSError as error:  # the disk of the workspace is away for a moment; the next look may find it
                log.warning("telemetry: %s", error)
            self._stop.wait(max(0.1, self.every - (time.monotonic() - began)))

    def _look(self) -> Sample:
        machine = psutil.virtual_memory()
        limit = self._memory.memory_limit() if self._memory else None
        used = self._memory.memory_used() if self._memory else None
        binds = limit is not None and used is not None and limit < machine.total
        # A fresh workspace may not exist yet; it will be made on the disk of the folder above.
        disk = shutil.disk_usage(next(place for place in (self.disk, *self.disk.parents) if place.exists()))
        gpus, no_gpu = self._nvml.read()
        cores = limits.cores_allowed(self._cpu)
        return Sample(
            t=self.clock(),
            cpu=self._cpu_share(cores),
            cores=cores,
            memory_used=used if binds and used is not None else machine.total - machine.available,
            memory_total=limit if binds and limit is not None else machine.total,
            limited=binds or self._cpu is not None,
            disk_used=disk.used,
            disk_free=disk.free,
            disk_total=disk.used + disk.free,  # what only root may use belongs to nobody here
            gpus=gpus,
            no_gpu=no_gpu,
        )

    def _cpu_share(self, cores: float) -> float:
        """Of the container's quota where there is one, else of the machine, since the last look; the first is 0."""
        seconds = self._cpu.cpu_seconds() if self._cpu else None
        if seconds is None:
            return min(1.0, psutil.cpu_percent(interval=None) / 100)
        moment = time.monotonic()
        before, self._cpu_before = self._cpu_before, (moment, seconds)
        if before is None or moment <= before[0]:
            return 0.0
        return min(1.0, max(0.0, (seconds - before[1]) / (moment - before[0]) / cores))
