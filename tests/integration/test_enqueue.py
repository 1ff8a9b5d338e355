"""Enqueueing by plain SQL: a bare INSERT and email_enqueue() are complete."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.integration.rows import Connection, column, insert_job, job, row, rows, value
from tests.support import Database, eventually

POLICY = ["queue", "priority", "guarantee"]


def test_a_bare_insert_takes_the_policy_of_its_type(db: Connection) -> None:
    """For each of the 15 types: queue, priority and guarantee come from email_types, and the job is due now."""
    types = rows(db, "SELECT type, queue, priority, guarantee FROM email_types")
    assert len(types) == 15
    before = value(db, "SELECT clock_timestamp()")
    for name, *_ in types:
        db.execute(
            "INSERT INTO email_jobs (job_id, type, template, recipient_email) VALUES (%s, %s, %s, 'ann@example.com')",
            (name, name, name),
        )
    after = value(db, "SELECT clock_timestamp()")
    for name, *policy in types:
        *found, status, due, attempt_no, retry_count = job(
            db, [*POLICY, "status", "next_attempt_at", "attempt_no", "retry_count"], name
        )
        assert found == policy
        assert before < due < after
        assert (status, attempt_no, retry_count) == ("pending", 0, 0)


def test_new_jobs_follow_a_changed_policy(db: Connection) -> None:
    """The policy is data: a changed row of email_types holds for the next job, without touching earlier ones."""
    insert_job(db, "before")
    db.execute(
        "UPDATE email_types SET queue = 'bulk', priority = 'low', guarantee = 'at_most_once'"
        " WHERE type = 'booking-confirmation'"
    )
    insert_job(db, "after")
    assert job(db, POLICY, "before") == ("transactional", "high", "effectively_once")
    assert job(db, POLICY, "after") == ("bulk", "low", "at_most_once")


def test_the_attempt_number_is_not_the_producers(db: Connection) -> None:
    """attempt_no fences off workers: it starts at 0, or the INSERT is refused, for the highest one has no next."""
    with suppress(psycopg.Error):
        insert_job(db, attempt_no=2_147_483_647)
    assert column(db, "SELECT attempt_no FROM email_jobs") in ([], [0])


def test_a_producer_may_override_the_policy(db: Connection) -> None:
    """What the INSERT names itself is kept."""
    insert_job(db, queue="bulk", priority="critical", guarantee="at_least_once")
    assert job(db, POLICY) == ("bulk", "critical", "at_least_once")


ARGUMENTS: dict[str, Any] = {
    "job_id": "order-17",
    "type": "payment-confirmation",
    "recipient_email": "ann@example.com",
    "data": {"amount": 20},
    "template": "receipt",
    "recipient_name": "Ann",
    "priority": "low",
    "scheduled_at": datetime(2099, 1, 1, tzinfo=UTC),
    "expires_at": datetime(2099, 2, 1, tzinfo=UTC),
    "max_retries": 7,
    "locale": "pt-BR",
    "subject": "Your receipt",
    "content": "<p>Thanks</p>",
    "options": {"cc": ["carl@example.com"]},
    "campaign_id": UUID(int=7),
}


@pytest.mark.parametrize("notation", ["named", "positional"])
def test_email_enqueue_fills_every_column(db: Connection, notation: str) -> None:
    """All arguments arrive in the columns of their names, and the id of the row is returned."""
    given = {name: Jsonb(what) if isinstance(what, dict) else what for name, what in ARGUMENTS.items()}
    if notation == "named":
        call = sql.SQL(", ").join(
            sql.SQL("{} => {}").format(sql.Identifier(name), sql.Placeholder(name)) for name in given
        )
        statement = sql.SQL("SELECT email_enqueue({})").format(call)
    else:
        statement = sql.SQL("SELECT email_enqueue({})").format(sql.SQL(", ").join(map(sql.Placeholder, given)))
    (returned,) = db.execute(statement, given).fetchone() or ()
    assert job(db, ["id", *ARGUMENTS], "order-17") == (returned, *ARGUMENTS.values())


def test_email_enqueue_needs_three_arguments(db: Connection) -> None:
    """job_id, type and recipient are enough: the template is the type's, data are an empty object."""
    value(db, "SELECT email_enqueue('w-1', 'welcome-email', 'ann@example.com')")
    found = job(db, ["template", "data", "priority", "scheduled_at", "status"], "w-1")
    assert found == ("welcome-email", {}, "normal", None, "pending")


def test_enqueueing_belongs_to_the_producers_transaction(db: Connection, database: Database) -> None:
    """Nobody sees the job before the producer commits, and a rollback takes it back."""
    with database.connect() as producer:
        with producer.transaction(force_rollback=True):
            value(producer, "SELECT email_enqueue('j-1', 'welcome-email', 'ann@example.com')")
            assert value(db, "SELECT count(*) FROM email_jobs") == 0
        assert value(db, "SELECT count(*) FROM email_jobs") == 0


def test_the_same_job_id_is_one_row(db: Connection) -> None:
    """email_enqueue() returns the first one's id and changes nothing; a bare second INSERT is an error."""
    first = value(db, "SELECT email_enqueue('j-1', 'welcome-email', 'ann@example.com', '{\"a\": 1}')")
    again = value(db, "SELECT email_enqueue('j-1', 'password-reset', 'eve@example.com', '{\"a\": 2}')")
    assert again == first
    assert row(db, "SELECT type, recipient_email, data FROM email_jobs") == (
        "welcome-email",
        "ann@example.com",
        {"a": 1},
    )
    with pytest.raises(psycopg.errors.UniqueViolation, match="email_jobs_job_id_key"):
        insert_job(db, "j-1")


@pytest.mark.parametrize("first_commits", [True, False], ids=["the first commits", "the first rolls back"])
def test_the_same_job_id_from_two_open_transactions_is_one_row(
    db: Connection, database: Database, first_commits: bool
) -> None:
    """The second waits for the first, then takes its row, or makes its own if there is none."""
    enqueue = "SELECT email_enqueue('j-1', 'welcome-email', %s)"
    with database.connect() as one, database.connect() as other, ThreadPoolExecutor(1) as thread:
        one.execute("BEGIN")
        other.execute("BEGIN")
        first_id = value(one, enqueue, "first@example.com")
        waiting = thread.submit(value, other, enqueue, "second@example.com")
        waits = "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s"
        eventually(lambda: value(db, waits, other.info.backend_pid) == "Lock", "the second waits")
        one.execute("COMMIT" if first_commits else "ROLLBACK")
        second_id = waiting.result()
        other.execute("COMMIT")
    assert (second_id == first_id) is first_commits
    winner = "first@example.com" if first_commits else "second@example.com"
    assert rows(db, "SELECT id, recipient_email FROM email_jobs") == [(second_id, winner)]


def test_many_connections_enqueue_the_same_jobs(db: Connection, database: Database) -> None:
    """Four producers that enqueue the same 100 jobs at once make 100 rows, and agree about their ids."""
    statement = "SELECT email_enqueue('j-' || n, 'welcome-email', 'ann@example.com') FROM generate_series(1, 100) AS n"

    def produce(_: int) -> list[UUID]:
        with database.connect() as producer:
            return column(producer, statement)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(produce, range(4)))
    assert answers == [column(db, "SELECT id FROM email_jobs ORDER BY substr(job_id, 3)::integer")] * 4
