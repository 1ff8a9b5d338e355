"""The one HTTP that there is: `/metrics`, `/healthz` and `/readyz`, on METRICS_PORT or the next free one of its range.

Served by threads of its own, so that it answers however busy the loop is. There are a few, from the start on: a thread
that is begun while a greedy template has used up the memory of its render would never run. An answer of 503 has the
reason as its body.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import TCPServer
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog

from worker import metrics
from worker.errors import SettingsError
from worker.settings import Settings
from worker.vital_signs import VitalSigns

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

THREADS = 3
_PLAIN = ("Content-Type", "text/plain; charset=utf-8")

log = structlog.get_logger(__name__)


class _Server(WSGIServer):
    # How soon a thread notices that the server ends.
    timeout = 0.2
    # IPv4 comes to such a socket too, where the system lets it.
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def server_bind(self) -> None:
        """Listen on all addresses of this machine, of both kinds, and do not ask the DNS for its name."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", self.server_address[1]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who hangs up, or says nothing, is nothing to tell of."""
        log.debug("a metrics client went away")


class _Quiet(WSGIRequestHandler):
    # Somebody who asks and does not wait must not hold a thread for ever.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is nothing to tell of."""


@contextmanager
def serve_metrics(settings: Settings, signs: VitalSigns) -> Iterator[int]:
    """Serve while the context is open; yields the port, 0 for none. Raises SettingsError when no port is free."""
    if not settings.metrics_port:
        yield 0
        return
    metrics.tell_version()
    with _bound(settings, _application(signs)) as server:
        ended = threading.Event()
        for _ in range(THREADS):
            threading.Thread(target=_serve, args=(server, ended), name="metrics", daemon=True).start()
        log.info("metrics", port=server.server_port)
        try:
            yield server.server_port
        finally:
            ended.set()


def _serve(server: WSGIServer, ended: threading.Event) -> None:
    while not ended.is_set():
        try:
            server.handle_request()
        except (OSError, ValueError):
            # The socket was closed, at the end.
            return


def _bound(settings: Settings, application: "Callable[..., Iterable[bytes]]") -> WSGIServer:
    first, number = settings.metrics_port, settings.metrics_port_range
    for port in range(first, min(first + number, 65536)):
        try:
            return make_server("", port, application, _Server, _Quiet)
        except OSError:
            continue
    raise SettingsError(
        f"METRICS_PORT={first} is taken{f', and so are the {number - 1} after it' if number > 1 else ''}: "
        "set another port, a greater METRICS_PORT_RANGE, or 0 for none."
    )


def _application(signs: VitalSigns) -> "Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]":
    from prometheus_client import make_wsgi_app

    exposition = make_wsgi_app()

    def answer(environment: "WSGIEnvironment", start: "StartResponse") -> Iterable[bytes]:
        match environment.get("PATH_INFO"):
            case "/metrics":
                page: Iterable[bytes] = exposition(environment, start)
                return page
            case "/healthz":
                return _verdict(start, signs.trouble())
            case "/readyz":
                return _verdict(start, signs.trouble() or signs.not_ready())
            case _:
                start("404 Not Found", [_PLAIN])
                return [b"/metrics, /healthz and /readyz are here\n"]

    return answer


def _verdict(start: "StartResponse", trouble: str | None) -> Iterable[bytes]:
    start("503 Service Unavailable" if trouble else "200 OK", [_PLAIN])
    return [(trouble or "ok").encode() + b"\n"]
