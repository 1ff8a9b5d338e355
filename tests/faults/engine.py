"""A worker's delivery without procrastinate around it: for tests that must hold one batch in their hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from lab.unlimited import unlimited
from tests.support import Database
from worker.catalog import Catalog
from worker.db import claim_session, open_pool
from worker.delivery import Delivered, Delivery
from worker.job import Queue
from worker.journal import Journal
from worker.providers.registry import make_router, sender_of
from worker.settings import Settings

MOST_SLOTS = 4


class Engine:
    """What a worker process shares between its batches, and its slots' connections."""

    def __init__(self, settings: Settings, claims: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        sender = sender_of(settings)
        self.name = settings.worker_name
        self.journal = Journal(settings)
        self.router = make_router(settings, sender)
        self.delivery = Delivery(settings, Catalog(), self.journal, self.router, unlimited(), sender)
        self._claims = claims

    async def deliver(self, queue: Queue = Queue.TRANSACTIONAL) -> Delivered:
        """One batch."""
        async with self._claims.connection() as connection:
            return await self.delivery.deliver_batch(connection, queue)


@asynccontextmanager
async def running_engine(database: Database, name: str, **environment: object) -> AsyncIterator[Engine]:
    """An engine, open while the context is."""
    settings = database.settings(WORKER_NAME=name, **environment)
    claims = open_pool(
        settings, "email-worker claim", most=MOST_SLOTS, session=claim_session(settings.email_batch_deadline_seconds)
    )
    async with claims:
        engine = Engine(settings, claims)
        try:
            yield engine
        finally:
            await engine.journal.close()
            await engine.router.close()


async def soon(condition: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something is true, without stopping the event loop."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  It asks servers, which set no event of ours.
            await asyncio.sleep(0.005)
    assert condition(), what
