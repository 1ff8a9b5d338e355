"""The plans of the statements that run for every batch, with and without statistics."""

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from lab.postgres import ExternalServer, PostgresServer
from tests.integration.rows import insert_jobs, value
from tests.support import Database
from worker.db import SQL_FOLDER, connection_parameters

INDEX = re.compile(r"^-- index: (\w+)$", re.MULTILINE)
PLANNED = sorted(file.stem for file in (SQL_FOLDER / "queries").glob("*.sql") if INDEX.search(file.read_text()))


@pytest.fixture(scope="module")
def full_template(module_database: Database) -> str:
    """A database with 20,000 jobs, half of them sent already, that nobody has analyzed."""
    with module_database.connect() as db:
        db.execute("ALTER TABLE email_jobs SET (autovacuum_enabled = off)")
        insert_jobs(db, 20_000)
        db.execute("UPDATE email_jobs SET status = 'sent' WHERE seq <= 10000")
    return module_database.name


@pytest.fixture(scope="module", params=["never analyzed", "analyzed"])
def full_queue(
    request: pytest.FixtureRequest, postgres: PostgresServer | ExternalServer, full_template: str
) -> Iterator[Database]:
    """The same queue without and with statistics."""
    name = "email_full_queue"
    postgres.drop_database(name)
    postgres.create_database(name, template=full_template)
    database = Database(postgres, name)
    with database.connect() as db:
        if request.param == "analyzed":
            db.execute("ANALYZE")
        statistics = value(db, "SELECT count(*) FROM pg_stats WHERE tablename = 'email_jobs'")
        assert bool(statistics) is (request.param == "analyzed")
    yield database
    postgres.drop_database(name)


def generic(statement: str) -> bytes:
    """The statement with numbered placeholders instead of psycopg's names."""
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        if match[1] not in names:
            names.append(match[1])
        return f"${names.index(match[1]) + 1}"

    return re.sub(r"%\((\w+)\)s", number, statement).encode()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node of a plan."""
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


def test_some_statements_name_their_index() -> None:
    """The claim is among those that the next test looks at."""
    assert "claim_jobs" in PLANNED


@pytest.mark.parametrize("name", PLANNED)
def test_a_statement_uses_the_index_that_it_names(full_queue: Database, name: str) -> None:
    """In a worker's session the generic plan reads the named index, never the whole table, and sorts nothing."""
    statement = (SQL_FOLDER / "queries" / f"{name}.sql").read_text()
    index = INDEX.search(statement)
    assert index is not None
    with psycopg.connect(**connection_parameters(full_queue.settings(), "tests plans"), autocommit=True) as worker:
        ((plans,),) = worker.execute(b"EXPLAIN (GENERIC_PLAN, FORMAT JSON)\n" + generic(statement)).fetchall()
    found = list(nodes(plans[0]["Plan"]))
    # An index is named after its table.
    on_it = [node for node in found if node.get("Relation Name") == index[1].rpartition("_")[0]]
    assert on_it
    for node in on_it:
        assert node["Node Type"] in ("Index Scan", "Index Only Scan")
        assert node["Index Name"] == index[1]
        assert node["Index Cond"]
        assert name != "claim_jobs" or "next_attempt_at" in node["Index Cond"]
    assert [node["Node Type"] for node in found if "Sort" in node["Node Type"]] == []
