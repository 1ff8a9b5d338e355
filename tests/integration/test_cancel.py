"""email_cancel(): taking a pending job back, unless it is, or may be, on its way."""

import psycopg
import pytest

from tests.integration.claims import claiming, take
from tests.integration.rows import Connection, end_job, events, insert_job, job, journal, row, value
from tests.support import Database

CANCEL = "SELECT email_cancel('j-1')"


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def test_a_pending_job_is_cancelled(db: Connection) -> None:
    """It ends as cancelled with its event, and the journal has the attempt number as not sent."""
    insert_job(db)
    assert value(db, CANCEL) == "cancelled"
    assert job(db, ["status", "attempt_no"]) == ("cancelled", 1)
    assert events(db) == ["cancelled"]
    assert row(db, "SELECT attempt, state, reason FROM email_attempts") == (1, "not_sent", "cancelled")
    assert value(db, "SELECT event_data = jsonb_build_object('by', session_user) FROM email_tracking")


def test_a_job_that_waits_for_a_retry_is_cancelled(db: Connection) -> None:
    """Attempts that are settled are no obstacle, and the numbers go on."""
    insert_job(db)
    journal(db, "failed", 1)
    db.execute("UPDATE email_jobs SET attempt_no = 1, retry_count = 1")
    assert value(db, CANCEL) == "cancelled"
    assert job(db, ["status", "attempt_no"]) == ("cancelled", 2)


@pytest.mark.parametrize("state", ["not_sent", "failed"])
def test_an_unsettled_attempt_that_sent_nothing_is_no_obstacle(db: Connection, state: str) -> None:
    """A worker died with it, but its journal is certain that nothing went out."""
    insert_job(db)
    journal(db, state, 1)
    assert value(db, CANCEL) == "cancelled"
    assert job(db, ["status", "attempt_no"]) == ("cancelled", 2)


@pytest.mark.parametrize("state", ["sending", "unknown", "accepted"])
def test_an_open_question_in_the_journal_stands_before_a_wish(db: Connection, state: str) -> None:
    """A worker died with it, or waits for evidence: it may have gone, so it is in doubt and stays as it is."""
    insert_job(db)
    journal(db, state, 1)
    assert value(db, CANCEL) == "in doubt"
    assert job(db, ["status", "attempt_no"]) == ("pending", 0)
    assert events(db) == []


async def test_a_job_in_flight_is_not_waited_for(database: Database, db: Connection) -> None:
    """While a worker holds it the answer is `in flight`, at once; with the lock gone it can be cancelled."""
    insert_job(db)
    db.execute("SET lock_timeout = '1ms'")
    async with claiming(database) as worker:
        assert await take(worker) == ["j-1"]
        assert value(db, CANCEL) == "in flight"
        await worker.execute("ROLLBACK")
        assert value(db, CANCEL) == "cancelled"
        assert await take(worker) == []


@pytest.mark.parametrize("end", ["sent", "dead", "cancelled", "suppressed", "expired", "in_doubt"])
def test_an_ended_job_stays_what_it_is(db: Connection, end: str) -> None:
    """The answer is the status that it ended with, and nothing changes."""
    insert_job(db)
    end_job(db, end)
    before = row(db, "SELECT j::text FROM email_jobs AS j")
    assert value(db, CANCEL) == end
    assert row(db, "SELECT j::text FROM email_jobs AS j") == before
    assert events(db) == [end]


def test_an_unknown_job_is_an_error(db: Connection) -> None:
    """EM002, and the hint says which of the two ids is wanted."""
    with pytest.raises(psycopg.Error, match='no job has the job_id "j-1"') as refusal:
        db.execute(CANCEL)
    assert refusal.value.sqlstate == "EM002"
    assert refusal.value.diag.message_hint == "Give email_jobs.job_id, not id."
