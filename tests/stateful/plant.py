"""Worker processes within the test's own process, which can be stopped, crashed and robbed of their claims.

A `Plant` is one database, an event loop and some `Process`es. A process has what a real one has (a journal on its own
connection, a delivery, providers); its batches run as tasks of the loop. Between two calls the loop stands still, so
timers of a process (the journal's flush) run only when a test lets them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from lab.unlimited import unlimited
from tests.stateful.limits import BATCH_SIZE, DOUBT_SECONDS, MAX_RETRIES, RETRY_SECONDS
from tests.stateful.oracle import Oracle
from tests.stateful.plan import PLAN, Plan, PlannedProvider
from tests.stateful.process import Batch, Process, forget
from tests.support import Database
from worker.catalog import Catalog
from worker.db import connection_parameters
from worker.delivery import Delivered, Delivery
from worker.errors import EmailWorkerError
from worker.job import Guarantee, Queue
from worker.journal import Journal
from worker.providers.registry import sender_of
from worker.providers.router import Patience, Router

# No breaker opens.
ENDLESS = Patience(0, 30.0, 60.0)

T = TypeVar("T")

# Nothing in a plant takes long; what takes this long hangs.
HANG_SECONDS = 20.0

TEMPLATES = [
    ("fine", "Hello", "<p>{{ recipient.email }}</p>", "{{ recipient.email }}"),
    ("broken", "Hello", "<p>{% if %}</p>", ""),
    ("needy", "Hello {{ what_nobody_gave }}", "<p></p>", ""),
]


class Plant:
    """Two worker processes at one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.db = database.connect()
        # Whatever waits for a lock here waits for ever.
        self.db.execute("SET lock_timeout = '5s'")
        self.db.cursor().executemany(
            "INSERT INTO email_templates (name, subject, html_content, text_content) VALUES (%s, %s, %s, %s)",
            TEMPLATES,
        )
        self.loop = asyncio.new_event_loop()
        self.oracle = Oracle(self.db)
        self.processes: list[Process] = []
        self._born = 0

    def close(self) -> None:
        """Crash what runs, and let go of everything."""
        self.empty()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        self.db.close()

    def empty(self) -> None:
        """Crash all processes and remove all jobs."""
        while self.processes:
            self._crash(self.processes.pop())
        self.db.execute("TRUNCATE email_jobs, email_attempts, email_tracking")
        self.oracle = Oracle(self.db)

    def start(self) -> Process:
        """A new process."""
        self._born += 1
        settings = self.database.settings(
            WORKER_NAME=f"w{self._born}",
            WORKER_BATCH_SIZE=BATCH_SIZE,
            EMAIL_BATCH_DEADLINE_SECONDS=600,
            EMAIL_RETRY_DELAY_SECONDS=RETRY_SECONDS,
            EMAIL_DOUBT_SECONDS=DOUBT_SECONDS,
            EMAIL_MAX_RETRIES=MAX_RETRIES,
        )
        journal = Journal(settings)
        name = settings.worker_name

        def provider(provider_name: str) -> PlannedProvider:
            return PlannedProvider(
                provider_name,
                lambda mail, taken: self.oracle.content_leaves(name, mail, is_taken=taken),
                lambda mail, outcome: self.oracle.process_was_told(name, mail, outcome),
                journal.flush,
            )

        router = Router([provider("smtp"), provider("smtp_fallback")], ENDLESS)
        delivery = Delivery(settings, Catalog(), journal, router, unlimited(), sender_of(settings))
        process = Process(name, settings, journal, delivery)
        self.processes.append(process)
        return process

    def crash(self, process: Process) -> Process:
        """The process dies at once, with all that it alone knew; another one takes its place."""
        self.processes.remove(process)
        self._crash(process)
        self.oracle.process_died(process.name)
        return self.start()

    def _crash(self, process: Process) -> None:
        self.run(forget(process))
        for batch in process.batches:
            self.wait_gone(batch.pid)
        process.batches.clear()

    # Jobs

    def enqueue(
        self,
        guarantee: Guarantee,
        queue: Queue = Queue.TRANSACTIONAL,
        *,
        template: str = "fine",
        due_in: int | None = None,
        expires_in: int | None = None,
        max_retries: int | None = None,
    ) -> str:
        """One job; returns its job_id. Seconds are from now, and negative in the past."""
        name = f"j-{len(self.oracle.lives) + 1}"
        row = self.db.execute(
            "INSERT INTO email_jobs (job_id, type, template, recipient_email, guarantee, queue, max_retries,"
            " scheduled_at, expires_at) VALUES (%s, 'system-update', %s, 'ann@example.com', %s, %s, %s,"
            " clock_timestamp() + make_interval(secs => %s), clock_timestamp() + make_interval(secs => %s))"
            " RETURNING seq",
            (name, template, guarantee, queue, max_retries, due_in, expires_in),
        ).fetchone()
        assert row is not None
        self.oracle.enqueued(row[0], name, guarantee, max_retries)
        return name

    def time_passes(self, seconds: int) -> None:
        """All times move into the past; rows that are locked by a claim keep theirs."""
        with self.db.transaction():
            # No triggers: nobody reschedules anything.
            self.db.execute("SET LOCAL session_replication_role = replica")
            self.db.execute(
                "UPDATE email_jobs SET next_attempt_at = next_attempt_at - gone, scheduled_at = scheduled_at - gone,"
                " expires_at = expires_at - gone, processed_at = processed_at - gone, updated_at = updated_at - gone,"
                " sent_at = sent_at - gone FROM make_interval(secs => %s) AS gone"
                " WHERE id IN (SELECT id FROM email_jobs FOR UPDATE SKIP LOCKED)",
                (seconds,),
            )
            self.db.execute(
                "UPDATE email_attempts SET started_at = started_at - gone, finished_at = finished_at - gone"
                " FROM make_interval(secs => %s) AS gone",
                (seconds,),
            )
            self.db.execute(
                "UPDATE email_tracking SET occurred_at = occurred_at - make_interval(secs => %s)", (seconds,)
            )

    # Batches

    def begin(self, process: Process, queue: Queue, plan: Plan) -> Batch:
        """Start a batch, and run it until it ends or stops where its plan says."""
        batch = self.run(self.begin_without_waiting(process, queue, plan))
        self.run(_until_stopped(batch))
        return batch

    async def begin_without_waiting(self, process: Process, queue: Queue, plan: Plan) -> Batch:
        """Start a batch, which runs whenever the loop does."""
        parameters = connection_parameters(process.settings, f"claim {process.name}")
        connection = await AsyncConnection.connect(**parameters, autocommit=True)

        async def deliver() -> Delivered | None:
            PLAN.set(plan)
            try:
                return await process.delivery.deliver_batch(connection, queue)
            except (EmailWorkerError, psycopg.Error):
                # What Drain does with these: the slot ends, the process goes on.
                return None
            finally:
                await connection.close()

        batch = Batch(plan, connection, asyncio.create_task(deliver()), connection.info.backend_pid)
        process.batches.append(batch)
        return batch

    def finish(self, process: Process, batch: Batch) -> Delivered | None:
        """Let a stopped batch go on to its end; returns what it came to, None when it lost its claim."""
        batch.plan.may_resume.set()
        came_to = self.run(_result(batch))
        process.batches.remove(batch)
        self.wait_gone(batch.pid)
        return came_to

    def lose_claim(self, batch: Batch, *, is_noticed: bool) -> None:
        """Postgres ends the claiming session. Unnoticed: as when the network swallows the news of it."""
        if not is_noticed:
            self.loop.remove_reader(batch.connection.fileno())
        self.terminate(batch.pid)
        batch.is_lost = True
        if is_noticed:
            hand_over = batch.plan.hand_over
            assert hand_over is not None
            self.wait(lambda: not hand_over.may_go(), "the process notices that its claim is lost")

    def settle_interrupted(self, process: Process, queue: Queue, plan: Plan) -> None:
        """A batch whose session Postgres ends in the middle of the settle."""
        with self.database.connect() as blocker, blocker.transaction():
            blocker.execute("SET lock_timeout = '5s'")
            # The settle has written the jobs when it comes to their events.
            blocker.execute("LOCK TABLE email_tracking IN EXCLUSIVE MODE")
            batch = self.run(self.begin_without_waiting(process, queue, plan))
            self.wait(lambda: batch.task.done() or self._waits_for_lock(batch.pid), "the batch settles")
            if not batch.task.done():
                self.terminate(batch.pid)
        self.finish(process, batch)

    # The world

    def terminate(self, pid: int) -> None:
        """Have Postgres end a session, and wait until it is gone."""
        self.db.execute("SELECT pg_terminate_backend(%s)", (pid,))
        self.wait_gone(pid)

    def wait_gone(self, pid: int) -> None:
        """Wait until a session, and with it its locks, is gone."""
        self.wait(lambda: not self._activity(pid), "a session ends")

    def _activity(self, pid: int) -> list[tuple[Any, ...]]:
        return self.db.execute("SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchall()

    def _waits_for_lock(self, pid: int) -> bool:
        return self._activity(pid) == [("active", "Lock")]

    def holds_claim(self, batch: Batch) -> bool:
        """Whether a batch has claimed and sends."""
        return self._activity(batch.pid) == [("idle in transaction", "Client")]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let the loop run until something is true."""
        ends = time.monotonic() + HANG_SECONDS
        while not condition():
            assert time.monotonic() < ends, f"hangs: not within {HANG_SECONDS:g} s: {what}"
            self.run(asyncio.sleep(0.001))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the loop until this is done."""
        return self.loop.run_until_complete(_bounded(work))


async def _bounded(work: Awaitable[T]) -> T:
    async with asyncio.timeout(HANG_SECONDS):
        return await work


async def _until_stopped(batch: Batch) -> None:
    stopped = asyncio.create_task(batch.plan.is_stopped.wait())
    await asyncio.wait({batch.task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if batch.task.done():
        batch.task.result()


async def _result(batch: Batch) -> Delivered | None:
    return await batch.task
