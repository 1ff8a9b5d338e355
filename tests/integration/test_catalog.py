"""The catalog of templates and types, shared by all batches of a process."""

import pytest

from tests.integration.claims import claiming
from tests.integration.rows import Connection, insert_job
from tests.support import Database
from worker.catalog import Catalog
from worker.claim import ClaimPositions, claim_jobs
from worker.job import Queue


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


async def test_reading_again_for_one_batch_takes_nothing_from_another(database: Database, db: Connection) -> None:
    """A batch that is prepared finds its templates, though a change makes the next batch read everything again."""
    insert_job(db, "first")
    insert_job(db, "second", type="newsletter", template="newsletter")
    catalog = Catalog()
    async with claiming(database) as connection:
        (first,) = await claim_jobs(connection, Queue.TRANSACTIONAL, ClaimPositions(), 1)
        (second,) = await claim_jobs(connection, Queue.BULK, ClaimPositions(), 1)
        await catalog.prepare(connection, [first])
        catalog.invalidate()
        await catalog.prepare(connection, [second])
    assert catalog.template(second).source.label == "newsletter"
    assert catalog.template(first).source.label == "booking-confirmation"
