"""The catalog of templates and types, shared by all batches of a process."""

import asyncio
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.integration.claims import claiming
from tests.integration.rows import Connection, insert_job, value
from tests.support import Database, eventually
from worker.catalog import Catalog, TypePolicy
from worker.claim import ClaimPositions, claim_jobs
from worker.job import Job, Queue


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


@pytest.fixture
async def jobs(database: Database, db: Connection) -> tuple[Job, Job]:
    """A booking and a newsletter, claimed."""
    insert_job(db, "booking")
    insert_job(db, "newsletter", type="newsletter", template="newsletter")
    async with claiming(database) as connection:
        (booking,) = await claim_jobs(connection, Queue.TRANSACTIONAL, ClaimPositions(), 1)
        (newsletter,) = await claim_jobs(connection, Queue.BULK, ClaimPositions(), 1)
    return booking, newsletter


async def test_reading_again_for_one_batch_takes_nothing_from_another(
    database: Database, jobs: tuple[Job, Job]
) -> None:
    """A batch that is prepared finds its templates, though a change makes the next batch read everything again."""
    booking, newsletter = jobs
    catalog = Catalog()
    async with claiming(database) as connection:
        await catalog.prepare(connection, [booking])
        catalog.invalidate()
        await catalog.prepare(connection, [newsletter])
    assert catalog.template(newsletter).source.label == "newsletter"
    assert catalog.template(booking).source.label == "booking-confirmation"


async def test_no_batch_is_prepared_without_the_types(
    database: Database, db: Connection, jobs: tuple[Job, Job]
) -> None:
    """Two slots that start at once both know the policies, though only the first one reads them.

    Without them a campaign's first mails would carry no List-Unsubscribe.
    """
    catalog = Catalog()

    async def prepared(connection: AsyncConnection[Any], job: Job) -> TypePolicy | None:
        await catalog.prepare(connection, [job])
        return catalog.policy(job)

    waits = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'email_types'::regclass AND NOT granted"
    async with claiming(database) as one, claiming(database) as other:
        with database.connect() as holder:
            holder.execute("BEGIN")
            holder.execute("LOCK TABLE email_types")
            first = asyncio.create_task(prepared(one, jobs[0]))
            await asyncio.to_thread(eventually, lambda: value(db, waits), "the first one waits for the types")
            second = asyncio.create_task(prepared(other, jobs[1]))
            await asyncio.wait([second], timeout=0.5)
            holder.execute("COMMIT")
        policies = await asyncio.gather(first, second)
    assert [policy and policy.opt_out for policy in policies] == [False, True]


async def test_types_that_could_not_be_read_are_read_next_time(database: Database, jobs: tuple[Job, Job]) -> None:
    """A connection that is lost in the middle costs one batch, and no policy after it."""
    catalog = Catalog()
    async with claiming(database) as lost, claiming(database) as connection:
        await lost.close()
        with pytest.raises(psycopg.OperationalError):
            await catalog.prepare(lost, jobs)
        await catalog.prepare(connection, jobs)
    policies = [catalog.policy(job) for job in jobs]
    assert [policy and policy.opt_out for policy in policies] == [False, True]
