"""What people look at: the queue's depth, dead letters, mails in flight, and the life of one mail."""

import pytest

from tests.integration.rows import Connection, end_job, insert_job, insert_jobs, journal, row, rows, value
from tests.support import Database


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def test_the_depth_counts_what_waits_and_what_is_due(db: Connection) -> None:
    """One line per queue, priority and type, most urgent first; ended jobs do not count."""
    insert_jobs(db, 3, "booking")
    insert_job(db, "booking-later", scheduled_at="2099-01-01 00:00Z")
    insert_job(db, "news", type="newsletter", scheduled_at="2099-01-01 00:00Z")
    insert_job(db, "reset", type="password-reset")
    insert_job(db, "done")
    end_job(db, "sent", "done")
    db.execute("UPDATE email_jobs SET next_attempt_at = now() - interval '1 hour' WHERE job_id = 'booking-2'")
    depth = rows(
        db, "SELECT queue, priority, type, pending, due, oldest_due > interval '59 min' FROM email_queue_depth"
    )
    assert depth == [
        ("transactional", "critical", "password-reset", 1, 1, False),
        ("transactional", "high", "booking-confirmation", 4, 3, True),
        ("bulk", "low", "newsletter", 1, 0, False),
    ]
    assert value(db, "SELECT oldest_due = interval '0' FROM email_queue_depth WHERE queue = 'bulk'")


def test_the_depth_of_an_empty_queue_is_no_line(db: Connection) -> None:
    """Nothing waits, nothing is shown."""
    insert_job(db)
    end_job(db, "sent")
    assert rows(db, "SELECT * FROM email_queue_depth") == []


def test_dead_letters_are_shown_newest_first_with_their_reason(db: Connection) -> None:
    """Only what is dead, with why and since when, under the names that the comment's example groups by."""
    for name, reason in [("first", "550 no such mailbox"), ("second", "451 busy"), ("third", "550 no such mailbox")]:
        insert_job(db, name)
        end_job(db, "dead", name, error_message=reason, retry_count=3, provider="smtp")
    insert_job(db, "sent")
    end_job(db, "sent", "sent")
    letters = rows(db, "SELECT job_id, type, template, error_message, retry_count, provider FROM email_dead_letters")
    assert letters == [
        ("third", "booking-confirmation", "booking-confirmation", "550 no such mailbox", 3, "smtp"),
        ("second", "booking-confirmation", "booking-confirmation", "451 busy", 3, "smtp"),
        ("first", "booking-confirmation", "booking-confirmation", "550 no such mailbox", 3, "smtp"),
    ]
    assert value(
        db,
        "SELECT bool_and(d.dead_since = j.updated_at AND d.id = j.id)"
        " FROM email_dead_letters AS d JOIN email_jobs AS j USING (job_id)",
    )


def test_in_flight_shows_open_intents_of_pending_jobs(db: Connection) -> None:
    """A hand-over without a settled end, oldest first, with worker and age; everything else is left out."""
    for name in ("sending", "unknown", "accepted", "settled", "old"):
        insert_job(db, name)
    journal(db, "sending", 1, "sending")
    journal(db, "failed", 1, "unknown")
    journal(db, "unknown", 2, "unknown")
    journal(db, "accepted", 1, "accepted")
    journal(db, "sending", 1, "settled")
    end_job(db, "in_doubt", "settled")
    journal(db, "sending", 1, "old")
    db.execute(
        "UPDATE email_attempts SET started_at = now() - interval '25 hours' FROM email_jobs AS j"
        " WHERE email_attempts.seq = j.seq AND j.job_id = 'old'"
    )
    flying = rows(db, "SELECT job_id, type, attempt, provider, worker, state FROM email_in_flight")
    assert flying == [
        ("sending", "booking-confirmation", 1, "smtp", "elsewhere-1", "sending"),
        ("unknown", "booking-confirmation", 2, "smtp", "elsewhere-1", "unknown"),
    ]
    assert value(db, "SELECT bool_and(age BETWEEN interval '0' AND interval '1 hour') FROM email_in_flight")


def test_the_timeline_of_a_job_that_waits(db: Connection) -> None:
    """It came, and says when it is due; an unknown job has no timeline."""
    insert_job(db, scheduled_at="2099-01-01 00:00Z")
    db.execute("SET TimeZone = 'UTC'")
    what, detail = row(db, "SELECT what, detail FROM email_timeline('j-1')")
    assert what == "enqueued"
    assert detail == "booking-confirmation, high priority, due 2099-01-01 00:00:00+00:00"
    assert rows(db, "SELECT * FROM email_timeline('nope')") == []
