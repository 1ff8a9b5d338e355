"""One request: whether it was written when it failed is what decides between a failure and a doubt."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from worker.errors import AnswerLost, ProviderUnreachable
from worker.providers.http import HttpPool


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port; each connection is given to `serve` and then closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield server.getsockname()[1]
        over.set()
        thread.join()


def hangs(connection: socket.socket) -> None:
    """Says nothing for longer than anybody waits."""
    connection.settimeout(1.0)
    try:
        while connection.recv(4096):
            pass
    except TimeoutError:
        return


def closes(_: socket.socket) -> None:
    """Closes at once."""


def says_nonsense(connection: socket.socket) -> None:
    """Speaks no TLS."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("serve", [hangs, closes, says_nonsense])
def test_a_handshake_that_fails_is_a_definite_failure(serve: Callable[[socket.socket], None]) -> None:
    """Nothing of the request was written: the fallback may try, and nobody waits for evidence."""
    pool = HttpPool(1)
    with listener(serve) as port, pytest.raises(ProviderUnreachable):
        pool.request("POST", f"https://127.0.0.1:{port}/", {}, b"x", 0.3)
    pool.close()


@pytest.mark.parametrize("serve", [hangs, lambda connection: connection.recv(10)])
def test_no_answer_to_a_written_request_is_a_doubt(serve: Callable[[socket.socket], None]) -> None:
    """It may have been taken."""
    pool = HttpPool(1)
    with listener(serve) as port, pytest.raises(AnswerLost):
        pool.request("POST", f"http://127.0.0.1:{port}/", {}, b"x", 0.3)
    pool.close()


def test_nobody_there_is_a_definite_failure() -> None:
    """A refused connection, and a name that is none."""
    pool = HttpPool(1)
    for url in ("http://127.0.0.1:1/", "https://127.0.0.1:1/", "http://nowhere.invalid/"):
        with pytest.raises(ProviderUnreachable):
            pool.request("POST", url, {}, b"x", 2.0)
    pool.close()
