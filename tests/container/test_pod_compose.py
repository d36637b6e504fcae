"""docker-compose.yml as a person uses it: the CPU pod by its name, the GPU pod's reservation, loopback by default."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
import requests
from pods import ROOT, docker, until

COMPOSE = "docker-compose"


def compose(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    done = subprocess.run([COMPOSE, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_up_of_the_cpu_pod(image: str, volume: Path) -> None:
    if docker("ps", "--all", "--quiet", "--filter", "name=^lora-pilot-cpu$").stdout.strip():
        pytest.skip("a container named lora-pilot-cpu is somebody's here")
    project = f"pilot{uuid.uuid4().hex[:6]}"
    variables = {"PILOT_IMAGE": image, "PILOT_VOLUME": str(volume), "PILOT_PASSWORD": "for compose alone"}
    try:
        compose("-p", project, "up", "-d", "--no-build", "lora-pilot-cpu", **variables)

        def answers() -> bool:
            try:
                return requests.get("http://127.0.0.1:7878/healthz", timeout=2).status_code == 200
            except requests.RequestException:
                return False

        until(60, "a healthy panel on loopback", answers)
        told = json.loads(docker("inspect", "lora-pilot-cpu").stdout)[0]
        bound = {one["HostIp"] for ports in told["HostConfig"]["PortBindings"].values() for one in ports}
        assert bound == {"127.0.0.1"}
        assert told["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert told["HostConfig"]["ShmSize"] == 2 * 2**30
        assert told["Config"]["StopTimeout"] == 15
    finally:
        compose("-p", project, "down", "--volumes", **variables)


def test_the_gpu_pod_reserves_the_gpu_and_up_starts_it_alone(image: str) -> None:
    import yaml

    told = yaml.safe_load(compose("config").stdout)["services"]
    devices = told["lora-pilot"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices[0]["driver"] == "nvidia" and "gpu" in devices[0]["capabilities"]
    assert list(told) == ["lora-pilot"] or "profiles" in told["lora-pilot-cpu"]
    assert told["lora-pilot"]["container_name"] == "lora-pilot"
