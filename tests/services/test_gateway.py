"""The gateway as it is shipped, in a real nginx: who is let in, what reaches a service, what a service may answer."""

from __future__ import annotations

import http.client
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from controlpilot.gateway import JS_MODULE, render
from controlpilot.services import services
from controlpilot.settings import Settings
from tests.services.gate import NGINX, Gate, running
from tests.services.stand_ins import Talk, service
from trainpilot.errors import PilotError
from trainpilot.workspace import Workspace

pytestmark = pytest.mark.skipif(
    not Path(NGINX).exists() or not JS_MODULE.exists(), reason="needs nginx with its JavaScript module"
)


@pytest.fixture(scope="module")
def gate() -> Iterator[Gate]:
    with tempfile.TemporaryDirectory(prefix="gate-") as name, service() as upstream:
        yield from running(Path(name), upstream)


NAMES = ["tensorboard", "jupyterlab", "kohya", "ai-toolkit", "comfyui", "invokeai", "code-server"]
PATHS = ["/", "/api/jobs/1/stop", "/lab/../x", "/gradio_api/file=http://a/", "/proxy-8866/x", "/ws"]


@pytest.mark.parametrize("name", NAMES)
def test_nobody_passes_without_a_login(gate: Gate, name: str) -> None:
    for path in PATHS:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
            status, headers, _ = gate.ask(name, path, method, login=False)
            assert status == 401, (path, method)
            assert headers["cache-control"] == "no-store"
    assert gate.ask(name, login=False, Cookie="pilot_service_" + name + "=guessed")[0] == 401
    assert gate.ask(name, login=False, Cookie="pilot_session=session-1")[0] == 401
    assert Talk(gate.ports[name], {"Origin": gate.origin(name)}).status == 401


def test_a_login_of_one_service_opens_no_other(gate: Gate) -> None:
    assert gate.ask("comfyui", login=False, Cookie="pilot_service_jupyterlab=session-1")[0] == 401
    assert gate.ask("comfyui", login=False, Origin="https://evil.example")[0] == 401
    assert gate.ask("comfyui", "/%2e%2e/etc/passwd")[0] == 400
    assert gate.ask("comfyui")[0] == 200


def test_people_see_a_page_with_the_way_in_and_programs_the_error_shape(gate: Gate) -> None:
    status, headers, page = gate.ask("comfyui", login=False, Accept="text/html")
    assert status == 401 and headers["content-type"].startswith("text/html")
    assert f"http://127.0.0.1:{gate.ports['panel']}/services/comfyui/open" in page
    status, headers, said = gate.ask("comfyui", login=False, Accept="*/*")
    assert set(said["error"]) == {"where", "given", "allowed", "remedy", "message"}
    hostile = gate.ask("comfyui", login=False, Accept="text/html", Host='x"><script>')[2]
    assert "<script>" not in hostile


def test_our_cookies_and_a_token_never_reach_a_service(gate: Gate) -> None:
    sent = "pilot_session=secret; theme=dark; __Host-pilot_session=secret; =pilot_x=secret; PILOT_other=secret; a=b"
    status, _, said = gate.ask("comfyui", "/echo", Cookie=sent, Authorization="Bearer secret")
    assert status == 200
    assert "secret" not in json.dumps(said) and "session-1" not in json.dumps(said)
    assert [pair.strip() for pair in said["headers"]["Cookie"].split(";")] == ["theme=dark", "a=b"]


def test_a_service_sets_its_own_cookies_but_none_of_our_names(gate: Gate) -> None:
    theirs = ["theme=dark; Path=/", "_xsrf=2|x; Path=/", "my_pilot_x=1"]
    ours = ["pilot_session=evil", "Pilot_Session=evil", "=pilot_session=evil", "__Host-pilot_session=evil; Secure",
            "%20pilot_session=evil".replace("%20", " "), "pilot_service_kohya=evil; Domain=127.0.0.1"]  # fmt: skip
    path = "/cookies?" + "&".join("set=" + quote(line) for line in ours + theirs)
    for name in ("comfyui", "ai-toolkit"):
        status, headers, _ = gate.ask(name, path)
        assert status == 200 and sorted(headers["cookies"]) == sorted(theirs)


def test_a_service_cannot_steer_the_gateway_or_the_browser(gate: Gate) -> None:
    status, headers, body = gate.ask("comfyui", "/header?name=X-Accel-Redirect&value=/.pilot/enter%3Fticket=good")
    assert (status, body, headers["cookies"]) == (200, "from the service", [])
    for name, value in (("Clear-Site-Data", "cookies"), ("Access-Control-Allow-Origin", "https://evil.example")):
        assert name.lower() not in gate.ask("comfyui", f"/header?name={name}&value=%22{value}%22")[1]
    headers = gate.ask("comfyui", "/header?name=X-Frame-Options&value=ALLOWALL")[1]
    assert headers["x-frame-options"] == "SAMEORIGIN" and headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "frame-ancestors 'self'" and "nginx/" not in headers["server"]


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "", "http://127.0.0.1.evil"])
def test_another_origin_is_refused_with_the_login_too(gate: Gate, origin: str) -> None:
    for name in NAMES[:-1]:
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            assert gate.ask(name, "/echo", method, Origin=origin)[0] == 403, (name, method)
        assert Talk(gate.ports[name], gate.login(name) | {"Origin": origin}).status == 403
    assert gate.ask("kohya", "/echo", "POST", Origin=gate.origin("panel"))[0] == 403


def test_a_link_is_followed_but_an_image_a_frame_or_a_script_of_another_origin_is_not(gate: Gate) -> None:
    def ask(site: str, mode: str, to: str, method: str = "GET") -> int:
        said = {"Sec_Fetch_Site": site, "Sec_Fetch_Mode": mode, "Sec_Fetch_Dest": to}
        return gate.ask("comfyui", "/echo", method, **said)[0]

    for site in ("cross-site", "same-site"):
        assert ask(site, "navigate", "document") == 200
        assert ask(site, "navigate", "iframe") == 403
        assert ask(site, "no-cors", "image") == 403
        assert ask(site, "navigate", "document", "POST") == 403
    assert ask("same-origin", "cors", "empty") == 200
    followed = gate.ask(
        "comfyui", "/echo", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document"
    )
    assert "Sec-Fetch-Site" not in followed[2]["headers"]  # ComfyUI answers 403 to it


def test_what_changes_on_a_get_is_for_its_own_pages_only(gate: Gate) -> None:
    stop = "/api/jobs/7/stop"
    assert gate.ask("ai-toolkit", stop)[0] == 403  # nothing says who asks
    assert gate.ask("ai-toolkit", stop, Referer="https://evil.example/")[0] == 403
    assert gate.ask("ai-toolkit", stop, Referer=gate.origin("ai-toolkit").replace("http://", "http://evil@"))[0] == 403
    assert (
        gate.ask("ai-toolkit", stop, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")[
            0
        ]
        == 403
    )
    assert gate.ask("ai-toolkit", "/%61pi/jobs/7/stop")[0] == 403
    assert gate.ask("ai-toolkit", stop, Referer=gate.origin("ai-toolkit") + "/jobs")[0] == 200
    assert gate.ask("ai-toolkit", stop, Sec_Fetch_Site="same-origin")[0] == 200
    assert gate.ask("ai-toolkit", "/jobs")[0] == 200


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("kohya", "/gradio_api/file=http://169.254.169.254/latest"),
        ("kohya", "/gradio_api/file%3Dhttps%3A%2F%2Fevil.example"),
        ("kohya", "/file=ftp:evil"),
        ("kohya", "/gradio_api/proxy=http://127.0.0.1:9/"),
        ("kohya", "/gradio_api/PROXY=http://127.0.0.1:9/"),
        ("ai-toolkit", "/proxy-8866/tree"),
        ("ai-toolkit", "//proxy-8866/tree"),
        ("ai-toolkit", "/x/..%2fproxy-8866/tree"),
        ("ai-toolkit", "/\\proxy-8866/tree"),
    ],
)
def test_the_services_own_traps_are_closed(gate: Gate, name: str, path: str) -> None:
    assert gate.ask(name, path)[0] == 403


def test_a_file_of_gradio_is_still_served(gate: Gate) -> None:
    assert gate.ask("kohya", "/gradio_api/file=/workspace/outputs/x.png")[0] == 200


def test_what_a_service_is_told_about_the_request(gate: Gate) -> None:
    said = gate.ask("comfyui", "/a%2Fb?x=%20", X_Forwarded_For="9.9.9.9", X_Forwarded_Host="evil.example",
                    X_Forwarded_Proto="https", Forwarded="host=evil.example", X_Original_URI="/x")[2]  # fmt: skip
    headers = {key.lower(): value for key, value in said["headers"].items()}
    here = f"127.0.0.1:{gate.ports['comfyui']}"
    assert said["path"] == "/a%2Fb?x=%20"
    assert (headers["host"], headers["x-forwarded-host"], headers["x-forwarded-proto"]) == (here, here, "http")
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert "forwarded" not in headers and "x-original-uri" not in headers


def test_a_proxy_in_front_names_the_address_when_the_settings_say_so(tmp_path: Path) -> None:
    with service() as upstream:
        for gate in running(tmp_path, upstream, trusted_proxies=("127.0.0.0/8",)):
            told = {"X_Forwarded_Host": "pod-7883.proxy.example", "X_Forwarded_Proto": "https"}
            ours = gate.ask("comfyui", "/echo", "POST", Origin="https://pod-7883.proxy.example", **told)
            assert ours[0] == 200 and ours[2]["headers"]["X-Forwarded-Proto"] == "https"
            assert ours[2]["headers"]["Host"] == "pod-7883.proxy.example"
            assert gate.ask("comfyui", "/echo", "POST", Origin="https://pod-7884.proxy.example", **told)[0] == 403


def test_published_addresses_are_known_without_trusting_any_proxy(tmp_path: Path) -> None:
    with service() as upstream:
        for gate in running(tmp_path, upstream, url_template="https://pod-{service}.proxy.example"):
            asked = gate.ask(
                "kohya", "/echo", "POST", Host="pod-kohya.proxy.example", Origin="https://pod-kohya.proxy.example"
            )
            assert asked[0] == 200 and asked[2]["headers"]["X-Forwarded-Proto"] == "https"
            assert gate.ask("kohya", "/echo", X_Forwarded_Proto="https")[2]["headers"]["X-Forwarded-Proto"] == "http"
            page = gate.ask("kohya", login=False, Accept="text/html")[2]
            assert "https://pod-panel.proxy.example/services/kohya/open" in page


def test_the_ticket_crosses_once_and_stands_in_no_log(gate: Gate) -> None:
    status, headers, _ = gate.ask("jupyterlab", "/.pilot/enter?ticket=good&next=/lab", login=False)
    assert (status, headers["location"]) == (303, "/lab")
    assert headers["cookies"] == ["pilot_service_jupyterlab=session-1; HttpOnly; SameSite=Lax; Path=/"]
    assert headers["referrer-policy"] == "no-referrer"
    assert gate.ask("jupyterlab", "/.pilot/enter?ticket=bad-and-secret", login=False)[0] == 403
    for path in ("/.pilot/check", "/.pilot/other", "/.pilot/enter/x", "/.pilot/"):
        assert gate.ask("jupyterlab", path)[0] == 404, path
    for path in ("/auth/check", "/auth/enter?ticket=good", "//auth/check", "/x/../auth/check"):
        assert gate.ask("panel", path, X_Pilot_Service="comfyui")[0] == 404, path
    gate.panel.stop()
    try:
        assert gate.ask("jupyterlab", "/.pilot/enter?ticket=unused-and-secret", login=False)[0] == 503
    finally:
        gate.panel.start()
    assert "secret" not in gate.log() and "ticket" not in gate.log() and "/.pilot/enter" in gate.log()


def test_the_panel_is_told_that_it_is_asked_itself(gate: Gate) -> None:
    said = gate.ask("panel", "/runs", X_Pilot_Service="comfyui", X_Forwarded_Prefix="/evil", Cookie="pilot_session=x")[
        2
    ]
    headers = said["headers"]
    assert said["panel"] == "/runs" and headers["X-Pilot-Service"] == "panel" and "X-Forwarded-Prefix" not in headers
    assert "pilot_session=x" in headers["Cookie"]


def test_answers_are_remembered_for_ten_seconds_and_refusals_are_not(gate: Gate) -> None:
    gate.panel.sessions.add("session-cache")
    cookie = "pilot_service_tensorboard=session-cache"
    before = len(gate.panel.checks)
    for _ in range(20):
        assert gate.ask("tensorboard", "/echo", login=False, Cookie=cookie)[0] == 200
    assert len(gate.panel.checks) - before == 1
    for _ in range(3):
        assert gate.ask("tensorboard", "/echo", login=False, Cookie="pilot_service_tensorboard=no")[0] == 401
    assert len(gate.panel.checks) - before == 4
    assert not any("ticket" in check["uri"] or "?" in check["uri"] for check in gate.panel.checks)
    # Revoked: within ten seconds for a request, at once for a WebSocket.
    gate.panel.sessions.discard("session-cache")
    talk = Talk(gate.ports["tensorboard"], {"Cookie": cookie, "Origin": gate.origin("tensorboard")})
    assert talk.status == 401
    time.sleep(10.2)
    assert gate.ask("tensorboard", "/echo", login=False, Cookie=cookie)[0] == 401


def test_no_answer_of_the_panel_lets_nobody_in(gate: Gate) -> None:
    gate.panel.stop()
    try:
        status, _, said = gate.ask("comfyui", "/echo", Cookie="fresh=1")
        assert status == 503 and "panel does not answer" in said["error"]["remedy"]
        assert Talk(gate.ports["comfyui"], gate.login("comfyui")).status == 503
        assert gate.ask("panel", "/")[0] == 503
    finally:
        gate.panel.start()
    assert gate.ask("comfyui", "/echo", Cookie="fresh=1")[0] == 200


def test_a_service_that_is_not_running_is_said_to_be(gate: Gate) -> None:
    status, _, said = gate.ask("code-server", "/")
    assert status == 502 and "not running" in said["error"]["message"]


def test_logging_out_closes_websockets(gate: Gate) -> None:
    gate.panel.sessions.add("session-out")
    talk = Talk(
        gate.ports["comfyui"], {"Cookie": "pilot_service_comfyui=session-out", "Origin": gate.origin("comfyui")}
    )
    assert (talk.status, talk.say("hello")) == (101, "hello")
    gate.panel.sessions.discard("session-out")
    os.kill(gate.process.pid, signal.SIGHUP)
    took = talk.closed_within(6)
    assert took is not None and took < 4
    again = Talk(
        gate.ports["comfyui"], {"Cookie": "pilot_service_comfyui=session-out", "Origin": gate.origin("comfyui")}
    )
    assert again.status == 401
    assert gate.ask("comfyui", "/echo")[0] == 200


def test_only_websockets_are_upgraded(gate: Gate) -> None:
    said = gate.ask("comfyui", "/echo", Upgrade="h2c", Connection="Upgrade")[2]
    assert "Upgrade" not in said["headers"]


def test_answers_stream_and_large_uploads_are_not_held_back(gate: Gate) -> None:
    link = http.client.HTTPConnection("127.0.0.1", gate.ports["comfyui"], timeout=15)
    begin = time.monotonic()
    link.request("GET", "/stream", headers=gate.login("comfyui"))
    answer = link.getresponse()
    assert answer.read(5) == b"first" and time.monotonic() - begin < 0.8
    assert answer.read() == b"second"
    size = 96 << 20
    status, _, said = gate.ask("comfyui", "/upload", "POST", body=bytes(size))
    assert (status, said["received"]) == (200, size)
    assert not any(path.is_file() for path in (gate.folder / "run" / "gateway" / "body").rglob("*"))


def test_no_cookie_stands_in_the_gateways_files(gate: Gate) -> None:
    gate.panel.sessions.add("session-on-disk")
    gate.ask("comfyui", "/echo", login=False, Cookie="pilot_service_comfyui=session-on-disk")
    kept = [path for path in (gate.folder / "run" / "gateway").rglob("*") if path.is_file()]
    assert len(kept) > 1 and not any(b"session-on-disk" in path.read_bytes() for path in kept)


@pytest.mark.parametrize(
    "change",
    [
        {"upstream": "http://10.0.0.1:80"},
        {"upstream": "unix:/x;y"},
        {"upstream": "http://127.0.0.1:1/\n"},
        {"name": "a;b"},
        {"label": 'a"; b'},
        {"deny": ("a b",)},
        {"deny": ("(",)},
        {"same_origin": ('"',)},
    ],
)
def test_a_value_that_could_break_out_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    known = [one for one in services(Workspace(tmp_path)) if one.port]
    known = [replace(one, **change) if one.name == "kohya" else one for one in known]
    settings = Settings(Workspace(tmp_path), secrets=tmp_path, run=tmp_path)
    with pytest.raises(PilotError):
        render(settings, known)
