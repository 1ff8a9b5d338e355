"""Fixtures: a real Postgres for the session, and a fresh, migrated database for each test that asks for one."""

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

from lab.postgres import ExternalServer, PostgresServer, server_from_environment
from lab.sink_process import Sink
from tests.support import Database
from worker.db import connect_once
from worker.migrate import migrate
from worker.settings import Settings

TEMPLATE = "email_test_template"
_numbers = count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer | ExternalServer]:
    """The embedded Postgres of this session, or the server that TEST_DATABASE_HOST names."""
    external = server_from_environment()
    if external is not None:
        yield external
        return
    # Tests ask whether the right thing is committed, not whether the disk kept it.
    with PostgresServer(settings={"fsync": "off", "max_connections": "200"}) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_template(postgres: PostgresServer | ExternalServer) -> str:
    """A migrated database that each test's own is cloned from."""
    postgres.drop_database(TEMPLATE)
    postgres.create_database(TEMPLATE)
    with connect_once(Database(postgres, TEMPLATE).settings(), "tests") as connection:
        migrate(connection)
    return TEMPLATE


@pytest.fixture
def database(postgres: PostgresServer | ExternalServer, migrated_template: str) -> Iterator[Database]:
    """A migrated database of this test's own."""
    name = f"email_test_{next(_numbers)}"
    postgres.drop_database(name)
    postgres.create_database(name, template=migrated_template)
    yield Database(postgres, name)
    postgres.drop_database(name)


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An autocommit connection to the test's database."""
    with database.connect() as connection:
        yield connection


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A fast SMTP sink in a process of its own."""
    with Sink() as server:
        yield server


@pytest.fixture
def settings(database: Database) -> Settings:
    """Settings for the test's database, with the defaults for everything else."""
    return database.settings()
