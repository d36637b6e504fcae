"""The gateway: nginx, the only public listener. One origin for the panel and one for each service, behind one login.

`render` turns the services into nginx.conf; boot writes it with `write` before supervisord starts. The rules are text,
the templates beside this file (main, panel, service, proxy); what needs a program is in gateway.js.

Requests to a service ask the panel first (`/auth/check` on its unix socket), which is remembered for ten seconds and
refuses where the panel does not answer. `/.pilot/enter?ticket=` of each service's origin is the panel's `/auth/enter`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from controlpilot.services import Service
from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent
JS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")  # Debian's libnginx-mod-http-js
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*")
SAFE_LABEL = re.compile(r"[A-Za-z0-9 ._-]{1,40}")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d{1,5}")
TEMPLATE_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
HOST = re.compile(r"[0-9.]+|\[[0-9a-f:]+\]|\*")


class GatewaySettings(Protocol):
    """What the gateway takes from the panel's settings."""

    @property
    def run(self) -> Path: ...
    @property
    def url_template(self) -> str | None: ...
    @property
    def behind_proxy(self) -> bool: ...


def render(
    settings: GatewaySettings,
    services: Iterable[Service],
    *,
    listen: str = "0.0.0.0",
    panel_socket: Path | None = None,
    access_log: str = "/dev/stdout",
) -> str:
    """nginx.conf. listen: the address of every public port; panel_socket: where the panel listens, else run/panel.sock.

    Only services with a port and an upstream get an origin. Raises PilotError for a value that could not stand in the
    file: nothing in it is quoted, everything is checked.
    """
    public = [service for service in services if service.port and service.upstream]
    panels = [service for service in public if service.name == "panel"]
    if len(panels) != 1:
        raise PilotError(
            "gateway", f"{len(panels)} services named panel", "one", "keep controlpilot/services/panel.conf"
        )
    panel_port = panels[0].port
    proxied = settings.behind_proxy
    common = {
        "LISTEN": _checked("listen", listen, HOST),
        "BEHIND": "1" if proxied else "0",
        "PANEL": _panel_address(settings.url_template, panel_port),
        "PANEL_PORT": str(panel_port),
        "PANEL_SOCKET": _checked("panel socket", panel_socket or settings.run / "panel.sock", SAFE_PATH),
        "SCHEME": "$pilot_told_scheme" if proxied else "$scheme",
        "CLIENT": "$proxy_add_x_forwarded_for" if proxied else "$remote_addr",
    }
    servers = []
    for service in public:
        is_panel = service.name == "panel"
        prefix = "$http_x_forwarded_prefix" if proxied and is_panel else '""'
        values = common | {"PORT": str(service.port), "PROXY": _filled("proxy", common | {"PREFIX": prefix}).strip()}
        if is_panel:
            servers.append(_filled("panel", values | {"DEFAULT": " default_server"}))
        else:
            servers.append(_filled("service", values | _own_values(service)))
    return _filled(
        "main",
        {
            "JS_MODULE": str(JS_MODULE),
            "OWN": _checked("run folder", settings.run / "gateway", SAFE_PATH),
            "SCRIPT": _checked("script", FOLDER / "gateway.js", SAFE_PATH),
            "ACCESS_LOG": _checked("access log", access_log, SAFE_PATH),
            "SERVERS": "\n".join(servers),
        },
    )


def write(settings: GatewaySettings, services: Iterable[Service], *, listen: str = "0.0.0.0") -> Path:
    """Writes run/nginx.conf and returns its path. The caller owns the folder and makes run/gateway for the user that
    nginx runs as."""
    place = settings.run / "nginx.conf"
    beside = place.with_suffix(".new")
    beside.write_text(render(settings, services, listen=listen), "utf-8")
    beside.chmod(0o644)
    beside.replace(place)
    return place


def _own_values(service: Service) -> dict[str, str]:
    upstream = service.upstream or ""
    if upstream.startswith("unix:"):
        upstream = "http://unix:" + _checked("socket", upstream.removeprefix("unix:"), SAFE_PATH)
    else:
        upstream = _checked(f"{service.name}: upstream", upstream, ADDRESS)
    rules = []
    for pattern in service.deny:
        # try_files comes after the login: without one the answer is 401, as everywhere.
        rules.append(f"        location ~* {_pattern(service, pattern)} {{ try_files /.pilot/none =403; }}\n")
    for pattern in service.same_origin:
        rules.append(
            f"        location ~* {_pattern(service, pattern)} {{\n"
            "            if ($pilot_unproven) { return 403; }\n"
            "            js_header_filter gateway.keepOurs;\n"
            f"            proxy_pass {upstream};\n"
            "        }\n"
        )
    return {
        "NAME": _checked("service", service.name, re.compile(r"[a-z][a-z0-9-]*")),
        "LABEL": _checked(f"{service.name}: label", service.label, SAFE_LABEL),
        "UPSTREAM": upstream,
        "RULES": "".join(rules),
    }


def _panel_address(template: str | None, port: int | None) -> str:
    if not template:
        return ""
    return _checked("PILOT_URL_TEMPLATE", template.replace("{port}", str(port)), TEMPLATE_ADDRESS).rstrip("/")


def _pattern(service: Service, pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise PilotError(f"{service.name}: pattern", pattern, "a regular expression", str(error)) from error
    if re.search(r'["\s{};$]', pattern):
        raise PilotError(f"{service.name}: pattern", pattern, 'no space, quote, brace, ";" or "$"', "write it without")
    doubled = pattern.replace("\\", "\\\\")  # nginx takes one backslash of two out of a quoted text
    return f'"{doubled}"'


def _checked(where: str, value: object, allowed: re.Pattern[str]) -> str:
    if not allowed.fullmatch(str(value)):
        raise PilotError(f"gateway: {where}", value, allowed.pattern, "choose a plainer value")
    return str(value)


def _filled(template: str, values: dict[str, str]) -> str:
    """The template with every @NAME@ filled in one pass; one without a value is an error (KeyError)."""
    text = (FOLDER / f"{template}.template").read_text("utf-8")
    return re.sub(r"@([A-Z_]+)@", lambda match: values[match.group(1)], text)
