"""The claim: which jobs a worker locks, in which order, and no others."""

import json
import secrets

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from tests.integration.claims import claiming, finish, take
from tests.integration.rows import Connection, column, insert_job, insert_jobs, value
from tests.support import Database
from worker.claim import ClaimPositions, claim_jobs
from worker.job import Queue


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def free(db: Connection) -> list[str]:
    """The jobs that another session can lock now."""
    return column(db, "SELECT job_id FROM email_jobs ORDER BY seq FOR UPDATE SKIP LOCKED")


async def test_the_order_is_priority_then_time_then_arrival(database: Database, db: Connection) -> None:
    """Strict priority; among equals the one that is due longer, then the one that came first."""
    for job_id, priority, minutes in [
        ("low-old", "low", 90),
        ("normal-1", "normal", 30),
        ("normal-2", "normal", 30),
        ("normal-old", "normal", 60),
        ("critical", "critical", 1),
        ("high", "high", 10),
    ]:
        insert_job(db, job_id, priority=priority)
        db.execute(
            "UPDATE email_jobs SET next_attempt_at = '2024-06-01 12:00Z'::timestamptz - make_interval(mins => %s)"
            " WHERE job_id = %s",
            (minutes, job_id),
        )
    async with claiming(database) as connection:
        assert await take(connection) == ["critical", "high", "normal-old", "normal-1", "normal-2", "low-old"]


async def test_only_what_is_returned_is_locked(database: Database, db: Connection) -> None:
    """A claim that ends within a priority leaves the rest of it, and all lower ones, free for others."""
    for priority in ("critical", "high", "normal", "low"):
        for number in range(3):
            insert_job(db, f"{priority}-{number}", priority=priority)
    async with claiming(database) as connection:
        claimed = await take(connection, 4)
        assert claimed == ["critical-0", "critical-1", "critical-2", "high-0"]
        assert free(db) == ["high-1", "high-2", *(f"{p}-{n}" for p in ("normal", "low") for n in range(3))]
        await connection.execute("ROLLBACK")
    assert len(free(db)) == 12


async def test_workers_never_claim_the_same_job(database: Database, db: Connection) -> None:
    """Each one skips what others have locked, without waiting, and finds the next ones."""
    insert_jobs(db, 10)
    async with claiming(database) as one, claiming(database) as two, claiming(database) as three:
        for connection in (two, three):
            await connection.execute("SET lock_timeout = '1ms'")
        claimed = [*await take(one, 4), *await take(two, 4), *await take(three, 4)]
        assert claimed == [f"j-{n}" for n in range(1, 11)]


async def test_a_dead_workers_jobs_are_free_at_once(database: Database, db: Connection) -> None:
    """There is no lease to wait for: with the session its locks are gone."""
    insert_jobs(db, 3)
    async with claiming(database) as other:
        async with claiming(database) as dying:
            assert len(await take(dying)) == 3
            assert await take(other) == []
            value(db, "SELECT pg_terminate_backend(%s, 5000)", dying.info.backend_pid)
            with pytest.raises(psycopg.OperationalError):
                await dying.execute("SELECT 1")
        assert len(await take(other)) == 3


async def test_scheduled_jobs_are_claimed_when_due_and_not_before(database: Database, db: Connection) -> None:
    """A job of the future is no candidate until its moment comes, or is brought forward."""
    insert_job(db, "later", scheduled_at="2099-01-01 00:00Z")
    insert_job(db, "now")
    async with claiming(database) as connection:
        positions = ClaimPositions()
        assert await take(connection, positions=positions) == ["now"]
        await finish(connection, ["now"])
        assert await take(connection, positions=positions) == []
        db.execute("UPDATE email_jobs SET scheduled_at = '2020-01-01 00:00Z' WHERE job_id = 'later'")
        assert await take(connection, positions=positions) == ["later"]


async def test_only_pending_jobs_of_the_queue_are_claimed(database: Database, db: Connection) -> None:
    """The other queue and every ended job are left alone."""
    for status in ("sent", "dead", "cancelled", "suppressed", "expired", "in_doubt"):
        insert_job(db, status)
        db.execute("UPDATE email_jobs SET status = %s WHERE job_id = %s", (status, status))
    insert_job(db, "transactional")
    insert_job(db, "bulk", type="newsletter")
    async with claiming(database) as connection:
        assert await take(connection) == ["transactional"]
        assert await take(connection, queue=Queue.BULK) == ["bulk"]


async def test_an_empty_claim_leaves_no_transaction_open(database: Database, db: Connection) -> None:
    """An idle worker holds back no vacuum."""
    async with claiming(database) as connection:
        assert await take(connection) == []
        states = [connection.info.transaction_status]
        insert_job(db)
        assert await take(connection) == ["j-1"]
        states.append(connection.info.transaction_status)
    assert states == [TransactionStatus.IDLE, TransactionStatus.INTRANS]


@pytest.mark.parametrize("attachment", [secrets.token_hex(200_000), "QUJD" * 2_000_000], ids=["random", "repetitive"])
async def test_large_options_stay_behind(database: Database, db: Connection, attachment: str) -> None:
    """A claim of many jobs does not load all their attachments, however well Postgres has compressed them."""
    insert_job(db, "small", options='{"cc": []}')
    insert_job(db, "large", options=json.dumps({"x": attachment}))
    insert_job(db, "none")
    async with claiming(database) as connection:
        jobs = await claim_jobs(connection, Queue.TRANSACTIONAL, ClaimPositions(), 10)
    assert [(job.options, job.has_large_options) for job in jobs] == [
        ('{"cc": []}', False),
        (None, True),
        (None, False),
    ]
