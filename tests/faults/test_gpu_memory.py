"""A real worker and real trainer processes where other programs hold a GPU's memory, as a driver would tell it."""

import json
from pathlib import Path

import pytest
from test_worker import HERE, Pod, go, last_step, status, wait

from trainpilot.config.merge import Resolved
from trainpilot.config.schema import RunConfig
from trainpilot.runs.gpu_memory import MATTERS, Holder, Memory, shortage
from trainpilot.runs.job import Job
from trainpilot.runs.queue import Queue
from trainpilot.runs.rundir import RunDir

GB = 10**9
NOBODY = 4_000_000  # above every process id that exists


class GpuPod(Pod):
    """A machine with GPUs of 24 GB whose driver says what the test wants."""

    def __init__(self, folder, monkeypatch, *names):
        super().__init__(folder, monkeypatch)
        self.told = folder / "nvml.json"
        self.names = names
        monkeypatch.setenv("FAKE_NVML", str(self.told))
        monkeypatch.setenv("PYTHONPATH", str(HERE / "fake_nvml"))
        self.held()

    def held(self, hidden=0, **by_device):
        """Bytes by process id on each device; the others are empty. hidden: what no process is told for."""
        told = {name: {"total": 24 * GB, "used": by_device.get(name, {}), "hidden": hidden} for name in self.names}
        beside = self.told.with_suffix(".new")
        beside.write_text(json.dumps(told))
        beside.replace(self.told)

    def planned(self, name, need, steps=5, **behaviour):
        config = RunConfig(run={"name": name}, training={"steps": steps})
        run = RunDir.create(self.workspace, Resolved(config, {}), {"steps": steps, "vram": {"total": need}})
        (run.path / "behaviour.json").write_text(json.dumps(behaviour))
        run.queue()
        return run

    def worker(self, *options):
        return super().worker(*options, devices=",".join(self.names))


@pytest.fixture
def pod(tmp_path, monkeypatch):
    place = GpuPod(tmp_path, monkeypatch, "GPU_a")
    yield place
    place.close()


def reason(run):
    return Job.read(run.path).reason


def test_a_run_waits_while_another_program_holds_the_memory_it_needs(pod):
    service = pod.start("-c", "import time; time.sleep(600)", "ComfyUI/main.py")
    pod.held(GPU_a={service.pid: 20 * GB})
    run = pod.planned("zorp", 7_200_000_000)
    worker = pod.worker()
    wait(lambda: reason(run).startswith("waiting"))
    assert reason(run) == f"waiting for 7.2 GB of GPU memory: ComfyUI (pid {service.pid}) holds 20.0 GB"
    assert status(run) == "queued" and not Job.read(run.path).attempts
    small = pod.planned("small", 2 * GB)
    wait(lambda: status(small) == "done", what="a run that fits")
    assert status(run) == "queued"
    service.kill()
    pod.held()
    wait(lambda: status(run) == "done")
    assert f"zorp: {reason(run) or 'has room now'}" in pod.output(worker)


def test_a_person_may_start_it_anyway(pod):
    pod.held(GPU_a={NOBODY: 20 * GB})
    run = pod.planned("zorp", 10 * GB)
    pod.worker()
    wait(lambda: reason(run).startswith("waiting"))
    assert f"process {NOBODY} (pid {NOBODY}) holds 20.0 GB" in reason(run)
    Queue(pod.workspace).ask("anyway", "zorp")
    wait(lambda: status(run) == "done")
    wait(lambda: "anyway" not in json.dumps(json.loads(Queue(pod.workspace).path.read_text())["anyway"]))


def test_a_run_goes_to_the_device_that_has_room(tmp_path, monkeypatch):
    pod = GpuPod(tmp_path, monkeypatch, "GPU_a", "GPU_b")
    try:
        pod.held(GPU_a={NOBODY: 20 * GB})
        run = pod.planned("zorp", 10 * GB)
        assert pod.worker("--until-idle").wait(60) == 0
        assert status(run) == "done" and pod.trace.read_text().split()[:3] == ["begin", "zorp", "GPU_b"]
    finally:
        pod.close()


def test_what_a_run_before_holds_is_waited_for_as_ever(pod):
    first = pod.planned("first", 20 * GB, at={"1:3": "hold"})
    second = pod.planned("second", 20 * GB)
    pod.worker()
    wait(lambda: last_step(first) == 2)
    pod.held(GPU_a={Job.read(first.path).process.pid: 20 * GB})
    wait(lambda: Job.read(second.path).status == "queued")
    go(first)
    wait(lambda: status(first) == "done")
    pod.held()
    wait(lambda: status(second) == "done")


def memory(free, *holders):
    return Memory("GPU_a", "NVIDIA L4", 24 * GB, free, tuple(Holder(pid, f"p{pid}", size) for pid, size in holders))


@pytest.mark.parametrize(
    ("need", "told", "own", "said"),
    [
        (None, memory(0, (1, 24 * GB)), (), ""),  # no estimate
        (10 * GB, None, (), ""),  # no driver
        (10 * GB, memory(10 * GB, (1, 14 * GB)), (), ""),  # it fits
        (30 * GB, memory(4 * GB, (1, 20 * GB)), (), ""),  # it would not fit into an empty device either
        (24 * GB, memory(24 * GB - MATTERS + 1), (), ""),  # only the driver holds something
        (10 * GB, memory(4 * GB, (1, 20 * GB)), (1,), ""),  # our own job, which leaves
        (10 * GB, memory(4 * GB, (1, 20 * GB)), (), "p1 (pid 1) holds 20.0 GB"),
        (10 * GB, memory(4 * GB, (1, None)), (), "p1 (pid 1) holds an unknown amount"),
        (10 * GB, memory(4 * GB), (), "other programs hold 20.0 GB"),  # hidden by the container
        (10 * GB, memory(4 * GB, (1, 5 * GB), (2, 15 * GB), (3, 10**6)), (), "p2 (pid 2) holds 15.0 GB, p1 (pid 1)"),
    ],
)
def test_when_memory_is_short(need, told, own, said):
    found = shortage(need, told, own)
    assert (said in found and found.startswith("waiting for 10.0 GB")) if said else found == ""


def test_the_fake_driver_is_the_one_that_is_asked(pod, monkeypatch):
    import sys

    from trainpilot.runs.gpu_memory import memories

    monkeypatch.syspath_prepend(str(Path(HERE) / "fake_nvml"))
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    pod.held(GPU_a={NOBODY: 3 * GB})
    found = memories()
    monkeypatch.delitem(sys.modules, "pynvml", raising=False)
    assert found["GPU_a"].free == 21 * GB and found["GPU_a"].holders[0].bytes == 3 * GB
