"""The relay: every row of `email_tracking` goes to Kafka, at least once, those of one job in their order.

It follows the table by (xid, seq), behind the oldest transaction that is still open, so nothing that commits late is
passed over. One relay is active in the whole cluster: it holds a lease on the place up to which Kafka has everything.
The place moves when Kafka has acknowledged what comes before it. No transaction is open while Kafka is waited for.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from worker.db import query
from worker.errors import KafkaUnusable
from worker.events import event_json
from worker.kafka import client_config, make_client
from worker.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

PAGE = 2000
IDLE_SECONDS = 0.2
SLICE_SECONDS = 60.0
ACKNOWLEDGED_SECONDS = 5.0
# Longer than a page may take.
LEASE_SECONDS = 15.0
PAUSE_SECONDS = 5.0

# xid, seq, then what an event tells; see `next_events.sql`.
Row = tuple[Any, ...]
JOB_ID = 4

log = structlog.get_logger(__name__)


class Relay:
    """Publishes events while `run` runs. `stop` is the process's own event."""

    def __init__(
        self, settings: Settings, pool: AsyncConnectionPool[AsyncConnection[Any]], stop: asyncio.Event
    ) -> None:
        self._topic = settings.kafka_topic_email_events
        self._pool = pool
        self._stop = stop
        self._config = client_config(settings) | {
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "delivery.report.only.error": True,
            "delivery.timeout.ms": int(ACKNOWLEDGED_SECONDS * 1000),
            "queue.buffering.max.messages": 10 * PAGE,
        }
        self._producer: Producer | None = None
        self._holder = uuid4().hex
        self._place: tuple[str, int] | None = None
        self._renew_at = 0.0

    async def run(self) -> bool:
        """Publish for a slice of time; False, at once, when another relay is active."""
        ends = time.monotonic() + SLICE_SECONDS
        while not self._stop.is_set() and time.monotonic() < ends:
            try:
                published = await self.publish_page()
            except KafkaUnusable as error:
                log.warning("events wait for Kafka", error=str(error))
                await self._pause(PAUSE_SECONDS)
                continue
            if published is None:
                return False
            if published < PAGE:
                await self._pause(IDLE_SECONDS)
        await self.leave()
        return True

    async def publish_page(self) -> int | None:
        """Publish the next events; returns how many, None when another relay is active. Raises KafkaUnusable."""
        if not await self._hold():
            return None
        rows = await self._next_events()
        if rows:
            await self._publish(rows)
            if not await self._move(rows[-1][:2]):
                return None
        return len(rows)

    async def leave(self) -> None:
        """Let another relay begin at once."""
        if self._place is not None:
            self._place = None
            async with self._pool.connection() as connection:
                await connection.execute(query("leave_relay"), {"holder": self._holder})

    async def _hold(self) -> bool:
        """Whether the lease is ours; `_place` is where to go on then."""
        if self._place is None or time.monotonic() > self._renew_at:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(
                    query("hold_relay"), {"holder": self._holder, "seconds": LEASE_SECONDS}
                )
                row = await cursor.fetchone()
            self._place = row[:2] if row is not None else None
            if row is not None and row[2]:
                await self.leave()
                log.error(
                    "no event is published: the relay's place is of another Postgres cluster, which this database was "
                    "restored from. Run: SELECT email_relay_rebase()"
                )
            self._renew_at = time.monotonic() + LEASE_SECONDS / 3
        return self._place is not None

    async def _next_events(self) -> list[Row]:
        assert self._place is not None
        xid, seq = self._place
        async with self._pool.connection() as connection:
            cursor = await connection.execute(query("next_events"), {"xid": xid, "seq": seq, "most": PAGE})
            return await cursor.fetchall()

    async def _move(self, place: tuple[str, int]) -> bool:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                query("move_relay"),
                {"xid": place[0], "seq": place[1], "holder": self._holder, "seconds": LEASE_SECONDS},
            )
            is_ours = await cursor.fetchone() is not None
        self._place = place if is_ours else None
        return is_ours

    async def _publish(self, rows: Sequence[Row]) -> None:
        """Return when Kafka has all of them. Raises KafkaUnusable."""
        from confluent_kafka import KafkaException, Producer

        producer = self._producer = self._producer or make_client(Producer, self._config)
        failures: list[KafkaError] = []

        def failed(error: "KafkaError | None", _: "Message") -> None:
            if error is not None:
                failures.append(error)

        try:
            for row in rows:
                producer.produce(self._topic, event_json(row[2:]), row[JOB_ID], on_delivery=failed)
            left = await asyncio.to_thread(producer.flush, ACKNOWLEDGED_SECONDS)
        except (BufferError, KafkaException) as error:
            self._start_over()
            raise KafkaUnusable(str(error)) from None
        if left or failures:
            self._start_over()
            raise KafkaUnusable(failures[0].str() if failures else "no acknowledgement came")

    def _start_over(self) -> None:
        """With a new producer: what is left in the old one must not come behind what is published again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return
