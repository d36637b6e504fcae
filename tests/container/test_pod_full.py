"""The tag `full`: a service that is part of the image, installed while it is built, opened in the pod.

Opt-in (PILOT_REAL_SERVICES=1), because its build brings 300 MB of Debian's packages and Gradio. Upstream's repository
cannot be cloned where these tests run: one of our own stands in for it (mirrors.py).
"""

from __future__ import annotations

import os

import pytest
import requests
from pods import Pod, until

# When the file is read: a fixture takes the caller's PILOT_* away from the tests.
pytestmark = pytest.mark.skipif(os.environ.get("PILOT_REAL_SERVICES") != "1", reason="PILOT_REAL_SERVICES=1 runs it")


def test_a_service_of_the_image_is_there_at_once(full_image: str) -> None:
    with Pod(full_image) as pod:
        pod.healthy()
        assert pod.run("stat", "-c", "%U", "/opt/apps/kohya/INSTALLED").stdout.strip() == "pilot"
        pod.run("controlpilot", "services", "start", "kohya")
        until(120, "Kohya", lambda: pod.states().get("kohya") == "RUNNING", every=1)
        session = pod.login()
        origin = pod.enter(session, "kohya")
        assert requests.get(origin + "/", timeout=10).status_code == 401

        def opened() -> bool:
            page = session.get(origin + "/", timeout=20)
            return page.status_code == 200 and "kohya stand-in" in page.text

        until(90, "its page", opened, every=1)
        pod.run("controlpilot", "services", "stop", "kohya")
        until(15, "its end", lambda: pod.states()["kohya"] == "STOPPED")
