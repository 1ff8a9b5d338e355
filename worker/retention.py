"""Retention: what is old goes, in small batches.

The rules are SQL (`sql/api/retention.sql`). Here is the patience: a batch of a thousand jobs takes some milliseconds,
and the claim has the rest of the time.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import structlog
from psycopg import AsyncConnection

from worker.db import query
from worker.settings import Settings

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

# Rows in a batch, and for how long it is waited after one, as a multiple of the time that it took.
MOST = 1000
PAUSE_SHARE = 4
# A periodic run ends by then; the next one goes on.
SLICE_SECONDS = 300.0

_STEPS = {"jobs": query("purge_jobs"), "rejects": query("purge_rejects"), "keys": query("purge_keys")}

log = structlog.get_logger(__name__)


def _parameters(settings: Settings, step: str) -> dict[str, object]:
    return {
        "days": settings.retention_key_days if step == "keys" else settings.retention_days,
        "most": MOST,
        "published_only": bool(settings.kafka_bootstrap_servers),
    }


def _steps(settings: Settings) -> list[str]:
    """What there is to do: rejects have no days of their own, jobs may have them by their type."""
    return [step for step in _STEPS if step != "rejects" or settings.retention_days]


async def purge(pool: "AsyncConnectionPool[AsyncConnection[Any]]", settings: Settings, stop: asyncio.Event) -> None:
    """Purge for a while, with pauses in which the claim has Postgres, and the other tasks the pool, for themselves."""
    ends = time.monotonic() + SLICE_SECONDS
    gone: Counter[str] = Counter()
    try:
        for step in _steps(settings):
            while not stop.is_set() and time.monotonic() < ends:
                began = time.monotonic()
                number = await _purge_batch(pool, settings, step)
                if not number:
                    break
                gone[step] += number
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE_SHARE * (time.monotonic() - began)):
                        await stop.wait()
    finally:
        if gone:
            log.info("purged", **gone)


async def _purge_batch(pool: "AsyncConnectionPool[AsyncConnection[Any]]", settings: Settings, step: str) -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(_STEPS[step], _parameters(settings, step))
        row = await cursor.fetchone()
    return int(row[0]) if row else 0


def purge_now(connection: psycopg.Connection[Any], settings: Settings) -> Iterator[tuple[str, int]]:
    """Purge everything that is old enough, for a command line; yields (what, how many) after each batch."""
    for step in _steps(settings):
        while True:
            row = connection.execute(_STEPS[step], _parameters(settings, step)).fetchone()
            if row is None or not row[0]:
                break
            yield step, row[0]
