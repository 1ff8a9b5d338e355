"""When a job is due: the triggers on next_attempt_at."""

import pytest

from tests.integration.rows import Connection, end_job, insert_job, job, value
from tests.support import Database

FAR = "2099-01-01 00:00Z"
PAST = "2020-01-01 00:00Z"


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def is_due_since_just_now(db: Connection, moment: object) -> bool:
    """Whether the job's due time lies between a moment and now."""
    return bool(
        value(
            db, "SELECT next_attempt_at BETWEEN %s AND clock_timestamp() FROM email_jobs WHERE job_id = 'j-1'", moment
        )
    )


def now(db: Connection) -> object:
    return value(db, "SELECT clock_timestamp()")


@pytest.mark.parametrize("columns", [{}, {"scheduled_at": PAST}, {"next_attempt_at": PAST}, {"next_attempt_at": FAR}])
def test_a_new_job_is_due_now_and_never_in_the_past(db: Connection, columns: dict[str, str]) -> None:
    """A past scheduled_at means now, and a producer cannot set next_attempt_at."""
    moment = now(db)
    insert_job(db, **columns)
    assert is_due_since_just_now(db, moment)


def test_a_scheduled_job_is_due_then(db: Connection) -> None:
    """scheduled_at in the future is the due time."""
    insert_job(db, scheduled_at=FAR)
    assert value(db, "SELECT next_attempt_at = scheduled_at FROM email_jobs")


def test_jobs_of_one_transaction_have_their_own_moments(db: Connection) -> None:
    """The clock goes on within a transaction, so that a long one does not put its last rows into the past."""
    with db.transaction():
        insert_job(db, "j-1")
        begun = value(db, "SELECT now()")
        insert_job(db, "j-2")
    (first,), (second,) = job(db, ["next_attempt_at"], "j-1"), job(db, ["next_attempt_at"], "j-2")
    assert begun < first < second


@pytest.mark.parametrize("status", ["sent", "dead", "cancelled", "suppressed", "expired", "in_doubt"])
def test_a_job_that_becomes_pending_again_is_due_from_now_on(db: Connection, status: str) -> None:
    """Whoever makes a job pending, by whatever UPDATE, cannot put it into the past."""
    insert_job(db)
    end_job(db, status)
    moment = now(db)
    db.execute("UPDATE email_jobs SET status = 'pending', next_attempt_at = %s", (PAST,))
    assert is_due_since_just_now(db, moment)


def test_a_requeued_job_is_due_now_whatever_its_schedule_was(db: Connection) -> None:
    """email_requeue() does not wait for a scheduled_at of the first time."""
    insert_job(db, scheduled_at=FAR)
    end_job(db, "dead")
    moment = now(db)
    db.execute("SELECT email_requeue('j-1')")
    assert is_due_since_just_now(db, moment)
    assert job(db, ["scheduled_at"]) == (None,)


@pytest.mark.parametrize("to", [PAST, None])
def test_rescheduling_to_the_past_means_now(db: Connection, to: str | None) -> None:
    """A change of scheduled_at to a past moment, or to none, makes the job due now."""
    insert_job(db, scheduled_at=FAR)
    moment = now(db)
    db.execute("UPDATE email_jobs SET scheduled_at = %s", (to,))
    assert is_due_since_just_now(db, moment)


def test_rescheduling_moves_the_due_time_and_leaves_a_trace(db: Connection) -> None:
    """A change of scheduled_at to a later moment moves next_attempt_at there, and updated_at tells when."""
    insert_job(db)
    moment = now(db)
    db.execute("UPDATE email_jobs SET scheduled_at = %s", (FAR,))
    assert value(db, "SELECT next_attempt_at = scheduled_at AND updated_at >= %s FROM email_jobs", moment)


def test_other_changes_leave_the_due_time_alone(db: Connection) -> None:
    """A worker's retry writes next_attempt_at itself, and no trigger corrects it."""
    insert_job(db)
    db.execute("UPDATE email_jobs SET next_attempt_at = %s, retry_count = 1", (FAR,))
    db.execute("UPDATE email_jobs SET subject = 'other', scheduled_at = scheduled_at")
    assert value(db, "SELECT next_attempt_at = %s FROM email_jobs", FAR)
