"""The migrated schema as its readers see it: closed lists, and comments that are the manual."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import psycopg
import pytest

from tests.integration.rows import Connection, column, insert_job, rows, value
from worker.job import AttemptState, Category, Event, Guarantee, Priority, Queue, Status, SuppressionReason

ENUMS: dict[str, type[StrEnum]] = {
    "email_attempt_state": AttemptState,
    "email_category": Category,
    "email_event": Event,
    "email_guarantee": Guarantee,
    "email_priority": Priority,
    "email_queue": Queue,
    "email_status": Status,
    "email_suppression_reason": SuppressionReason,
}

# Columns whose name alone could mislead, or that have a rule.
EXPLAINED = {
    "email_types": ["queue", "guarantee", "max_retries", "opt_out"],
    "email_jobs": [
        "job_id", "seq", "subject", "content", "options", "attempt_no", "next_attempt_at", "expires_at", "max_retries",
        "processed_at", "message_id",
    ],
    "email_attempts": ["seq", "reason", "answer"],
    "email_tracking": ["id", "xid"],
    "email_templates": ["text_content", "variables"],
}  # fmt: skip

FUNCTIONS = """
SELECT p.proname, d.description, p.prorettype = 'trigger'::regtype
FROM pg_proc AS p
LEFT JOIN pg_description AS d ON d.objoid = p.oid AND d.classoid = 'pg_proc'::regclass
WHERE p.pronamespace = 'public'::regnamespace AND starts_with(p.proname, 'email_')
ORDER BY p.proname
"""
RELATIONS = """
SELECT c.relname, obj_description(c.oid, 'pg_class')
FROM pg_class AS c
WHERE c.relnamespace = 'public'::regnamespace AND starts_with(c.relname, 'email_') AND c.relkind = %s
ORDER BY c.relname
"""


@contextmanager
def allowing_our_own_errors() -> Iterator[None]:
    """An example may be about a job that is not there."""
    try:
        yield
    except psycopg.Error as error:
        if not (error.sqlstate or "").startswith("EM"):
            raise


def test_every_enum_of_the_schema_is_an_enum_of_the_worker(shared_db: Connection) -> None:
    """The same lists, with the same values in the same order, on both sides."""
    found: dict[str, list[str]] = {}
    for name, label in rows(
        shared_db,
        "SELECT t.typname, e.enumlabel FROM pg_enum AS e JOIN pg_type AS t ON e.enumtypid = t.oid"
        " WHERE starts_with(t.typname, 'email_') ORDER BY t.typname, e.enumsortorder",
    ):
        found.setdefault(name, []).append(label)
    assert found == {name: [str(member) for member in enum] for name, enum in ENUMS.items()}


def test_every_table_is_commented(shared_db: Connection) -> None:
    """\\dt+ says what each of our tables is for."""
    tables = dict(rows(shared_db, RELATIONS, "r"))
    assert set(tables) >= {*EXPLAINED, "email_schema"}
    assert [name for name, comment in tables.items() if not comment] == []


def test_every_view_and_function_is_commented(shared_db: Connection) -> None:
    """\\dv+ and \\df+ are the operator's manual."""
    comments = dict(rows(shared_db, RELATIONS, "v")) | {name: text for name, text, _ in rows(shared_db, FUNCTIONS)}
    assert set(comments) >= {
        "email_books", "email_books_difference", "email_cancel", "email_dead_letters", "email_enqueue",
        "email_in_flight", "email_queue_depth", "email_requeue", "email_requeue_dead", "email_timeline",
    }  # fmt: skip
    assert [name for name, comment in comments.items() if not comment] == []


@pytest.mark.parametrize("table", EXPLAINED)
def test_columns_with_a_rule_are_commented(shared_db: Connection, table: str) -> None:
    """\\d+ explains what a column's name does not."""
    commented = column(
        shared_db,
        "SELECT a.attname FROM pg_attribute AS a WHERE a.attrelid = %s::regclass AND a.attname = ANY(%s)"
        " AND col_description(a.attrelid, a.attnum) <> '' ORDER BY array_position(%s, a.attname::text)",
        table,
        EXPLAINED[table],
        EXPLAINED[table],
    )
    assert commented == EXPLAINED[table]


def test_the_example_of_each_comment_can_be_run(shared_db: Connection) -> None:
    """The second line of a comment is a statement that works as it stands, at most with one of our own errors."""
    examples = [comment.partition("\n")[2] for _, comment in rows(shared_db, RELATIONS, "v")]
    for name, comment, is_trigger in rows(shared_db, FUNCTIONS):
        example = comment.partition("\n")[2]
        assert example or is_trigger or name == "email_wake", f"{name} has no example"
        examples += [example] if example else []
    assert len(examples) >= 10
    for example in examples:
        with shared_db.transaction(force_rollback=True), allowing_our_own_errors():
            shared_db.execute(example.encode())


def test_the_journal_does_not_point_at_jobs(shared_db: Connection) -> None:
    """A foreign key from email_attempts would wait for the claim that waits for the send."""
    assert (
        rows(
            shared_db, "SELECT conname FROM pg_constraint WHERE conrelid = 'email_attempts'::regclass AND contype = 'f'"
        )
        == []
    )


def test_a_job_with_events_is_not_deleted_by_accident(shared_db: Connection) -> None:
    """Events name a job that exists."""
    with shared_db.transaction(force_rollback=True):
        insert_job(shared_db)
        shared_db.execute("INSERT INTO email_tracking (job_id, event_type) SELECT id, 'opened' FROM email_jobs")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            shared_db.execute("DELETE FROM email_jobs")


def test_each_event_knows_its_transaction(shared_db: Connection) -> None:
    """(xid, seq) is the order by which the table can be followed without gaps."""
    with shared_db.transaction(force_rollback=True):
        insert_job(shared_db)
        shared_db.execute("INSERT INTO email_tracking (job_id, event_type) SELECT id, 'opened' FROM email_jobs")
        assert value(shared_db, "SELECT xid = pg_current_xact_id() FROM email_tracking")
