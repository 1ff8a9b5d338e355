"""Delivering one batch in one transaction: claim, render, journal, send, settle.

This is the only module that knows the order of the steps. The claim's locks are held across the send, so a worker that
dies frees its jobs at once; what was in a provider's hands then is in the journal, and `worker.retry` decides by it.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from worker import metrics
from worker.allowance import Allowance, cost_of, open_allowance
from worker.audience import Audience
from worker.batch import Batch, Passage, StopFlag
from worker.catalog import Catalog
from worker.claim import ClaimPositions, claim_jobs, watch_claim
from worker.compose import Sender
from worker.errors import ClaimLost, JournalUnavailable
from worker.job import Accepted, AttemptState, Job, Mail, NotSent, Queue, Resend, Settlement, Unknown
from worker.journal import Closing, Journal, outcome_row
from worker.prepare import Turns, Unsendable, prepare
from worker.providers.router import Router
from worker.rate_limits import RateLimits
from worker.retry import RetryPolicy, settle_doubt, settle_outcome, unsent
from worker.settings import Settings
from worker.settle import settle
from worker.tally import log_batch, log_mails, measure

# A doubt may turn up a second one when a worker without its lock still writes; a third is left to the next claim.
MOST_ROUNDS = 3
# Rendering ends after this share of the deadline, however endless the templates; what is left waits for the next claim.
RENDER_SHARE = 1 / 3
# How often it is looked whether a pause is over.
PAUSE_LOOK_SECONDS = 0.5

# Hears of what was committed; must not wait.
Tell = Callable[[Sequence[Settlement]], None]

log = structlog.get_logger(__name__)


class Delivered(NamedTuple):
    """What a batch came to.

    How many jobs were claimed, how many of them have a new state, whether there may be more, and for how many seconds
    there are no tokens of the default provider.
    """

    claimed: int
    settled: int
    is_full: bool = False
    wait_seconds: float = 0.0


class Delivery:
    """What one process shares between its batches, and the delivery of a batch."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        journal: Journal,
        router: Router,
        limits: RateLimits,
        sender: Sender,
        tell: Tell | None = None,
    ) -> None:
        self.stop = StopFlag()
        self._tell = tell
        self._batch_size = settings.worker_batch_size
        self._deadline_seconds = settings.email_batch_deadline_seconds
        self._policy = RetryPolicy(
            settings.email_retry_delay_seconds, settings.email_max_retries, settings.email_doubt_seconds
        )
        self._catalog = catalog
        self._journal = journal
        self._router = router
        self._limits = limits
        self._sender = sender
        self._audience = audience_of(settings)
        self._turns = Turns()
        self._positions = {queue: ClaimPositions() for queue in Queue}
        self._slow_seconds = settings.log_slow_seconds
        self._tells_each_mail = settings.log_level == "DEBUG"

    async def deliver_batch(self, connection: AsyncConnection[Any], queue: Queue) -> Delivered:
        """Deliver one batch of the jobs that are due. Raises ClaimLost, or psycopg's error if the settle fails."""
        if await self._is_paused(connection, queue):
            return Delivered(0, 0, wait_seconds=PAUSE_LOOK_SECONDS)
        async with open_allowance(self._limits, queue, self._batch_size) as allowance:
            if not allowance.tokens:
                return Delivered(0, 0, wait_seconds=allowance.wait_seconds)
            return await self._deliver(connection, queue, allowance)

    async def _is_paused(self, connection: AsyncConnection[Any], queue: Queue) -> bool:
        """Whether nothing of the queue may be sent: it is paused itself, or every provider is."""
        if self._is_shut(queue):
            await self._catalog.look_for_news(connection)
        return self._is_shut(queue)

    def _is_shut(self, queue: Queue) -> bool:
        return self._catalog.pauses.shut(queue, self._limits.all_providers)

    async def _deliver(self, connection: AsyncConnection[Any], queue: Queue, allowance: Allowance) -> Delivered:
        clock = asyncio.get_running_loop().time
        began = clock()
        most = allowance.tokens
        jobs = await claim_jobs(connection, queue, self._positions[queue], most, self._catalog.pauses.types)
        claimed_at = clock()
        await allowance.keep(len(jobs))
        if not jobs:
            if self._catalog.pauses.are_any:
                # The end of a pause is a job that no claim would show.
                await self._catalog.look_for_news(connection)
            return Delivered(0, 0)
        metrics.batch_claimed(len(jobs), claimed_at - began)
        try:
            prepared = await prepare(
                connection,
                jobs,
                self._catalog,
                self._sender,
                self._audience,
                allowance,
                self._turns.turn(is_urgent=queue is Queue.TRANSACTIONAL),
                self._deadline_seconds * RENDER_SHARE,
            )
            await allowance.keep(sum(map(cost_of, prepared.mails)))
            with watch_claim(connection) as watch:
                batch = Batch(queue, watch, self.stop, self._deadline_seconds, began)
                batch.settlements += prepared.waiting
                await self._send(connection, batch, prepared.mails, prepared.unsendable, allowance)
            if watch.is_lost:
                raise ClaimLost("Postgres ended the claiming session; other workers have its jobs now")
            sent_at = clock()
            await self._settle(connection, batch)
        except BaseException:
            # Whatever it was, the claim must end now, and with it the locks.
            await connection.close()
            raise
        measure(prepared, batch, clock() - sent_at)
        if self._tell is not None:
            self._tell(batch.settlements)
        log_batch(queue, len(jobs), batch, clock() - began, self._slow_seconds)
        if self._tells_each_mail:
            log_mails(batch)
        return Delivered(len(jobs), len(batch.settlements), is_full=len(jobs) == most)

    async def _send(
        self,
        connection: AsyncConnection[Any],
        batch: Batch,
        mails: list[Mail],
        unsendable: list[Unsendable],
        allowance: Allowance,
    ) -> None:
        """Send and end what can be, ask the journal about the rest, and send what it sends back."""
        for _ in range(MOST_ROUNDS):
            if mails:
                passage = partial(Passage, batch, self._journal)
                try:
                    await self._router.send(mails, passage, batch.outcomes, allowance)
                finally:
                    allowance.reached = _reached(batch)
            await self._close_unsent(batch, mails, unsendable)
            self._settle_answered(batch, mails)
            if not batch.questioned or not batch.may_go():
                return
            mails, unsendable = await self._ask_journal(connection, batch, mails, unsendable)

    def _settle_answered(self, batch: Batch, mails: Sequence[Mail]) -> None:
        for mail in mails:
            outcome = batch.outcomes.get(mail.job.seq)
            if outcome is None or not mail.is_journaled:
                continue
            if isinstance(outcome, NotSent) and mail.retries:
                # A resend that was taken back settles nothing: the doubt is as open as before.
                continue
            batch.settlements.append(self._settlement(batch, mail))

    def _settlement(self, batch: Batch, mail: Mail) -> Settlement:
        seq = mail.job.seq
        return settle_outcome(
            mail.job, mail.attempt, batch.providers[seq], batch.outcomes[seq], self._policy, mail.retries
        )

    async def _close_unsent(self, batch: Batch, mails: Sequence[Mail], unsendable: Sequence[Unsendable]) -> None:
        """End what never reached a provider: first its row in the journal, for a dead worker's row decides instead."""
        closings: list[Closing] = []
        ends: list[tuple[Job, Settlement]] = []
        for item in unsendable:
            end = unsent(item.job, item.attempt, item.status, item.error, item.retries)
            closings.append(Closing(item.job.seq, item.attempt, AttemptState.NOT_SENT, None, item.error))
            ends.append((item.job, end))
        for mail in mails:
            outcome = batch.outcomes.get(mail.job.seq)
            if mail.is_journaled or outcome is None or isinstance(outcome, NotSent):
                continue
            row = outcome_row(mail.job.seq, mail.attempt, outcome)
            closings.append(Closing(row.seq, row.attempt, row.state, batch.providers[row.seq], row.answer))
            ends.append((mail.job, self._settlement(batch, mail)))
        if not closings:
            return
        try:
            new = await self._journal.close_unsent(closings)
        except JournalUnavailable:
            # Nothing is settled, so the next claim does it all again.
            return
        for job, end in ends:
            if job.seq in new:
                batch.settlements.append(end)
            else:
                batch.questioned[job.seq] = job

    async def _ask_journal(
        self,
        connection: AsyncConnection[Any],
        batch: Batch,
        mails: Sequence[Mail],
        unsendable: Sequence[Unsendable],
    ) -> tuple[list[Mail], list[Unsendable]]:
        """Settle what dead workers left by what the journal knows; returns what is to go again."""
        questioned, batch.questioned = batch.questioned, {}
        with batch.watch.paused():
            rows = await self._journal.read(connection, list(questioned.values()))
        by_seq: dict[int, Mail | Unsendable] = {mail.job.seq: mail for mail in mails}
        by_seq |= {item.job.seq: item for item in unsendable}
        again: tuple[list[Mail], list[Unsendable]] = ([], [])
        for seq, job in questioned.items():
            if seq not in rows:
                continue
            batch.outcomes.pop(seq, None)
            verdict = settle_doubt(job, rows[seq], self._policy)
            if isinstance(verdict, Settlement):
                batch.settlements.append(verdict)
                continue
            item = _again(by_seq[seq], verdict)
            if isinstance(item, Mail):
                again[0].append(item)
            else:
                again[1].append(item)
        log.info("asked the journal about jobs of a dead worker", jobs=len(questioned), sent_again=len(again[0]))
        return again

    async def _settle(self, connection: AsyncConnection[Any], batch: Batch) -> None:
        """Write the end of the batch and commit; answers that the journal has not written yet go with it."""
        # Every attempt of this claim, the primary's before the fallback's too.
        keys = [(s.job.seq, n) for s in batch.settlements for n in range(s.job.attempt_no + 1, s.attempt_no + 1)]
        answers = self._journal.take(keys)
        try:
            await settle(connection, batch.settlements, answers)
        except psycopg.Error:
            self._journal.put_back(answers)
            raise


def _reached(batch: Batch) -> set[int]:
    """The mails that a provider has, or may have."""
    return {seq for seq, outcome in batch.outcomes.items() if isinstance(outcome, Accepted | Unknown)}


def audience_of(settings: Settings) -> Audience:
    """Who may be written to at all."""
    patterns = filter(None, settings.email_allowed_recipients.lower().split(","))
    return Audience(tuple(patterns), settings.email_redirect_to)


def _again(item: Mail | Unsendable, verdict: Resend) -> Mail | Unsendable:
    """The same mail under the number, and at the price, that the journal's verdict gives it."""
    item.attempt = verdict.attempt
    item.retries = verdict.retries
    if isinstance(item, Mail):
        item.is_journaled = False
    return item
