"""Delivering one batch in one transaction: claim, render, journal, send, settle.

This is the only module that knows the order of the steps. The claim's locks are held across the send, so a worker that
dies frees its jobs at once; what was in a provider's hands then is in the journal, and `worker.retry` decides by it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg
import structlog
from psycopg import AsyncConnection

from worker.catalog import Catalog
from worker.claim import ClaimPositions, ClaimWatch, claim_jobs, watch_claim
from worker.compose import Sender, unsubscribe_url
from worker.db import query
from worker.errors import ClaimLost, JournalUnavailable, TemplateError
from worker.job import (
    NO_OPTIONS,
    AttemptState,
    Content,
    Job,
    Mail,
    NotSent,
    Options,
    Outcome,
    Queue,
    Resend,
    Settlement,
)
from worker.journal import Closing, Journal, outcome_row
from worker.log import mask_address
from worker.providers.base import TOO_LATE
from worker.providers.router import Router
from worker.render import Brand, render_batch
from worker.retry import RetryPolicy, clip, dead, expired, settle_doubt, settle_outcome
from worker.settings import Settings
from worker.settle import settle

# After two thirds of the deadline nothing more is handed over: the rest is for answers.
HAND_OVER_SHARE = 2 / 3
# A doubt may turn up a second one when a worker without its lock still writes; a third is left to the next claim.
MOST_ROUNDS = 3

_decode_options = msgspec.json.Decoder(Options).decode

log = structlog.get_logger(__name__)


class StopFlag:
    """Set once, when the process is asked to stop: no new claim, no new hand-over."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether we are stopping."""
        return self.event.is_set()


class Unsendable(msgspec.Struct):
    """A job that ends without a hand-over: `error` None means expired."""

    job: Job
    attempt: int
    error: str | None
    retries: int = 0


class Batch:
    """One claim on its way: its time, its watch, and what has become of its mails."""

    def __init__(self, queue: Queue, watch: ClaimWatch, stop: StopFlag, deadline_seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self.is_urgent = queue is Queue.TRANSACTIONAL
        self.deadline = now + deadline_seconds
        self.outcomes: dict[int, Outcome] = {}
        self.providers: dict[int, str] = {}
        self.questioned: dict[int, Job] = {}
        self.settlements: list[Settlement] = []
        self._last_call = now + deadline_seconds * HAND_OVER_SHARE
        self._watch = watch
        self._stop = stop
        self._time = asyncio.get_running_loop().time

    def may_go(self) -> bool:
        """Whether content may still be handed over."""
        return not self._watch.is_lost and not self._stop.is_set and self._time() < self._last_call


class Passage:
    """A batch's passage to one provider: the contract's `HandOver`."""

    def __init__(self, batch: Batch, journal: Journal, provider: str, reason: str) -> None:
        self.deadline = batch.deadline
        self.is_urgent = batch.is_urgent
        self.may_go = batch.may_go
        self._batch = batch
        self._journal = journal
        self._provider = provider
        self._reason = reason

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """Journal the intents. A row that was there before is a question to the journal, not ours to send."""
        if not mails:
            return []
        if not self.may_go():
            for mail in mails:
                self.answer(mail, NotSent(TOO_LATE))
            return []
        try:
            new = await self._journal.open_intents(mails, self._provider, clip(self._reason))
        except JournalUnavailable as error:
            for mail in mails:
                self.answer(mail, NotSent(str(error)))
            return []
        admitted = []
        for mail in mails:
            if mail.job.seq in new:
                mail.is_journaled = True
                admitted.append(mail)
            else:
                self._batch.questioned[mail.job.seq] = mail.job
        return admitted

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """Keep what became of a mail, and take it down in the journal."""
        seq = mail.job.seq
        self._batch.outcomes[seq] = outcome
        self._batch.providers[seq] = self._provider
        if mail.is_journaled:
            self._journal.record(seq, mail.attempt, outcome)


class Delivery:
    """What one process shares between its batches, and the delivery of a batch."""

    def __init__(self, settings: Settings, catalog: Catalog, journal: Journal, router: Router, sender: Sender) -> None:
        self.stop = StopFlag()
        self._batch_size = settings.worker_batch_size
        self._deadline_seconds = settings.email_batch_deadline_seconds
        self._policy = RetryPolicy(
            settings.email_retry_delay_seconds, settings.email_max_retries, settings.email_doubt_seconds
        )
        self._catalog = catalog
        self._journal = journal
        self._router = router
        self._sender = sender
        self._brand = Brand(sender.name or sender.address, sender.address)
        self._positions = {queue: ClaimPositions() for queue in Queue}
        self._tells_each_mail = settings.log_level == "DEBUG"

    @property
    def batch_size(self) -> int:
        """Jobs in a full batch."""
        return self._batch_size

    async def deliver_batch(self, connection: AsyncConnection[Any], queue: Queue) -> int:
        """Deliver the jobs that are due, one batch of them; returns how many were claimed. Raises ClaimLost."""
        began = time.monotonic()
        jobs = await claim_jobs(connection, queue, self._positions[queue], self._batch_size)
        if not jobs:
            return 0
        try:
            mails, unsendable = await self._render(connection, jobs)
            with watch_claim(connection) as watch:
                batch = Batch(queue, watch, self.stop, self._deadline_seconds)
                await self._send(batch, mails, unsendable)
            if watch.is_lost:
                raise ClaimLost("Postgres ended the claiming session; other workers have its jobs now")
            await self._settle(connection, batch)
        except BaseException:
            # Whatever it was, the claim must end now, and with it the locks.
            await connection.close()
            raise
        self._log_batch(queue, len(jobs), batch, time.monotonic() - began)
        return len(jobs)

    async def _render(
        self, connection: AsyncConnection[Any], jobs: Sequence[Job]
    ) -> tuple[list[Mail], list[Unsendable]]:
        """Content for each job that can be sent; the others with the reason why not."""
        await self._catalog.prepare(connection, jobs)
        unsendable: list[Unsendable] = []
        ready = []
        urls: dict[str, str] = {}
        for job in jobs:
            try:
                if job.is_expired:
                    unsendable.append(Unsendable(job, job.attempt_no + 1, None))
                    continue
                options = await _options(connection, job)
                policy = self._catalog.policy(job)
                can_opt_out = policy is not None and policy.opt_out
                if can_opt_out and self._sender.unsubscribe_url:
                    urls[job.id] = unsubscribe_url(self._sender.unsubscribe_url, job)
                ready.append((job, self._catalog.template(job), options, can_opt_out))
            except (TemplateError, msgspec.DecodeError) as error:
                problem = f"options: {error}" if isinstance(error, msgspec.DecodeError) else str(error)
                unsendable.append(Unsendable(job, job.attempt_no + 1, problem))
        contents = render_batch([(job, template) for job, template, _, _ in ready], self._brand, urls)
        mails = []
        for (job, _, options, can_opt_out), content in zip(ready, contents, strict=True):
            if isinstance(content, Content):
                mails.append(Mail(job, content, options, can_opt_out, job.attempt_no + 1))
            else:
                unsendable.append(Unsendable(job, job.attempt_no + 1, str(content)))
        return mails, unsendable

    async def _send(self, batch: Batch, mails: list[Mail], unsendable: list[Unsendable]) -> None:
        """Send and end what can be, ask the journal about the rest, and send what it sends back."""
        for _ in range(MOST_ROUNDS):
            if mails:
                await self._router.send(
                    mails, lambda provider, reason: Passage(batch, self._journal, provider, reason), batch.outcomes
                )
            await self._close_unsent(batch, mails, unsendable)
            for mail in mails:
                if mail.is_journaled and mail.job.seq in batch.outcomes:
                    batch.settlements.append(self._settlement(batch, mail))
            if not batch.questioned or not batch.may_go():
                return
            mails, unsendable = await self._ask_journal(batch, mails, unsendable)

    def _settlement(self, batch: Batch, mail: Mail) -> Settlement:
        seq = mail.job.seq
        return settle_outcome(
            self._job(mail.job), mail.attempt, batch.providers[seq], batch.outcomes[seq], self._policy, mail.retries
        )

    def _job(self, job: Job) -> Job:
        """The job with its type's own number of retries, where it names none."""
        if job.max_retries is None:
            policy = self._catalog.policy(job)
            if policy is not None and policy.max_retries is not None:
                return msgspec.structs.replace(job, max_retries=policy.max_retries)
        return job

    async def _close_unsent(self, batch: Batch, mails: Sequence[Mail], unsendable: Sequence[Unsendable]) -> None:
        """End what never reached a provider: first its row in the journal, for a dead worker's row decides instead."""
        closings: list[Closing] = []
        ends: list[tuple[Job, Settlement]] = []
        for item in unsendable:
            end = (
                expired(item.job, item.attempt)
                if item.error is None
                else dead(item.job, item.attempt, item.error, None, item.retries)
            )
            closings.append(Closing(item.job.seq, item.attempt, AttemptState.NOT_SENT, None, end.error or end.status))
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
        self, batch: Batch, mails: Sequence[Mail], unsendable: Sequence[Unsendable]
    ) -> tuple[list[Mail], list[Unsendable]]:
        """Settle what dead workers left by what the journal knows; returns what is to go again."""
        questioned, batch.questioned = batch.questioned, {}
        try:
            rows = await self._journal.read(list(questioned.values()))
        except JournalUnavailable:
            return [], []
        by_seq: dict[int, Mail | Unsendable] = {mail.job.seq: mail for mail in mails}
        by_seq |= {item.job.seq: item for item in unsendable}
        again: tuple[list[Mail], list[Unsendable]] = ([], [])
        for seq, job in questioned.items():
            if seq not in rows:
                continue
            verdict = settle_doubt(self._job(job), rows[seq], self._policy)
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
        keys = [(s.job.seq, s.attempt_no) for s in batch.settlements]
        answers = self._journal.take(keys)
        try:
            await settle(connection, batch.settlements, answers)
        except psycopg.Error:
            self._journal.put_back(answers)
            raise

    def _log_batch(self, queue: Queue, claimed: int, batch: Batch, seconds: float) -> None:
        counts = Counter(str(settlement.event or "released") for settlement in batch.settlements)
        if claimed > len(batch.settlements):
            counts["untouched"] = claimed - len(batch.settlements)
        log.info("batch", queue=str(queue), claimed=claimed, milliseconds=round(seconds * 1000), **counts)
        if self._tells_each_mail:
            for s in batch.settlements:
                log.debug(
                    "mail",
                    job_id=s.job.job_id,
                    attempt=s.attempt_no,
                    event=str(s.event or "released"),
                    provider=s.provider,
                    reason=s.error,
                    to=mask_address(s.job.recipient_email),
                )


def _again(item: Mail | Unsendable, verdict: Resend) -> Mail | Unsendable:
    """The same mail under the number, and at the price, that the journal's verdict gives it."""
    item.attempt = verdict.attempt
    item.retries = verdict.retries
    if isinstance(item, Mail):
        item.is_journaled = False
    return item


async def _options(connection: AsyncConnection[Any], job: Job) -> Options:
    """The job's options; large ones were left behind by the claim and are fetched for this job alone."""
    if job.has_large_options:
        cursor = await connection.execute(query("read_options"), {"id": job.id})
        row = await cursor.fetchone()
        return _decode_options(row[0]) if row else NO_OPTIONS
    return _decode_options(job.options) if job.options else NO_OPTIONS
