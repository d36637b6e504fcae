"""The panel as a process: waitress on a port or a unix socket. Used by `controlpilot serve` and the browser tests."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from typing import Any

from waitress.server import create_server

from controlpilot.app import create_app
from controlpilot.auth.passwords import forget_in, prepare
from controlpilot.companions import Companions
from controlpilot.settings import Settings, bracketed
from trainpilot.errors import PilotError

THREADS = 8  # a page waits for the disk, not for the processor; long polls do not exist
_ARENAS, _ARENAS_MOST = -8, 2  # M_ARENA_MAX of malloc.h; each further arena keeps what its threads once needed


def make_server(settings: Settings, app: Any) -> Any:
    """A waitress server that listens already; `.run()` serves, `.close()` ends it."""
    options: dict[str, Any] = {
        "threads": THREADS,
        "ident": None,  # no Server header
        "max_request_body_size": app.config["MAX_CONTENT_LENGTH"],
        "channel_timeout": 60,
        "clear_untrusted_proxy_headers": False,  # controlpilot.auth decides whom it believes
    }
    if settings.socket is not None:
        settings.socket.unlink(missing_ok=True)  # left by a panel that was killed
        return create_server(app, unix_socket=str(settings.socket), unix_socket_perms="660", **options)
    try:
        return create_server(app, host=settings.host, port=settings.port, **options)
    except OSError as error:
        given = f"{settings.host}:{settings.port}: {error.strerror}"
        remedy = "End what holds it, or choose another with --port or PILOT_PORT."
        raise PilotError("address of the panel", given, "a free port of this machine", remedy) from error


def serve(settings: Settings, helpers: bool) -> int:
    """Serve until SIGTERM or SIGINT. helpers: run a worker and a courier beside it, as a machine without supervisord
    needs them."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    prepared = prepare(settings.secrets, os.environ)
    forget_in(os.environ)
    if prepared.generated is not None:
        print(
            f"The panel's password is {prepared.generated} (shown once; controlpilot password sets another)", flush=True
        )
    _spare_memory()
    app = create_app(settings)
    server = make_server(settings, app)
    telemetry = app.extensions["pilot"].telemetry
    telemetry.start()
    companions = Companions(settings, tell=lambda line: print(line, flush=True)) if helpers else None
    signal.signal(signal.SIGTERM, _end)
    where = settings.socket or f"http://{bracketed(settings.host)}:{server.effective_port}{settings.prefix}/"
    print(f"ControlPilot serves {settings.workspace.root} on {where} (process {os.getpid()})", flush=True)
    try:
        if companions:
            companions.start()
        server.run()
    finally:
        server.close()
        if companions:
            companions.stop()
        telemetry.stop()
    return 0


def _spare_memory() -> None:
    """Let glibc's threads share two arenas instead of keeping up to eight a core; another libc needs no such word."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENAS, _ARENAS_MOST)


def _end(number: int, frame: Any) -> None:
    """waitress ends its loop at SystemExit; what is being answered is answered."""
    raise SystemExit(0)
