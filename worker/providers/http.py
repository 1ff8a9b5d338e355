"""One request over a pooled connection, for the providers that are called over HTTP (urllib3, blocking, for threads).

Owns the question that decides about every mail: whether the request was written when it failed. Never repeats a
request: what was written once may have been taken.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from worker.errors import AnswerLost, ProviderUnreachable

CONNECT_SECONDS = 10.0
# Text of an answer that is worth keeping.
MOST_ANSWER_BYTES = 1_000_000


class HttpAnswer(msgspec.Struct, frozen=True):
    """What came back; the header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpPool:
    """Connections that are kept alive between requests, `connections` at most to a host."""

    def __init__(self, connections: int) -> None:
        self._manager = _pool_manager(connections)

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> HttpAnswer:
        """One request. Raises ProviderUnreachable when nothing was written, AnswerLost when no answer came."""
        import urllib3
        from urllib3 import exceptions as trouble

        timeout = urllib3.Timeout(connect=min(CONNECT_SECONDS, timeout_seconds), total=timeout_seconds)
        try:
            answer = self._manager.request(
                method, url, body=body, headers=dict(headers), timeout=timeout, redirect=False, preload_content=False
            )
            content = answer.read(MOST_ANSWER_BYTES)
            answer.release_conn()
        except (trouble.NewConnectionError, trouble.ConnectTimeoutError, trouble.ProxyError) as error:
            raise ProviderUnreachable(f"no connection to {_host(url)}: {_words(error)}") from None
        except (trouble.LocationValueError, UnicodeError) as error:
            raise ProviderUnreachable(f"{_host(url)} is no address to connect to: {_words(error)}") from None
        except trouble.ReadTimeoutError:
            raise AnswerLost(f"no answer from {_host(url)} within {timeout_seconds:.1f} s") from None
        except (trouble.HTTPError, OSError) as error:
            raise AnswerLost(f"no answer from {_host(url)}: {_words(error)}") from None
        return HttpAnswer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, content)

    def close(self) -> None:
        """Let go of the idle connections; those at work end with their requests."""
        self._manager.clear()


def _pool_manager(connections: int) -> Any:
    """urllib3's pools, with connections that say it when they could not be opened, their TLS handshake included."""
    import urllib3
    from urllib3 import connection, connectionpool

    class Connection(connection.HTTPSConnection):
        def connect(self) -> None:
            try:
                super().connect()
            except (OSError, urllib3.exceptions.HTTPError) as error:
                raise ProviderUnreachable(f"no connection to {self.host}: {_words(error)}") from None

    class Pool(connectionpool.HTTPSConnectionPool):
        ConnectionCls = Connection

    manager = urllib3.PoolManager(num_pools=4, maxsize=connections, retries=False)
    manager.pool_classes_by_scheme = {"http": connectionpool.HTTPConnectionPool, "https": Pool}
    return manager


def _host(url: str) -> str:
    return url.split("/", 3)[2]


def _words(error: BaseException) -> str:
    """urllib3 begins its texts with the repr of a connection, which tells nobody anything."""
    text = str(error).strip() or type(error).__name__
    return text.rpartition("object at 0x")[2].partition(": ")[2] or text if "object at 0x" in text else text
