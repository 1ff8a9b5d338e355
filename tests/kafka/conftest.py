"""A broker and a Postgres to harm for the session, and a road of each test's own."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lab.kafka import Broker, broker
from lab.postgres import PostgresServer
from tests.kafka import scene
from tests.support import Database
from worker.db import connect_once
from worker.migrate import migrate

PARTITIONS = 3
TEMPLATE = "migrated"
_numbers = count(1)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Broker]:
    """The embedded broker of this session, or the real one that the environment names."""
    with broker() as brokers:
        yield brokers


@pytest.fixture
def road(kafka: Broker, database: Database, tmp_path: Path) -> Iterator[scene.Road]:
    """Topics of three partitions, a group and a database that no other test uses."""
    with scene.open_road(kafka, database, tmp_path, PARTITIONS) as road:
        yield road


@pytest.fixture
def own_broker_road(kafka: Broker, database: Database, tmp_path: Path) -> Iterator[scene.Road]:
    """A road whose broker may be killed."""
    if not kafka.controllable:
        pytest.skip("these brokers are not ours to kill")
    with broker() as own, scene.open_road(own, database, tmp_path, PARTITIONS) as road:
        try:
            yield road
        finally:
            # The test may have started another one.
            road.broker.kill()


@pytest.fixture(scope="session")
def frail_postgres() -> Iterator[PostgresServer]:
    """A Postgres that may be stopped, killed and frozen."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        server.create_database(TEMPLATE)
        with connect_once(Database(server, TEMPLATE).settings(), "tests") as connection:
            migrate(connection)
        yield server


@pytest.fixture
def frail_database(frail_postgres: PostgresServer) -> Iterator[Database]:
    """A migrated database of it; it runs again when the test begins."""
    frail_postgres.start()
    name = f"frail_{next(_numbers)}"
    frail_postgres.create_database(name, template=TEMPLATE)
    yield Database(frail_postgres, name)
    frail_postgres.thaw()


@pytest.fixture
def frail_road(kafka: Broker, frail_database: Database, tmp_path: Path) -> Iterator[scene.Road]:
    """A road whose Postgres may be harmed."""
    with scene.open_road(kafka, frail_database, tmp_path, PARTITIONS) as road:
        yield road
