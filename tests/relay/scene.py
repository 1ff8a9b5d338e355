"""What the relay tests share: a relay in this process, and what the database says should have been told."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lab.kafka import Broker
from tests.integration.rows import Connection, column, rows
from tests.support import Database
from worker.db import open_pool
from worker.relay import Relay


@asynccontextmanager
async def open_relay(database: Database, brokers: Broker, **environment: object) -> AsyncIterator[Relay]:
    """A relay whose pages the test asks for one by one."""
    settings = database.settings(**(brokers.environment() | environment))
    async with open_pool(settings, "email-worker keeper", most=1, least=0) as pool:
        yield Relay(settings, pool, asyncio.Event())


async def publish_all(relay: Relay) -> int:
    """Publish pages until there is nothing more that may be published; returns how many events."""
    total = 0
    while published := await relay.publish_page():
        total += published
    return total


def event_ids(db: Connection) -> set[str]:
    """All events of the database."""
    return set(column(db, "SELECT id::text FROM email_tracking"))


def ids_by_job(db: Connection) -> dict[str, list[str]]:
    """The events of each job in the order in which they happened: under the row's lock, seq has it."""
    found: dict[str, list[str]] = defaultdict(list)
    for job_id, identity in rows(
        db,
        "SELECT job.job_id, event.id::text FROM email_tracking AS event"
        " JOIN email_jobs AS job ON job.id = event.job_id ORDER BY event.seq",
    ):
        found[job_id].append(identity)
    return dict(found)


def place(db: Connection) -> tuple[str, int]:
    """How far the relay is."""
    ((xid, seq),) = rows(db, "SELECT xid::text, seq FROM email_relay")
    return xid, seq


def let_lease_pass(db: Connection) -> None:
    """As if so much time had gone by that the active relay's lease is over."""
    db.execute("UPDATE email_relay SET held_until = clock_timestamp() - interval '1 ms' WHERE held_until IS NOT NULL")
