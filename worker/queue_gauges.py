"""The queue as Prometheus and health checks see it: depth, age, doubts, books, and whether work waits.

The gauges are read by one process at a time; the others tell nothing.

Which one it is, is procrastinate's choice: a periodic task reads, and its process tells what it read for a minute. So
the series of several processes are aggregated with max, never with sum.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import structlog
from prometheus_client.core import REGISTRY, GaugeMetricFamily
from prometheus_client.registry import Collector
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.db import query

# Longer than from one reading to the next, so that there is no gap when another process reads.
VALID_SECONDS = 60.0
BOOKS_EVERY_SECONDS = 300.0
# How far back the books are compared: as far as it goes within STATEMENT_SECONDS.
BOOKS_PERIODS = ("2 days", "2 hours", "10 minutes")
# What a statement may take: others wait for the same connection for POOL_SECONDS.
STATEMENT_SECONDS = 2

# gauge of queue_gauges.sql -> name, what it is, labels
_FAMILIES = {
    "depth": ("email_queue_depth", "Jobs by queue and status; an estimate beyond 100,000.", ("queue", "status")),
    "oldest": ("email_queue_oldest_due_seconds", "How long the oldest due job has been due.", ("queue",)),
    "in_doubt": ("email_in_doubt", "Jobs in doubt.", ()),
    "paused": ("email_paused", "1 while it is paused.", ("kind", "name")),
    "feedback": ("email_events_last_hour", "What recipients' servers and people told within the hour.", ("event",)),
    "relay": ("email_event_relay_lag_seconds", "Age of the oldest event that Kafka does not have.", ()),
    "books": ("email_books_difference", "Jobs whose status and latest event disagree: always 0.", ()),
}

# (gauge, first label, second label) -> value
Reading = dict[tuple[str, str, str], float]

log = structlog.get_logger(__name__)


class QueueGauges(Collector):
    """The last reading of this process, while it is fresh."""

    def __init__(self, *, has_relay: bool) -> None:
        self._has_relay = has_relay
        self._reading: Reading = {}
        self._read_at = float("-inf")
        self._books: float | None = None
        self._books_read_at = float("-inf")

    def register(self) -> None:
        """Be asked whenever somebody asks for metrics."""
        REGISTRY.register(self)

    def unregister(self) -> None:
        """Be asked no more."""
        REGISTRY.unregister(self)

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing at the registration: it would have to read."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The families, if the reading is fresh."""
        if time.monotonic() - self._read_at > VALID_SECONDS:
            return
        for gauge, (name, words, labels) in _FAMILIES.items():
            family = GaugeMetricFamily(name, words, labels=labels)
            for (kind, first, second), value in self._reading.items():
                if kind == gauge:
                    family.add_metric([first, second][: len(labels)], value)
            yield family

    async def read(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        """Read everything, the books now and then; others get the connection in between."""
        rows = await _ask_briefly(pool, query("queue_gauges"))
        reading: Reading = {(gauge, first, second): value for gauge, first, second, value in rows}
        if self._has_relay:
            ((reading["relay", "", ""],),) = await _ask_briefly(pool, query("relay_lag"))
        if time.monotonic() - self._books_read_at > BOOKS_EVERY_SECONDS:
            self._books = await _books_difference(pool)
            self._books_read_at = time.monotonic()
        if self._books is not None:
            reading["books", "", ""] = self._books
        self._reading, self._read_at = reading, time.monotonic()


async def _books_difference(pool: AsyncConnectionPool[AsyncConnection[Any]]) -> float | None:
    """Jobs that disagree, of as long a time as can be looked at; None when not even the shortest can."""
    for period in BOOKS_PERIODS:
        try:
            ((jobs,),) = await _ask_briefly(pool, query("count_books_difference"), {"period": period})
            return float(jobs)
        except psycopg.errors.QueryCanceled:
            log.info("the books are too long to compare so far back", period=period)
    return None


async def is_work_waiting(pool: AsyncConnectionPool[AsyncConnection[Any]], seconds: float) -> bool:
    """Whether jobs have been due for so long that nobody holds. False where nobody can tell: others see to that."""
    try:
        return await _ask_briefly(pool, query("work_waits"), {"seconds": seconds}) == [(True,)]
    except (psycopg.Error, PoolTimeout):
        return False


async def _ask_briefly(
    pool: AsyncConnectionPool[AsyncConnection[Any]], statement: bytes, parameters: Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    """The rows of a statement that has STATEMENT_SECONDS: on a large table, or beside a locked one, it would take more.

    Raises psycopg's QueryCanceled.
    """
    async with pool.connection() as connection, connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'".encode())
        cursor = await connection.execute(statement, parameters)
        return await cursor.fetchall()
