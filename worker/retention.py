"""Retention and erasure: what is old goes in small batches; what is known of one person goes at once.

The rules are SQL (`sql/api/retention.sql`, `sql/api/erasure.sql`). Here is the patience: a batch of a thousand jobs
takes some milliseconds, and the claim has the rest of the time.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from worker.db import query
from worker.redis_client import blocking_client
from worker.settings import Settings

# Rows in a batch, and for how long it is waited after one, as a multiple of the time that it took.
MOST = 1000
PAUSE_SHARE = 4
# A periodic run ends by then; the next one goes on.
SLICE_SECONDS = 300.0
# Of Redis's dead letter list, read at a time.
PAGE = 1000

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


async def purge(connection: AsyncConnection[Any], settings: Settings, stop: asyncio.Event) -> None:
    """Purge for a while, with pauses in which the claim has Postgres for itself."""
    ends = time.monotonic() + SLICE_SECONDS
    gone: Counter[str] = Counter()
    for step in _steps(settings):
        while not stop.is_set() and time.monotonic() < ends:
            began = time.monotonic()
            cursor = await connection.execute(_STEPS[step], _parameters(settings, step))
            row = await cursor.fetchone()
            if row is None or not row[0]:
                break
            gone[step] += row[0]
            await asyncio.sleep(PAUSE_SHARE * (time.monotonic() - began))
    if gone:
        log.info("purged", **gone)


def purge_now(connection: psycopg.Connection[Any], settings: Settings) -> Iterator[tuple[str, int]]:
    """Purge everything that is old enough, for a command line; yields (what, how many) after each batch."""
    for step in _steps(settings):
        while True:
            row = connection.execute(_STEPS[step], _parameters(settings, step)).fetchone()
            if row is None or not row[0]:
                break
            yield step, row[0]


def erase(connection: psycopg.Connection[Any], settings: Settings, address: str) -> list[tuple[str, int]]:
    """Erase one person from Postgres and, where there is one, Redis; returns what was found, in words."""
    job_ids = [job_id for (job_id,) in connection.execute(query("jobs_of_address"), {"address": address})]
    erased = connection.execute(query("erase_address"), {"address": address}).fetchall()
    found = [(str(what), int(number)) for what, number in erased]
    if settings.redis_host:
        found += _erase_from_redis(settings, address, job_ids)
    return found


def _erase_from_redis(settings: Settings, address: str, job_ids: list[str]) -> list[tuple[str, int]]:
    """Dead letters that mention the address, and the status of the person's jobs."""
    client: Any = blocking_client(settings)
    letters, waiting_list = settings.email_dead_letter_queue, settings.redis_list_email_jobs
    removed = sum(client.lrem(letters, 0, entry) for entry in set(_mentions(client, letters, address)))
    statuses = client.delete(*(f"email:job:{job_id}" for job_id in job_ids)) if job_ids else 0
    waiting = len(_mentions(client, waiting_list, address))
    client.close()
    return [
        (f"entries of Redis's list {letters}", removed),
        ("statuses in Redis", statuses),
        (f"NOT erased: messages that wait in Redis's list {waiting_list}; run it again later", waiting),
    ]


def _mentions(client: Any, name: str, address: str) -> list[bytes]:
    """The entries of a list that mention the address, read a page at a time."""
    found: list[bytes] = []
    start, mentioned = 0, address.lower().encode()
    while page := client.lrange(name, start, start + PAGE - 1):
        found += [entry for entry in page if mentioned in entry.lower()]
        start += PAGE
    return found
