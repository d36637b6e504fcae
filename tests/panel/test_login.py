"""The login: what is open without one, what a browser gets with one, and what an attacker does not get."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from controlpilot.app import create_app
from controlpilot.auth.guard import COOKIE
from controlpilot.auth.passwords import Passwords, prepare
from controlpilot.auth.throttle import Throttle
from controlpilot.desk import Desk
from controlpilot.settings import Settings
from trainpilot.errors import PilotError

CHANGES = ("POST", "PUT", "PATCH", "DELETE")


def filled(rule: str) -> str:
    """A URL of a rule with something for every argument."""
    return re.sub(r"<[^>]*?int:[^>]*>", "1", re.sub(r"<(?!int:)[^>]*>", "x", rule))


def log_in(client: FlaskClient, password: str, **rest: object) -> int:
    return client.post("/login", data={"password": password}, **rest).status_code  # type: ignore[arg-type]


def test_nothing_is_open_without_a_login(panel) -> None:
    """Every route of every page and operation, by every method it has."""
    opened, tried = [], 0
    for rule in panel.app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            if rule.endpoint in ("static", "healthz", "auth.login", "auth.enter", "auth.check", "auth.enter_service"):
                continue
            tried += 1
            answered = panel.anonymous.open(filled(rule.rule), method=method, headers={"Accept": "application/json"})
            if answered.status_code != 401:
                opened.append((method, rule.rule, answered.status_code))
    assert opened == [] and tried > 10


def test_a_person_is_led_to_the_login_and_back(panel) -> None:
    page = {"Accept": "text/html,*/*;q=0.8"}
    client = panel.anonymous
    led = client.get("/train?step=2", headers=page)
    assert led.status_code == 303 and led.location == "/login?next=/train%3Fstep%3D2"
    assert 'name="next" value="/train?step=2"' in client.get(led.location, headers=page).text
    back = client.post("/login", data={"password": panel.password, "next": "/train?step=2"})
    assert back.status_code == 303 and back.location == "/train?step=2"
    cookie = client.get_cookie(COOKIE)
    assert cookie.http_only and cookie.same_site == "Lax" and not cookie.secure and cookie.path == "/"
    assert client.get("/api/v1/openapi.json").status_code == 200
    assert client.post("/logout").status_code == 303
    client.set_cookie(COOKIE, cookie.value)  # somebody kept it
    assert client.get("/api/v1/openapi.json").status_code == 401


def test_a_live_part_is_told_to_go_to_the_login(panel) -> None:
    answered = panel.anonymous.get("/train", headers={"HX-Request": "true", "Accept": "text/html"})
    assert answered.status_code == 401 and answered.headers["HX-Redirect"] == "/login"
    assert set(answered.json["error"]) == {"where", "given", "allowed", "remedy", "message"}


def test_health_says_nothing_else(panel) -> None:
    """By whatever name: a provider's probe asks by an address."""
    for host in ("localhost", "10.0.0.7:7878", "evil.example", ""):
        answered = panel.anonymous.get("/healthz", headers={"Host": host})
        assert (answered.status_code, answered.text) == (200, "ok\n"), host


def test_a_cookie_that_a_service_planted_does_not_shut_the_person_out(panel) -> None:
    """Cookies know no ports: a script of a service can set our name for a deeper path, which is then sent first."""
    planted = f"{COOKIE}=planted; {COOKIE}={panel.cookie()}; {COOKIE}="
    client = panel.app.test_client(use_cookies=False)
    assert client.get("/api/v1/openapi.json", headers={"Cookie": planted}).status_code == 200
    alone = {"Cookie": f"{COOKIE}=planted; {COOKIE}=planted.too"}
    assert client.get("/api/v1/openapi.json", headers=alone).status_code == 401


def test_a_wrong_password_opens_nothing(panel) -> None:
    client = panel.anonymous
    assert log_in(client, "wrong") == 401
    assert client.get_cookie(COOKIE) is None and client.get("/train").status_code in (303, 401)


def test_a_forged_cookie_opens_nothing(panel) -> None:
    real = panel.cookie()
    for forged in ("", "x", "a.b", real[:-1], real + "0", real.replace(".", ".0", 1), "é.é", "." + real.split(".")[1]):
        client = panel.anonymous
        client.set_cookie(COOKIE, forged)
        assert client.get("/api/v1/openapi.json").status_code == 401, forged


# --- brute force ------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clocked(settings: Settings) -> tuple[Flask, Clock]:
    clock = Clock()
    return create_app(settings, Desk(settings, clock=lambda: 1.8e9 + clock(), steady=clock)), clock


def client_of(app: Flask, address: str = "127.0.0.1") -> FlaskClient:
    client = app.test_client()
    client.environ_base |= {"HTTP_ORIGIN": "http://localhost", "REMOTE_ADDR": address}
    return client


def test_guessing_from_many_addresses_is_slowed_down_and_disturbs_nobody(clocked, panel, monkeypatch) -> None:
    app, clock = clocked
    inside = client_of(app)
    assert log_in(inside, panel.password) == 303
    tried = []
    original = Passwords.verify
    monkeypatch.setattr(Passwords, "verify", lambda self, given: tried.append(given) or original(self, given))
    seen = [log_in(client_of(app, f"203.0.113.{number}"), f"guess {number}") for number in range(30)]
    assert seen.count(401) == 6 and seen.count(429) == 24
    assert len(tried) == 6, "a refused guess must not cost the work of a hash"
    assert inside.get("/api/v1/openapi.json").status_code == 200
    late = client_of(app).post("/login", data={"password": panel.password})
    assert late.status_code == 429 and 0 < int(late.headers["Retry-After"]) <= 60
    clock.now += int(late.headers["Retry-After"])
    assert log_in(client_of(app), panel.password) == 303


def test_an_hour_of_guessing_is_sixty_guesses() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    allowed = 0
    for _ in range(3600):
        clock.now += 1
        allowed += throttle.take() is None
    assert 60 <= allowed <= 66


def test_right_passwords_are_never_slowed_down(clocked, panel) -> None:
    app, _ = clocked
    assert {log_in(client_of(app), panel.password) for _ in range(8)} == {303}


def test_guessing_tokens_ends_in_429_and_a_right_one_goes_on(clocked) -> None:
    app, _ = clocked
    _, value = app.extensions["pilot"].door.tokens.create("script")
    client = app.test_client()
    ident = value.split("_")[1]
    seen = [client.get("/train", headers={"Authorization": f"Bearer pilot_{ident}_{n}"}).status_code for n in range(30)]
    assert seen.count(401) == 20 and seen.count(429) == 10
    assert client.get("/api/v1/openapi.json", headers={"Authorization": f"Bearer {value}"}).status_code == 200


# --- sessions and passwords -------------------------------------------------------------------------------------------


def test_a_new_password_ends_every_session(panel) -> None:
    client = panel.client
    assert client.get("/api/v1/openapi.json").status_code == 200
    Passwords(panel.settings.secrets).set("another good one", "saved")  # as controlpilot password does
    assert client.get("/api/v1/openapi.json").status_code == 401
    assert log_in(panel.anonymous, panel.password) == 401
    assert log_in(panel.anonymous, "another good one") == 303


def test_a_session_ends_by_itself(clocked, panel) -> None:
    app, clock = clocked
    client = client_of(app)
    log_in(client, panel.password)
    for _ in range(5):
        clock.now += 10 * 86400
        assert client.get("/api/v1/openapi.json").status_code == 200, "used within a fortnight"
    clock.now += 11 * 86400
    assert client.get("/api/v1/openapi.json").status_code == 401, "two months are the end"
    log_in(client, panel.password)
    clock.now += 15 * 86400
    assert client.get("/api/v1/openapi.json").status_code == 401, "unused for a fortnight"


def test_what_lies_on_disk_opens_nothing(panel) -> None:
    """Neither the password, nor a cookie, nor a token is in the secrets folder, and others cannot read what is."""
    cookie, (_, token) = panel.cookie(), panel.desk.door.tokens.create("script")
    files = [path for path in panel.settings.secrets.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        assert path.stat().st_mode & 0o077 == 0, path
        for secret in (panel.password, cookie, cookie.split(".")[0], token, token.split("_", 2)[2]):
            assert secret.encode() not in path.read_bytes()
    assert all(path.stat().st_mode & 0o077 == 0 for path in panel.settings.secrets.rglob("*") if path.is_dir())
    session = next((panel.settings.secrets / "sessions").iterdir()).stem
    client = panel.anonymous
    client.set_cookie(COOKIE, session)
    assert client.get("/train").status_code in (303, 401)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_secrets_that_somebody_else_put_there_are_not_used(panel) -> None:
    """Who owns the volume swaps the folder for one with a password, a key and a session of their own."""
    cookie, (_, token) = panel.cookie(), panel.desk.door.tokens.create("script")
    for path in panel.settings.secrets.rglob("*"):
        os.chown(path, 4321, 4321)
    app = create_app(panel.settings)
    client = client_of(app)
    client.set_cookie(COOKIE, cookie)
    assert client.get("/api/v1/openapi.json").status_code == 401
    assert client.get("/api/v1/openapi.json", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert log_in(client, panel.password) == 401


@pytest.mark.parametrize("way", ["variable", "file", "neither"])
def test_the_password_of_the_first_start(tmp_path: Path, way: str) -> None:
    given = tmp_path / "given"
    given.write_text("from a secret file\n")
    environ = {"variable": {"PILOT_PASSWORD": "from the variable"}, "file": {"PILOT_PASSWORD_FILE": str(given)}}
    first = prepare(tmp_path / "secrets", environ.get(way, {}))
    wanted = {"variable": "from the variable", "file": "from a secret file"}.get(way) or first.generated
    passwords = Passwords(tmp_path / "secrets")
    assert passwords.verify(wanted) and not passwords.verify(wanted + " ")
    generation = passwords.generation
    again = prepare(tmp_path / "secrets", environ.get(way, {}))
    assert again.generated is None and passwords.generation == generation, "a restart logs nobody out"
    assert again.source == ("saved" if way == "neither" else "environment")


def test_the_environments_password_wins(tmp_path: Path) -> None:
    Passwords(tmp_path).set("set by hand before", "saved")
    prepare(tmp_path, {"PILOT_PASSWORD": "from the variable"})
    assert Passwords(tmp_path).verify("from the variable")


@pytest.mark.parametrize("given", [{"PILOT_PASSWORD": "short"}, {"PILOT_PASSWORD_FILE": "/nowhere"}], ids=str)
def test_an_unusable_password_is_refused_without_being_repeated(tmp_path: Path, given: dict[str, str]) -> None:
    with pytest.raises(PilotError) as caught:
        prepare(tmp_path, given)
    assert "short" not in caught.value.message.replace("too short", "")


# --- other sites ------------------------------------------------------------------------------------------------------

FOREIGN = [
    {"Origin": "http://evil.example"},
    {"Origin": "http://localhost:7879"},  # a service of the same pod
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "null"},
    {"Origin": "http://["},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {},
]


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_change_from_elsewhere_is_refused(panel, method: str, headers: dict[str, str]) -> None:
    """Every route that has the method, with the cookie that a browser would send along."""
    client = panel.client
    client.environ_base.pop("HTTP_ORIGIN")
    tried = 0
    for rule in panel.app.url_map.iter_rules():
        if method in (rule.methods or ()):
            tried += 1
            answered = client.open(filled(rule.rule), method=method, headers=headers)
            assert answered.status_code == 403, (rule.rule, answered.status_code)
    assert tried or method in ("PUT", "PATCH")


@pytest.mark.parametrize("headers", [{"Origin": "http://localhost"}, {"Sec-Fetch-Site": "same-origin"}], ids=str)
def test_a_change_from_our_own_page_is_taken(panel, headers: dict[str, str]) -> None:
    client = panel.client
    client.environ_base.pop("HTTP_ORIGIN")
    assert client.post("/logout", headers=headers).status_code == 303


def test_the_origin_may_be_behind_a_tls_proxy_that_nobody_named(panel) -> None:
    """It sends us plain HTTP; the name and the port are what the browser sees."""
    assert panel.client.post("/logout", headers={"Origin": "https://localhost"}).status_code == 303


def test_a_plain_page_changes_nothing_in_one_under_tls(behind) -> None:
    headers = {"X-Forwarded-Proto": "https", "Origin": "http://localhost"}
    assert behind[0].test_client().post("/login", headers=headers).status_code == 403


def test_a_token_needs_no_origin(panel) -> None:
    _, value = panel.desk.door.tokens.create("script")
    client = panel.app.test_client()
    assert client.post("/nothing", headers={"Authorization": f"Bearer {value}"}).status_code == 404
    assert client.post("/nothing", headers={"Authorization": "Bearer wrong"}).status_code == 401


# --- hosts and proxies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "pod.example:7878", "10.0.0.7", "localhost.evil.example", "é", "a b"])
def test_an_unknown_host_sees_the_login_page_only(panel, host: str) -> None:
    client = panel.client
    headers = {"Host": host, "Accept": "text/html"}
    for path in ("/", "/train", "/nothing"):
        answered = client.get(path, headers=headers)
        assert answered.status_code == 303 and answered.location == "/login", path
    assert client.get("/api/v1/openapi.json", headers=headers).status_code == 400
    assert client.post("/train", headers=headers | {"Origin": f"http://{host}"}).status_code in (400, 403)
    assert client.get("/login", headers=headers).status_code == 200


def test_a_host_is_learned_at_the_login(panel) -> None:
    there = {"Host": "pod.example:7878", "Origin": "http://pod.example:7878"}
    assert log_in(panel.anonymous, "wrong", headers=there) == 401
    assert panel.client.get("/api/v1/openapi.json", headers=there).status_code == 400
    assert log_in(panel.anonymous, panel.password, headers=there) == 303
    again = create_app(panel.settings).test_client()  # after a restart
    again.set_cookie(COOKIE, panel.cookie(), domain="pod.example")
    assert again.get("/api/v1/openapi.json", headers={"Host": "POD.example"}).status_code == 200
    assert again.get("/api/v1/openapi.json", headers={"Host": "other.example"}).status_code == 400


def test_forged_forwarded_headers_change_nothing(panel) -> None:
    forged = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Prefix": "/evil",
        "Forwarded": "host=evil.example;proto=https",
        "Accept": "text/html",
    }
    client = panel.anonymous
    led = client.get("/train", headers=forged)
    assert led.location == "/login?next=/train"
    assert "evil" not in client.get("/login", headers=forged).text
    assert log_in(client, panel.password, headers=forged) == 303
    cookie = client.get_cookie(COOKIE)
    assert not cookie.secure and cookie.path == "/"


PROXIED = {
    "X-Forwarded-Host": "pod.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "198.51.100.7, 127.0.0.1",
    "X-Forwarded-Prefix": "/pilot",
    "Origin": "https://pod.example",
    "Accept": "text/html",
}


@pytest.mark.parametrize("trusted", ["socket", "address"])
def test_a_trusted_proxy_is_believed(settings: Settings, panel, tmp_path: Path, trusted: str) -> None:
    change = {"socket": tmp_path / "panel.sock"} if trusted == "socket" else {"trusted_proxies": ("127.0.0.0/8",)}
    app = create_app(replace(settings, **change))
    client = app.test_client()
    answered = client.post("/login", data={"password": panel.password, "next": "/train"}, headers=PROXIED)
    assert answered.status_code == 303 and answered.location == "/pilot/train"
    said = answered.headers["Set-Cookie"]
    assert "Secure" in said and "HttpOnly" in said and "Path=/pilot/" in said and "SameSite=Lax" in said
    session = app.extensions["pilot"].door.sessions.all()[0]
    assert session.address == ("127.0.0.1" if trusted == "socket" else "198.51.100.7")
    page = client.get("/login", headers=PROXIED).text
    assert 'action="/pilot/login"' in page and 'href="/pilot/static/' in page


def test_a_prefix_is_taken_off_where_the_proxy_leaves_it(settings: Settings) -> None:
    client = create_app(replace(settings, prefix="/a/pilot")).test_client()
    assert client.get("/a/pilot/healthz").status_code == 200
    assert client.get("/healthz").status_code == 200
    assert client.get("/train", headers={"Accept": "text/html"}).location == "/a/pilot/login?next=/train"


# --- next, headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example",
     "/a\r\nSet-Cookie: x=1", "/%0d%0aSet-Cookie:x", "javascript:alert(1)", "evil", "",
     "/\t/evil.example", "/" + "a" * 5000, "/ /evil", "/\x00"],
)  # fmt: skip
def test_next_leads_nowhere_else(panel, given: str) -> None:
    answered = panel.anonymous.post("/login", data={"password": panel.password, "next": given})
    assert answered.status_code == 303
    assert re.fullmatch(r"/|/%0d%0aSet-Cookie:x", answered.location), answered.location
    assert [line for line in answered.headers.getlist("Set-Cookie") if not line.startswith(COOKIE)] == []


@pytest.mark.parametrize("path", ["/login", "/healthz", "/nothing", "/api/v1/openapi.json", "/static/css/tokens.css"])
def test_every_answer_carries_the_safe_headers(panel, path: str) -> None:
    for client in (panel.client, panel.anonymous):
        headers = client.get(path).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "same-origin"
        assert headers["Cache-Control"] == ("no-cache" if path.startswith("/static") else "no-store")


# --- tickets of the gateway -------------------------------------------------------------------------------------------


@pytest.fixture
def behind(settings: Settings, tmp_path: Path) -> tuple[Flask, Clock]:
    """A panel that the gateway reaches by its socket."""
    clock = Clock()
    settings = replace(settings, socket=tmp_path / "panel.sock")
    return create_app(settings, Desk(settings, clock=lambda: 1.8e9 + clock(), steady=clock)), clock


def ticket_of(app: Flask, service: str = "jupyterlab") -> str:
    door = app.extensions["pilot"].door
    session, _ = door.sessions.begin("a test", "127.0.0.1")
    return door.tickets.issue(session.digest, service)


def cross(app: Flask, ticket: str, service: str = "jupyterlab", next: str = "/lab") -> tuple[FlaskClient, object]:
    client = app.test_client()
    headers = {"X-Pilot-Service": service, "Host": "pod-7880.example", "X-Forwarded-Proto": "https"}
    return client, client.get("/auth/enter", query_string={"ticket": ticket, "next": next}, headers=headers)


def check(app: Flask, value: str, service: str = "jupyterlab", name: str | None = None) -> int:
    client = app.test_client()
    client.set_cookie(name or f"pilot_service_{service}", value)
    return client.get("/auth/check", headers={"X-Pilot-Service": service}).status_code


def test_a_ticket_opens_one_service_once(behind) -> None:
    app, _ = behind
    ticket = ticket_of(app)
    _, answered = cross(app, ticket)
    assert answered.status_code == 303 and answered.location == "/lab"
    said = answered.headers["Set-Cookie"]
    assert said.startswith("pilot_service_jupyterlab=") and "Domain" not in said
    assert all(part in said for part in ("HttpOnly", "SameSite=Lax", "Path=/", "Secure"))
    cookie = said.split(";")[0].split("=", 1)[1]
    assert check(app, cookie) == 204
    assert check(app, cookie, "comfyui") == 401, "of another service"
    assert check(app, cookie, "panel", COOKIE) == 401, "not a login of the panel"
    assert cross(app, ticket)[1].status_code == 403, "used"


def test_a_ticket_is_for_half_a_minute(behind) -> None:
    app, clock = behind
    good, late = ticket_of(app), ticket_of(app)
    clock.now += 29
    assert cross(app, good)[1].status_code == 303
    clock.now += 1
    assert cross(app, late)[1].status_code == 403


@pytest.mark.parametrize("given", ["", "x", "é", "a" * 5000])
def test_a_made_up_ticket_opens_nothing(behind, given: str) -> None:
    assert cross(behind[0], given)[1].status_code == 403


def test_a_ticket_tried_at_another_service_is_spent(behind) -> None:
    app, _ = behind
    ticket = ticket_of(app)
    assert cross(app, ticket, "comfyui")[1].status_code == 403
    assert cross(app, ticket)[1].status_code == 403


def test_logging_out_closes_the_services_too(behind, panel) -> None:
    app, _ = behind
    client = app.test_client()
    client.environ_base["HTTP_ORIGIN"] = "http://localhost"
    assert log_in(client, panel.password) == 303
    door = app.extensions["pilot"].door
    session = door.sessions.all()[0]
    cookie, waiting = door.sessions.service_cookie(session, "comfyui"), door.tickets.issue(session.digest, "comfyui")
    assert check(app, cookie, "comfyui") == 204
    assert client.post("/logout").status_code == 303
    assert check(app, cookie, "comfyui") == 401
    assert cross(app, waiting, "comfyui")[1].status_code == 403


def test_only_the_gateway_may_ask(panel, behind) -> None:
    headers = {"X-Pilot-Service": "jupyterlab"}
    for client in (panel.client, panel.anonymous):
        assert client.get("/auth/check", headers=headers).status_code == 404
        assert client.get("/auth/enter?ticket=x", headers=headers).status_code == 404
    assert behind[0].test_client().get("/auth/check").status_code == 404


def test_the_way_into_a_service_leads_nowhere_else(behind) -> None:
    app, _ = behind
    for given in ("//evil.example", "https://evil.example", "/\\evil"):
        assert cross(app, ticket_of(app), next=given)[1].location == "/"
