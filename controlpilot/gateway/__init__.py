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
from urllib.parse import urlsplit

from controlpilot.services import Service
from controlpilot.settings import Settings
from trainpilot.errors import PilotError

FOLDER = Path(__file__).parent
JS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")  # Debian's libnginx-mod-http-js
SAFE_PATH = re.compile(r"/[A-Za-z0-9._/+@-]*")
SAFE_LABEL = re.compile(r"[A-Za-z0-9 ._-]{1,40}")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d{1,5}")
PUBLIC_ADDRESS = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~/-]*)?")
NETWORK = re.compile(r"[0-9a-fA-F.:]+(/\d{1,3})?")
HOST = re.compile(r"[0-9.]+|\[[0-9a-f:]+\]|\*")


def render(
    settings: Settings,
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
    common = {
        "LISTEN": _checked("listen", listen, HOST),
        "PANEL_SOCKET": _checked("panel socket", panel_socket or settings.run / "panel.sock", SAFE_PATH),
        **_panel_values(settings, panels[0].port or 0),
    }
    servers = []
    for service in public:
        is_panel = service.name == "panel"
        proxy = _filled("proxy", {"PREFIX": "$pilot_prefix" if is_panel else '""'}).strip()
        values = common | {"PORT": str(service.port), "PROXY": proxy}
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
            "TRUSTED": "".join(f" {_checked('proxy', net, NETWORK)} 1;" for net in settings.trusted_proxies),
            "PUBLISHED": "".join(_published(settings, public)),
            "SERVERS": "\n".join(servers),
        },
    )


def write(settings: Settings, services: Iterable[Service], *, listen: str = "0.0.0.0") -> Path:
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
            "            if ($pilot_unproven) { rewrite ^ /.pilot/refused last; }\n"
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


def _panel_values(settings: Settings, port: int) -> dict[str, str]:
    """Where the page that says "not signed in" points to: an address, or the port on the same host."""
    address = ""
    published = settings.ports.get(port, port)
    if settings.url_template:
        address = settings.url_template.format(port=port, service="panel").rstrip("/")
    elif settings.public_host and port in settings.ports:
        address = f"http://{settings.public_host}:{published}"
    if address:
        _checked("public address", address, PUBLIC_ADDRESS)
    return {"PANEL": address + settings.prefix, "PANEL_PORT": str(published)}


def _published(settings: Settings, services: Iterable[Service]) -> list[str]:
    """Lines for nginx's map: the host of each public address and the scheme it is reached by."""
    lines: dict[str, str] = {}
    for service in services:
        if settings.url_template:
            address = settings.url_template.format(port=service.port, service=service.name)
            parts = urlsplit(_checked("PILOT_URL_TEMPLATE", address, PUBLIC_ADDRESS))
            lines[parts.netloc.lower()] = parts.scheme
    return [f' "{host}" {scheme};' for host, scheme in lines.items()]


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
