"""A way to Redis that loses one answer: Redis has done what it was asked, and the connection ends before it says so."""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from lab.redis import RedisServer

READ_SIZE = 65_536


class LosingProxy(socketserver.ThreadingTCPServer):
    """Relays connections; see `lose`."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, server: RedisServer) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.upstream = (server.host, server.port)
        self.port: int = self.server_address[1]
        self.lost = 0
        self._command: bytes | None = None
        self._before: Callable[[], None] = lambda: None

    def lose(self, command: bytes, before: Callable[[], None]) -> None:
        """Lose the answer to the next such command; `before` is called before Redis hears of it."""
        self._before = before
        self._command = command

    def is_to_be_lost(self, data: bytes) -> bool:
        """Whether the answer to this is the one."""
        if self._command is None or self._command not in data:
            return False
        self._command = None
        self._before()
        return True


class _Connection(socketserver.BaseRequestHandler):
    server: LosingProxy
    request: socket.socket

    def handle(self) -> None:
        """Relay until one side ends."""
        self._loses = False
        with socket.create_connection(self.server.upstream) as upstream:
            answers = threading.Thread(target=self._answer, args=(upstream,), daemon=True)
            answers.start()
            with suppress(OSError):
                while data := self.request.recv(READ_SIZE):
                    self._loses = self._loses or self.server.is_to_be_lost(data)
                    upstream.sendall(data)
            _end(upstream)
            answers.join()

    def _answer(self, upstream: socket.socket) -> None:
        with suppress(OSError):
            while data := upstream.recv(READ_SIZE):
                if self._loses:
                    self.server.lost += 1
                    break
                self.request.sendall(data)
        _end(self.request)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def losing_proxy(server: RedisServer) -> Iterator[LosingProxy]:
    """A proxy in threads of its own."""
    with LosingProxy(server) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, name="losing proxy", daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
