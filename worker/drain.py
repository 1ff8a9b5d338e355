"""Draining a queue: one slot's work. Batch after batch while there is something due, then waiting for more.

A slot works in slices of a few seconds, so that procrastinate sees short jobs and a queue's place is offered anew. One
idle slot per queue waits in the whole cluster: it holds an advisory lock, by which producers know that a NOTIFY is
worth its price. Wake-ups are hints, the due rows are the truth: the listener also looks by itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.db import query
from worker.delivery import Delivery
from worker.errors import ClaimLost
from worker.job import Queue
from worker.loop_lag import LoopLag
from worker.slots import Slots

SLICE_SECONDS = 5.0
# A lost wake-up costs no more than this.
LOOK_EVERY_SECONDS = 0.2
RECRUIT_EVERY_SECONDS = 1.0
# From this many jobs in a batch on, the slot is busy, and producers need not pay for a NOTIFY.
BUSY_BATCH = 10
# A producer may hold the listener's lock, shared, for the microseconds of its own look.
LISTENER_TRIES = 3
LISTENER_PAUSE_SECONDS = 0.003
PAUSE_SECONDS = 0.5
# Tokens come when they come; asking more often than this only costs.
LEAST_WAIT_SECONDS = 0.002
# One to wait for the world while the other works.
ENOUGH_SLOTS = 2

_LOCK_KEYS = {Queue.TRANSACTIONAL: 1, Queue.BULK: 2}

log = structlog.get_logger(__name__)

Defer = Callable[[Queue], Awaitable[None]]


class Drain:
    """Drains queues in this process. `defer` puts one more deliver task of a queue into procrastinate."""

    def __init__(
        self,
        delivery: Delivery,
        pool: AsyncConnectionPool[AsyncConnection[Any]],
        slots: Slots,
        lag: LoopLag,
        defer: Defer,
        worked: Callable[[], None] = lambda: None,
    ) -> None:
        """`worked` is called when something was claimed, or may not be."""
        self._worked = worked
        self._delivery = delivery
        self._pool = pool
        self._slots = slots
        self._lag = lag
        self._defer = defer
        self._recruited_at = float("-inf")
        self._waiting: set[Queue] = set()

    async def run(self, queue: Queue) -> None:
        """One slice of work on a queue, if a slot is free for it."""
        if self._delivery.stop.is_set or self._is_full(queue) or not self._slots.take(queue):
            return
        try:
            async with self._pool.connection() as connection:
                goes_on = await self._slice(connection, queue)
            if goes_on:
                await self._defer(queue)
        except (ClaimLost, psycopg.OperationalError, PoolTimeout) as error:
            log.warning("a slot lost its connection", queue=queue, error=str(error).strip())
        finally:
            self._slots.give(queue)

    def _is_full(self, queue: Queue) -> bool:
        """Whether one more slot here would only make the others wait. Another process may have use for it."""
        return self._lag.is_high and self._slots.held(queue) >= ENOUGH_SLOTS

    async def _slice(self, connection: AsyncConnection[Any], queue: Queue) -> bool:
        """Deliver and wait until the slice is over; returns whether the queue still needs this slot."""
        ends = time.monotonic() + SLICE_SECONDS
        is_listener = False
        try:
            while not self._delivery.stop.is_set and time.monotonic() < ends:
                claimed, settled, is_full, wait = await self._delivery.deliver_batch(connection, queue)
                if claimed or wait:
                    self._worked()
                if wait:
                    if queue in self._waiting:
                        return False
                    await self._wait_for_tokens(queue, min(wait, ends - time.monotonic()))
                    continue
                if claimed and not settled:
                    # Nothing could be handed over, so the same jobs are due again at once.
                    await asyncio.sleep(PAUSE_SECONDS)
                if is_full:
                    await self._recruit(queue)
                if claimed >= BUSY_BATCH:
                    is_listener = is_listener and await self._leave_listener(connection, queue)
                elif claimed == 0 and is_listener:
                    await self._sleep(connection, queue)
                elif claimed == 0:
                    # Then claims once more: what came since the last look told nobody.
                    is_listener = await self._become_listener(connection, queue)
                    if not is_listener:
                        return False
            return True
        finally:
            if is_listener and not connection.closed:
                await self._leave_listener(connection, queue)

    async def _wait_for_tokens(self, queue: Queue, seconds: float) -> None:
        """Until the default provider's rate limit may have some. One slot of a process does this for a queue."""
        self._waiting.add(queue)
        try:
            async with asyncio.timeout(max(LEAST_WAIT_SECONDS, seconds)):
                await self._delivery.stop.event.wait()
        except TimeoutError:
            return
        finally:
            self._waiting.discard(queue)

    async def _recruit(self, queue: Queue) -> None:
        """A full batch means that there is more: ask for one more slot, here or in another process."""
        now = time.monotonic()
        if now - self._recruited_at >= RECRUIT_EVERY_SECONDS and self._slots.has_room(queue):
            self._recruited_at = now
            await self._defer(queue)

    async def _become_listener(self, connection: AsyncConnection[Any], queue: Queue) -> bool:
        """Become the queue's idle listener; False when another slot is that already."""
        for attempt in range(LISTENER_TRIES):
            if attempt:
                await asyncio.sleep(LISTENER_PAUSE_SECONDS)
            cursor = await connection.execute(query("become_listener"), {"key": _LOCK_KEYS[queue]})
            if await cursor.fetchone() == (True,):
                await connection.execute(f'LISTEN "email_jobs_{queue}"'.encode("ascii"))
                return True
        return False

    async def _leave_listener(self, connection: AsyncConnection[Any], queue: Queue) -> bool:
        """Stop being the listener; returns False, what `is_listener` is then."""
        async with connection.pipeline():
            await connection.execute(query("leave_listener"), {"key": _LOCK_KEYS[queue]})
            await connection.execute(b"UNLISTEN *")
        return False

    async def _sleep(self, connection: AsyncConnection[Any], queue: Queue) -> None:
        """Until a notification, the next due time or the next look."""
        cursor = await connection.execute(query("next_due"), {"queue": queue})
        row = await cursor.fetchone()
        due_in = LOOK_EVERY_SECONDS if row is None or row[0] is None else float(row[0])
        if due_in > 0:
            async for _ in connection.notifies(timeout=min(due_in, LOOK_EVERY_SECONDS), stop_after=1):
                break
