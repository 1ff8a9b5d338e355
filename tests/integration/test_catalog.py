"""The catalog of templates and types, shared by all batches of a process."""

import psycopg
import pytest

from tests.integration.claims import claiming
from tests.integration.rows import Connection, insert_job
from tests.support import Database
from worker.catalog import Catalog
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
    database: Database, db: Connection, jobs: tuple[Job, Job]
) -> None:
    """A batch keeps its templates, though a change makes the next batch read everything again."""
    booking, _ = jobs
    catalog = Catalog()
    async with claiming(database) as connection:
        before = await catalog.edition(connection, [booking])
        db.execute("UPDATE email_types SET description = description || ' Again.' WHERE type = 'newsletter'")
        insert_job(db, "later", type="newsletter", template="newsletter")
        await connection.execute("ROLLBACK")
        later = await claim_jobs(connection, Queue.BULK, ClaimPositions(), 2)
        after = await catalog.edition(connection, later)
    assert after is not before
    assert after.template(later[-1]).source.label == "newsletter"
    assert before.template(booking).source.label == "booking-confirmation"


async def test_types_that_could_not_be_read_are_read_next_time(database: Database, jobs: tuple[Job, Job]) -> None:
    """A connection that is lost in the middle costs one batch, and no policy after it."""
    catalog = Catalog()
    async with claiming(database) as lost, claiming(database) as connection:
        await lost.close()
        with pytest.raises(psycopg.OperationalError):
            await catalog.edition(lost, jobs)
        edition = await catalog.edition(connection, jobs)
    assert [edition.policy(job).opt_out for job in jobs] == [False, True]
