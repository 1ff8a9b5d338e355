"""One worker process: everything that it opens, and the order in which it is opened and closed.

Holds at most WORKER_CONCURRENCY + 7 connections to Postgres: one per slot, one for the journal, three of
procrastinate's, one for the watchdog, one for the periodic tasks, and one for the rate limits where there are any.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import procrastinate
import psycopg
import structlog
from procrastinate import exceptions
from procrastinate.jobs import Status as TaskStatus
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker import metrics
from worker.account_quotas import AccountQuotas
from worker.bucket_keeper import BucketKeeper
from worker.catalog import Catalog
from worker.db import claim_session, open_pool, query, unreachable
from worker.delivery import Delivery
from worker.drain import Drain
from worker.job import Queue
from worker.job_status import JobStatus
from worker.journal import Journal
from worker.loop_lag import LoopLag
from worker.providers.breaker import Breaker
from worker.providers.registry import make_router, sender_of
from worker.queue_gauges import QueueGauges, is_work_waiting
from worker.rate_limits import RateLimits
from worker.relay import Relay
from worker.retention import purge
from worker.settings import Settings
from worker.slots import Slots
from worker.tasks import DELIVER, RELAY, RELAY_LOCK, deliver_lock
from worker.vital_signs import IDLE_SECONDS, VitalSigns

# Two probes at once, one after the other, take less than either waits.
LOOK_SECONDS = 1.5
# Everybody waits for a bucket that somebody holds.
LIMITS_SESSION = {"lock_timeout": "1000", "idle_in_transaction_session_timeout": "2000"}

log = structlog.get_logger(__name__)


class WorkerProcess:
    """The resources of a running worker. Made by `open_process`."""

    def __init__(self, app: procrastinate.App, settings: Settings, signs: VitalSigns) -> None:
        self._app = app
        self._settings = settings
        self._journal = Journal(settings)
        sender = sender_of(settings)
        self._router = make_router(settings, sender)
        self._status = JobStatus(settings) if settings.redis_host else None
        tell = self._status.tell if self._status else None
        self._counting = open_pool(settings, "email-worker limits", most=1, least=0, session=LIMITS_SESSION)
        self._buckets = BucketKeeper(settings, self._counting)
        limits = RateLimits(settings, self._buckets)
        self._quotas = AccountQuotas(self._router.providers, limits)
        self.delivery = Delivery(settings, Catalog(), self._journal, self._router, limits, sender, tell)
        self._claims = open_pool(
            settings,
            "email-worker claim",
            most=settings.worker_concurrency,
            session=claim_session(settings.email_batch_deadline_seconds),
        )
        self._keeping = open_pool(settings, "email-worker keeper", most=1, least=0)
        self._relay: Relay | None = None
        if settings.kafka_bootstrap_servers:
            self._relay = Relay(settings, self._keeping, self.delivery.stop.event)
        self._gauges = QueueGauges(has_relay=self._relay is not None)
        self._lag = LoopLag(signs.turned)
        slots = Slots(settings.worker_concurrency)
        self.drain = Drain(self.delivery, self._claims, slots, self._lag, self.defer_deliver, signs.worked)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open everything; what was opened is closed by the stack, in the other order."""
        self._loop = asyncio.get_running_loop()
        self._lag.start()
        metrics.watch_loop(lambda: self._lag.seconds)
        metrics.dkim_key_expires(self._settings.dkim_key_expires)
        self._gauges.register()
        stack.callback(self._gauges.unregister)
        for provider in self._router.providers:
            metrics.watch_breaker(provider.name, partial(_level, self._router.breaker(provider.name)))
        stack.callback(self._lag.stop)
        await self._open_pools(stack)
        if self._status is not None:
            self._status.start()
            stack.push_async_callback(self._status.close)
        stack.push_async_callback(self._buckets.close)
        stack.push_async_callback(self._journal.close)
        stack.push_async_callback(self._router.close)
        self._quotas.start()
        stack.push_async_callback(self._quotas.close)
        try:
            for queue in Queue:
                await self.defer_deliver(queue)
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise unreachable(self._settings, error) from None

    async def _open_pools(self, stack: AsyncExitStack) -> None:
        pools: tuple[AsyncConnectionPool[AsyncConnection[Any]], ...] = (self._claims, self._keeping, self._counting)
        try:
            for pool in pools:
                stack.push_async_callback(pool.close)
            await asyncio.gather(*(pool.open(wait=True, timeout=3) for pool in pools), self._journal.open())
        except (psycopg.OperationalError, PoolTimeout) as error:
            raise unreachable(self._settings, error) from None

    async def defer_deliver(self, queue: Queue) -> None:
        """Put a deliver task into procrastinate, unless one waits already."""
        lock = deliver_lock(queue)
        async with self._keeping.connection() as connection:
            cursor = await connection.execute(query("waiting_deliver"), {"lock": lock})
            if await cursor.fetchone() == (True,):
                return
        try:
            await self._app.configure_task(DELIVER, queueing_lock=lock).defer_async(queue=str(queue))
        except exceptions.AlreadyEnqueued:
            # Another process was faster by a moment.
            return

    async def remove_stalled_tasks(self) -> None:
        """Delete the tasks of dead workers. Never retry them: a new one runs already, and the lock is its."""
        manager = self._app.job_manager
        for task in await manager.get_stalled_jobs():
            await manager.finish_job(task, status=TaskStatus.FAILED, delete_job=True)
            log.info("removed the task of a dead worker", task=task.task_name, task_id=task.id)

    async def relay_events(self) -> None:
        """Publish events to Kafka for a while, if there is one."""
        if self._relay is None:
            return
        try:
            if not await self._relay.run():
                return
            # The next slice, wherever: the periodic task alone would leave a gap.
            await self._app.configure_task(RELAY, queueing_lock=RELAY_LOCK).defer_async(timestamp=0)
        except exceptions.AlreadyEnqueued:
            return
        except (psycopg.OperationalError, PoolTimeout) as error:
            log.warning("the relay lost its connection", error=str(error).strip())

    async def read_gauges(self) -> None:
        """Read what the metrics tell of the queue; only where they are served."""
        if not self._settings.metrics_port:
            return
        async with _outages_told("reading the gauges"):
            await self._gauges.read(self._keeping)

    def is_work_waiting(self) -> bool:
        """Whether jobs have been due for a while that nobody holds; for another thread than the loop's."""
        if self._loop.is_closed():
            return False
        asked = asyncio.run_coroutine_threadsafe(is_work_waiting(self._keeping, IDLE_SECONDS), self._loop)
        try:
            return asked.result(LOOK_SECONDS)
        except TimeoutError:
            # A loop that does not turn is found by others.
            return False

    async def purge(self) -> None:
        """Remove what is older than it is to be kept."""
        async with _outages_told("purging"):
            await purge(self._keeping, self._settings, self.delivery.stop.event)

    async def tidy_limits(self) -> None:
        """Forget token buckets that say nothing any more."""
        async with _outages_told("tidying the limits"):
            await self._buckets.tidy()

    async def apply_late_outcomes(self) -> None:
        """Settle as sent what is in doubt and was accepted after all."""
        async with self._keeping.connection() as connection:
            cursor = await connection.execute(query("apply_late_outcomes"))
            if cursor.rowcount:
                log.info("late answers settled doubts", jobs=cursor.rowcount)


@asynccontextmanager
async def open_process(app: procrastinate.App, settings: Settings, signs: VitalSigns) -> AsyncIterator[WorkerProcess]:
    """A worker process, open while the context is. Raises DatabaseError in words."""
    process = WorkerProcess(app, settings, signs)
    async with AsyncExitStack() as stack:
        await process.open(stack)
        yield process


@asynccontextmanager
async def _outages_told(what: str) -> AsyncIterator[None]:
    """A periodic task that Postgres does not answer, or refuses, tells so in a line, and is done the next time."""
    try:
        yield
    except (psycopg.OperationalError, PoolTimeout) as error:
        log.warning("a periodic task was not done", task=what, error=str(error).strip())
    except psycopg.DatabaseError as error:
        if not (error.sqlstate or "").startswith("EM"):
            raise
        log.error(
            "a periodic task was refused", task=what, error=f"{error.diag.message_primary}. {error.diag.message_hint}"
        )


def _level(breaker: Breaker) -> float:
    return breaker.level
