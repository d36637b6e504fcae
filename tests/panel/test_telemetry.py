"""Telemetry: limits of control groups, a day in bounded memory, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from controlpilot import limits
from controlpilot.telemetry import TIERS, Ring, Telemetry

MIB = 2**20


def group_v2(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text + "\n")


def test_version_2_takes_the_smallest_limit_on_the_way_up(tmp_path: Path) -> None:
    system, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/pod/run\n")
    stat = "anon 1000\ninactive_file 4194304"
    group_v2(system / "pod" / "run", memory_max="max", cpu_max="max 100000")
    group_v2(system / "pod", memory_max=str(512 * MIB), memory_current=str(100 * MIB), memory_stat=stat)
    group_v2(system / "pod", cpu_max="150000 100000", cpu_stat="usage_usec 2500000\nuser_usec 1")
    memory = limits.memory_group(system, own)
    assert memory is not None and memory.folder == system / "pod"
    assert memory.memory_limit() == 512 * MIB
    assert memory.memory_used() == 96 * MIB, "file pages that the kernel gives back are not in use"
    cpu = limits.cpu_group(system, own)
    assert cpu is not None and cpu.cores() == 1.5 and cpu.cpu_seconds() == 2.5
    assert limits.cores_allowed(cpu) == min(1.5, len(os.sched_getaffinity(0)))


def test_version_1_and_a_path_that_only_the_host_has(tmp_path: Path) -> None:
    system, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    memory, cpu = system / "memory", system / "cpu"
    for folder in (memory, cpu):
        folder.mkdir(parents=True)
    (memory / "memory.limit_in_bytes").write_text(str(256 * MIB))
    (memory / "memory.usage_in_bytes").write_text(str(64 * MIB))
    (memory / "memory.stat").write_text(f"total_inactive_file {MIB}\n")
    (cpu / "cpu.cfs_quota_us").write_text("50000")
    (cpu / "cpu.cfs_period_us").write_text("100000")
    (cpu / "cpuacct.usage").write_text("3000000000")
    group = limits.memory_group(system, own)
    assert group is not None and group.memory_limit() == 256 * MIB and group.memory_used() == 63 * MIB
    quota = limits.cpu_group(system, own)
    assert quota is not None and quota.cores() == 0.5 and quota.cpu_seconds() == 3.0


@pytest.mark.parametrize("limit", ["9223372036854771712", ""])
def test_without_a_limit_there_is_no_group(tmp_path: Path, limit: str) -> None:
    system, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:memory:/\n")
    (system / "memory").mkdir(parents=True)
    (system / "memory" / "memory.limit_in_bytes").write_text(limit)
    assert limits.memory_group(system, own) is None
    assert limits.cpu_group(system, tmp_path / "missing") is None


def test_a_ring_holds_means_and_forgets_the_oldest() -> None:
    ring = Ring(10.0, 3, 1)
    for t, value in [(0, 1.0), (5, 3.0), (10, 8.0), (20, np.nan), (30, 5.0), (42, 6.0)]:
        ring.add(t, np.array([value]))
    times, values = ring.since(0)
    assert times.tolist() == [20, 30, 40]
    assert np.isnan(values[0, 0]) and values[1:, 0].tolist() == [5.0, 6.0]


def test_a_day_is_kept_at_decreasing_resolution_in_bounded_memory(tmp_path: Path) -> None:
    moment = [1_700_000_000.0]
    telemetry = Telemetry(tmp_path, clock=lambda: moment[0])
    size = sum(ring.values.nbytes + ring.times.nbytes for ring in telemetry._rings)
    for _ in range(2000):
        telemetry.take()
        moment[0] += 60
    for each, points in TIERS:
        found = telemetry.history(each * points)
        assert found.each == each and 0 < len(found.t) <= points
        assert {len(line) for line in found.lines.values()} == {len(found.t)}
    day = telemetry.history()
    assert 0.95 * 86400 < day.t[-1] - day.t[0] <= 86400
    assert day.t == sorted(day.t)
    assert sum(ring.values.nbytes + ring.times.nbytes for ring in telemetry._rings) == size < MIB


def test_now_tells_this_machine(tmp_path: Path) -> None:
    sample = Telemetry(tmp_path / "not" / "made" / "yet").now()
    assert 0 < sample.memory_used < sample.memory_total <= psutil.virtual_memory().total
    assert 0 <= sample.cpu <= 1 and 0 < sample.cores <= len(os.sched_getaffinity(0))
    assert sample.disk_free > 0 and sample.disk_used + sample.disk_free == sample.disk_total
    assert bool(sample.gpus) != bool(sample.no_gpu), "where there is no GPU it says why"


def test_cpu_is_a_share_of_the_allowed_cores(tmp_path: Path) -> None:
    """A group of a tenth of a core: what a busy loop uses is far more than all of it."""
    telemetry = Telemetry(tmp_path)
    group_v2(tmp_path, cpu_max="10000 100000", cpu_stat="usage_usec 0")
    telemetry._cpu = limits.Group(tmp_path, 2)
    assert telemetry.take().cpu == 0.0
    time.sleep(0.2)
    group_v2(tmp_path, cpu_stat="usage_usec 10000")
    half = telemetry.take()
    assert half.cores == 0.1 and 0.1 < half.cpu < 0.6
    group_v2(tmp_path, cpu_stat="usage_usec 900000")
    assert telemetry.take().cpu == 1.0


def test_the_thread_samples_and_stops(tmp_path: Path) -> None:
    telemetry = Telemetry(tmp_path, every=0.05)
    telemetry.start()
    telemetry.start()
    deadline = time.monotonic() + 10
    while telemetry._rings[0].count < 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    first = telemetry.now().t
    time.sleep(0.3)
    assert telemetry.now().t > first
    telemetry.stop()
    assert telemetry._thread is not None and not telemetry._thread.is_alive()


def test_it_costs_less_than_a_hundredth_of_a_core(tmp_path: Path) -> None:
    """In a process of its own, at 40 times the usual pace; processor time, so a busy machine does not matter."""
    code = (
        "import resource, sys, time; from pathlib import Path; from controlpilot.telemetry import EVERY, Telemetry;"
        "t = Telemetry(Path(sys.argv[1]), every=EVERY / 40); t.take(); used = resource.getrusage(resource.RUSAGE_SELF);"
        "t.start(); time.sleep(2); t.stop(); after = resource.getrusage(resource.RUSAGE_SELF);"
        "print((after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime) / 2 / 40)"
    )
    share = float(subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True).stdout)
    assert 0 < share < 0.01


def test_api(panel) -> None:  # type: ignore[no-untyped-def]
    panel.app.extensions["pilot"].telemetry.take()
    now = panel.client.get("/api/v1/telemetry")
    assert now.status_code == 200 and now.json["memory_total"] > 0 and "gpus" in now.json
    lines = panel.client.get("/api/v1/telemetry/history?seconds=600").json
    assert lines["each"] == 2.0 and len(lines["lines"]["memory"]) == len(lines["t"]) >= 1
    wrong = panel.client.get("/api/v1/telemetry/history?seconds=1e9")
    assert wrong.status_code == 400 and wrong.json["error"]["where"] == "query.seconds"
