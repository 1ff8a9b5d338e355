"""Claiming by hand, as a worker's slot does it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from tests.support import Database
from worker.claim import ClaimPositions, claim_jobs
from worker.db import connection_parameters
from worker.job import Queue


@asynccontextmanager
async def claiming(database: Database) -> AsyncIterator[AsyncConnection[Any]]:
    """A connection as a slot has it."""
    parameters = connection_parameters(database.settings(), "tests claim")
    async with await AsyncConnection.connect(**parameters, autocommit=True) as connection:
        yield connection


async def take(
    connection: AsyncConnection[Any],
    count: int = 50,
    positions: ClaimPositions | None = None,
    queue: Queue = Queue.TRANSACTIONAL,
    paused: frozenset[str] = frozenset(),
) -> list[str]:
    """Claim, and return the job ids in their order. The transaction stays open."""
    jobs = await claim_jobs(connection, queue, positions or ClaimPositions(), count, paused)
    return [job.job_id for job in jobs]


async def finish(connection: AsyncConnection[Any], job_ids: Sequence[str]) -> None:
    """Settle what was claimed, and commit."""
    await connection.execute("UPDATE email_jobs SET status = 'sent' WHERE job_id = ANY(%s)", (list(job_ids),))
    await connection.execute("COMMIT")


async def work_off(connection: AsyncConnection[Any], positions: ClaimPositions) -> list[str]:
    """Claim and settle until a claim finds nothing; returns what was claimed, in order."""
    done: list[str] = []
    while claimed := await take(connection, 100, positions):
        await finish(connection, claimed)
        done += claimed
    return done
