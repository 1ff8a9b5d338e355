"""Fixtures of these tests: databases for a module, and a running worker that a module's tests share."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from lab.postgres import ExternalServer, PostgresServer
from lab.sink_process import Sink
from tests.integration.command import Command
from tests.integration.office import Office, open_office
from tests.integration.rows import Connection
from tests.support import Database

_numbers = count(1)


@pytest.fixture
def empty_database(postgres: PostgresServer | ExternalServer) -> Iterator[Database]:
    """A database with nothing in it."""
    name = f"email_empty_{next(_numbers)}"
    postgres.drop_database(name)
    postgres.create_database(name)
    yield Database(postgres, name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def _jobs_database(postgres: PostgresServer | ExternalServer, migrated_template: str) -> Iterator[Database]:
    postgres.drop_database("email_jobs_only")
    postgres.create_database("email_jobs_only", template=migrated_template)
    yield Database(postgres, "email_jobs_only")
    postgres.drop_database("email_jobs_only")


@pytest.fixture
def jobs_database(_jobs_database: Database) -> Database:
    """A migrated database without jobs, for tests that leave nothing else behind: it is used again."""
    with _jobs_database.connect() as connection:
        connection.execute("TRUNCATE email_jobs, email_attempts, email_tracking")
    return _jobs_database


@pytest.fixture(scope="module")
def module_database(postgres: PostgresServer | ExternalServer, migrated_template: str) -> Iterator[Database]:
    """A migrated database that the tests of a module share."""
    name = f"email_module_{next(_numbers)}"
    postgres.drop_database(name)
    postgres.create_database(name, template=migrated_template)
    yield Database(postgres, name)
    postgres.drop_database(name)


@pytest.fixture
def shared_db(module_database: Database) -> Iterator[Connection]:
    """An autocommit connection to the module's database: for tests that leave nothing behind."""
    with module_database.connect() as connection:
        yield connection


@pytest.fixture(scope="module")
def office(module_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A running worker that retries at once, and a sink with some difficult recipients. Job ids must differ.

    `refused…` is refused for good, `busy…` once, `always-busy…` every time.
    """
    folder: Path = tmp_path_factory.mktemp("office")
    sink = Sink(
        maildir=folder,
        ledger=folder / "ledger",
        refuse=["refused*"],
        refuse_first=[("busy*", 1), ("always-busy*", 1000)],
    )
    settings = {
        "EMAIL_RETRY_DELAY_SECONDS": 0,
        "EMAIL_MAX_RETRIES": 2,
        "EMAIL_UNSUBSCRIBE_URL": "https://example.org/out/{id}",
    }
    with sink, open_office(module_database, folder, sink, **settings) as opened:
        yield opened


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """`email-worker`, in an empty folder."""
    return Command(monkeypatch, capsys, tmp_path)
