"""email_requeue() and email_requeue_dead(): sending again what has ended."""

import psycopg
import pytest

from tests.integration.claims import claiming, take
from tests.integration.rows import Connection, column, end_job, events, insert_job, job, value
from tests.support import Database

ENDS = ["sent", "dead", "cancelled", "suppressed", "expired", "in_doubt"]


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


@pytest.mark.parametrize("end", ENDS)
def test_a_finished_job_becomes_pending_again(db: Connection, end: str) -> None:
    """Whatever its end was, it is pending with all its retries; the attempt number goes on, so that it fences."""
    insert_job(db)
    end_job(db, end, retry_count=3, error_message="because")
    returned = value(db, "SELECT email_requeue('j-1')")
    names = ["id", "status", "retry_count", "error_message", "attempt_no"]
    assert job(db, names) == (returned, "pending", 0, None, 1)
    assert events(db) == [end, "requeued"]
    assert value(
        db,
        "SELECT event_data = jsonb_build_object('was', %s::text, 'by', session_user) FROM email_tracking"
        " WHERE event_type = 'requeued'",
        end,
    )


def test_an_expiry_that_has_passed_is_lifted_and_a_later_one_is_kept(db: Connection) -> None:
    """Else a requeued job would expire at once."""
    insert_job(db, "passed", expires_at="2024-01-01 00:00Z")
    insert_job(db, "later", expires_at="2099-01-01 00:00Z")
    for name in ("passed", "later"):
        end_job(db, "dead", name)
        value(db, "SELECT email_requeue(%s)", name)
    assert job(db, ["expires_at"], "passed") == (None,)
    assert value(db, "SELECT expires_at = '2099-01-01 00:00Z' FROM email_jobs WHERE job_id = 'later'")


def test_a_pending_job_is_not_requeued(db: Connection) -> None:
    """EM003, with the due time and the way to send it sooner."""
    insert_job(db, scheduled_at="2099-01-01 00:00Z")
    with pytest.raises(psycopg.Error, match='job "j-1" is pending already, due 2099-01-01') as refusal:
        db.execute("SELECT email_requeue('j-1')")
    assert refusal.value.sqlstate == "EM003"
    assert refusal.value.diag.message_hint == "To send it sooner, set scheduled_at to now()."
    assert events(db) == []


def test_an_unknown_job_is_not_requeued(db: Connection) -> None:
    """EM002, and the hint says which of the two ids is wanted."""
    with pytest.raises(psycopg.Error, match='no job has the job_id "nope"') as refusal:
        db.execute("SELECT email_requeue('nope')")
    assert refusal.value.sqlstate == "EM002"
    assert refusal.value.diag.message_hint == "Give email_jobs.job_id, not id."


async def test_a_job_in_a_workers_hands_is_not_requeued(database: Database, db: Connection) -> None:
    """EM003 at once: it never waits for the send that holds the lock."""
    insert_job(db)
    db.execute("SET lock_timeout = '1ms'")
    async with claiming(database) as worker:
        assert await take(worker) == ["j-1"]
        with pytest.raises(psycopg.Error, match="is in a worker's hands now") as refusal:
            db.execute("SELECT email_requeue('j-1')")
    assert refusal.value.sqlstate == "EM003"


def make_dead_letters(db: Connection) -> None:
    """Two bookings and a newsletter, dead; one of the bookings long since; and a sent one."""
    for name, columns in [
        ("booking-old", {}),
        ("booking-new", {}),
        ("newsletter", {"type": "newsletter"}),
        ("sent", {}),
    ]:
        insert_job(db, name, **columns)
        end_job(db, "sent" if name == "sent" else "dead", name)
    db.execute("UPDATE email_jobs SET updated_at = now() - interval '2 days' WHERE job_id = 'booking-old'")


@pytest.mark.parametrize(
    ("call", "requeued"),
    [
        ("email_requeue_dead()", ["booking-old", "booking-new", "newsletter"]),
        ("email_requeue_dead('newsletter')", ["newsletter"]),
        ("email_requeue_dead('booking-confirmation')", ["booking-old", "booking-new"]),
        ("email_requeue_dead('booking-confirmation', now() - interval '1 day')", ["booking-new"]),
        ("email_requeue_dead(since => now() - interval '1 day')", ["booking-new", "newsletter"]),
        ("email_requeue_dead('welcome-email')", []),
    ],
)
def test_dead_letters_are_requeued_by_type_and_age(db: Connection, call: str, requeued: list[str]) -> None:
    """All of them, those of one type, or those since a moment; the number is returned, other ends are left alone."""
    make_dead_letters(db)
    (count,) = db.execute(f"SELECT {call}".encode()).fetchone() or (None,)
    assert count == len(requeued)
    assert column(db, "SELECT job_id FROM email_jobs WHERE status = 'pending' ORDER BY seq") == requeued
    assert all(events(db, name) == ["dead", "requeued"] for name in requeued)


async def test_requeueing_dead_letters_passes_over_a_locked_one(database: Database, db: Connection) -> None:
    """A dead letter that somebody else has locked stays, and does not hold up the others."""
    make_dead_letters(db)
    db.execute("SET lock_timeout = '1ms'")
    async with claiming(database) as other:
        await other.execute("BEGIN")
        await other.execute("SELECT FROM email_jobs WHERE job_id = 'booking-old' FOR UPDATE")
        assert value(db, "SELECT email_requeue_dead()") == 2
    assert job(db, ["status"], "booking-old") == ("dead",)
