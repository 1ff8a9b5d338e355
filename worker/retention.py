"""Retention and erasure: what is old goes in small batches; what is known of one person goes at once.

The rules are SQL (`sql/api/retention.sql`, `sql/api/erasure.sql`). Here is the patience: a batch of a thousand jobs
takes some milliseconds, and the claim has the rest of the time.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from worker.db import query
from worker.errors import EmailWorkerError
from worker.redis_client import blocking_client
from worker.settings import Settings

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool

# Rows in a batch, and for how long it is waited after one, as a multiple of the time that it took.
MOST = 1000
PAUSE_SHARE = 4
# A periodic run ends by then; the next one goes on.
SLICE_SECONDS = 300.0
# Of Redis's dead letter list, read at a time.
PAGE = 1000

# How the last line of email_erase() begins.
LEFT = "NOT erased: "

_STEPS = {"jobs": query("purge_jobs"), "rejects": query("purge_rejects"), "keys": query("purge_keys")}

log = structlog.get_logger(__name__)


class Erased(NamedTuple):
    """What was found of a person, and how much of it; `is_left`: it is still there."""

    what: str
    number: int
    is_left: bool = False


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


def erase(connection: psycopg.Connection[Any], settings: Settings, address: str) -> list[Erased]:
    """Erase one person from Redis, where there is one, and from Postgres; returns what was found.

    Redis first: its statuses are found by the job_ids that Postgres still knows. Raises EmailWorkerError without Redis.
    """
    job_ids = [job_id for (job_id,) in connection.execute(query("jobs_of_address"), {"address": address})]
    found = _erase_from_redis(settings, address, job_ids) if settings.redis_host else []
    for what, number in connection.execute(query("erase_address"), {"address": address}):
        found.append(Erased(str(what).removeprefix(LEFT), int(number), is_left=str(what).startswith(LEFT)))
    return found


def _erase_from_redis(settings: Settings, address: str, job_ids: list[str]) -> list[Erased]:
    """Dead letters that mention the address, and the status of the person's jobs."""
    from redis import RedisError

    client: Any = blocking_client(settings)
    letters, waiting_list = settings.email_dead_letter_queue, settings.redis_list_email_jobs
    try:
        removed = sum(client.lrem(letters, 0, entry) for entry in set(_mentions(client, letters, address)))
        statuses = client.delete(*(f"email:job:{job_id}" for job_id in job_ids)) if job_ids else 0
        waiting = len(_mentions(client, waiting_list, address))
    except (RedisError, OSError) as error:
        raise EmailWorkerError(f"Redis is away ({error}), and nothing was erased anywhere: run it again") from None
    finally:
        client.close()
    return [
        Erased(f"entries of Redis's list {letters}", removed),
        Erased("statuses in Redis", statuses),
        Erased(f"messages that wait in Redis's list {waiting_list}; run it again later", waiting, is_left=True),
    ]


def _mentions(client: Any, name: str, address: str) -> list[bytes]:
    """The entries of a list that mention the address as a whole word, read a page at a time."""
    found: list[bytes] = []
    start = 0
    mentioned = re.compile(
        rb"(?<![A-Za-z0-9._%+-])" + re.escape(address.encode()) + rb"(?![A-Za-z0-9-]|\.[A-Za-z0-9])", re.IGNORECASE
    )
    while page := client.lrange(name, start, start + PAGE - 1):
        found += [entry for entry in page if mentioned.search(entry)]
        start += PAGE
    return found
