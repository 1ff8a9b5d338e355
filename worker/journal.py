"""The journal of hand-overs: `email_attempts`, written on a connection of its own.

Promises: no mail is handed over before its intent is committed, and a row that a dead worker left is found by the
primary key itself, when the same attempt number is inserted again. Intents of all batches that wait are written in one
commit; outcomes follow every few milliseconds without waiting for the disk, unless a settle writes them first.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import msgspec
import psycopg
import structlog
from psycopg import AsyncConnection

from worker.db import array_literal, check_session, connection_parameters, query
from worker.errors import DatabaseError, JournalUnavailable
from worker.job import (
    TOO_LATE,
    Accepted,
    AttemptState,
    Failed,
    Job,
    JournalRow,
    Mail,
    NotSent,
    Outcome,
    Refused,
    Unavailable,
    Unknown,
)
from worker.retry import clip
from worker.settings import Settings

# How long an answer may be known to this process alone.
FLUSH_SECONDS = 0.01

log = structlog.get_logger(__name__)

AttemptKey = tuple[int, int]


class Closing(msgspec.Struct, frozen=True):
    """An attempt that ended before anything was handed over."""

    seq: int
    attempt: int
    state: AttemptState
    provider: str | None
    reason: str


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """An answer on its way into the journal."""

    seq: int
    attempt: int
    state: AttemptState
    answer: str
    message_id: str | None


class _Request:
    """Intents of one batch that wait for the next commit; `admitted` gets the seqs that were new."""

    __slots__ = ("admitted", "mails", "provider")

    def __init__(self, mails: Sequence[Mail], provider: str) -> None:
        self.mails = mails
        self.provider = provider
        self.admitted: asyncio.Future[set[int]] = asyncio.get_running_loop().create_future()


class Journal:
    """The process's journal, shared by all batches. One connection, one statement at a time."""

    def __init__(self, settings: Settings) -> None:
        self._parameters = connection_parameters(settings, "email-worker journal")
        self._worker = settings.worker_name
        self._connection: AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self._waiting: list[_Request] = []
        self._writer: asyncio.Task[None] | None = None
        self._outcomes: dict[AttemptKey, OutcomeRow] = {}
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_task: asyncio.Task[None] | None = None

    async def open_intents(self, mails: Sequence[Mail], provider: str) -> set[int]:
        """Journal the intent to hand these over; returns the seqs that were new. Raises JournalUnavailable.

        A batch that gives up waiting leaves no question behind: its intents are not written, or closed as not sent.
        """
        request = _Request(mails, provider)
        self._waiting.append(request)
        # A task of its own, because the end of one batch must not disturb what it writes for others.
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting(), name="journal writer")
        try:
            return await request.admitted
        except asyncio.CancelledError:
            if request in self._waiting:
                self._waiting.remove(request)
            elif request.admitted.done() and not request.admitted.cancelled() and not request.admitted.exception():
                # Written in the very moment in which the batch gave up.
                self._close(mails, request.admitted.result())
            raise

    async def _write_waiting(self) -> None:
        """Write all intents that wait, those to one provider in one commit, until none is left."""
        while self._waiting:
            async with self._lock:
                requests, self._waiting = self._waiting, []
                groups: dict[str, list[_Request]] = {}
                for request in requests:
                    groups.setdefault(request.provider, []).append(request)
                for provider, group in groups.items():
                    await self._write_group(provider, group)

    async def _write_group(self, provider: str, group: list[_Request]) -> None:
        try:
            admitted = await self._insert_intents(await self._connected(), provider, group)
        except Exception as error:  # noqa: BLE001  Whatever it was, the batches that wait must hear of it.
            await self._drop_connection(error)
            for request in group:
                if not request.admitted.done():
                    request.admitted.set_exception(JournalUnavailable(str(error).strip()))
            return
        # The newest first: two batches of this process with the same job are a lost claim and its successor.
        for request in reversed(group):
            mine = {mail.job.seq for mail in request.mails} & admitted
            admitted -= mine
            if not request.admitted.done():
                request.admitted.set_result(mine)
                continue
            self._close(request.mails, mine)

    def _close(self, mails: Sequence[Mail], seqs: set[int]) -> None:
        """Note that these intents, though written, came to nothing."""
        for mail in mails:
            if mail.job.seq in seqs:
                self.record(mail.job.seq, mail.attempt, NotSent(TOO_LATE))

    async def _insert_intents(self, connection: AsyncConnection[Any], provider: str, group: list[_Request]) -> set[int]:
        mails = [mail for request in group for mail in request.mails]
        cursor = await connection.execute(
            query("open_intents"),
            {
                "provider": provider,
                "worker": self._worker,
                "seqs": array_literal(mail.job.seq for mail in mails),
                "attempts": array_literal(mail.attempt for mail in mails),
                "reasons": array_literal(clip(mail.reason) for mail in mails),
            },
        )
        return {seq for (seq,) in await cursor.fetchall()}

    async def close_unsent(self, closings: Sequence[Closing]) -> set[int]:
        """Journal attempts that end without a hand-over; returns the seqs that were new."""
        if not closings:
            return set()
        parameters = {
            "worker": self._worker,
            "seqs": array_literal(closing.seq for closing in closings),
            "attempts": array_literal(closing.attempt for closing in closings),
            "states": array_literal(closing.state for closing in closings),
            "providers": array_literal(closing.provider for closing in closings),
            "reasons": array_literal(clip(closing.reason) for closing in closings),
        }
        async with self._lock:
            try:
                cursor = await (await self._connected()).execute(query("close_unsent"), parameters)
                return {seq for (seq,) in await cursor.fetchall()}
            except (psycopg.Error, OSError, DatabaseError) as error:
                await self._drop_connection(error)
                raise JournalUnavailable(str(error).strip()) from error

    async def read(self, connection: AsyncConnection[Any], jobs: Sequence[Job]) -> dict[int, list[JournalRow]]:
        """What is known of these jobs beyond their settled attempts, by seq, oldest first.

        Read on the claiming `connection`, which so proves that the claim still stands; raises psycopg's error if not.
        """
        # What this process was told and has not written yet counts too.
        await self.flush()
        cursor = await connection.execute(
            query("read_attempts"),
            {
                "seqs": array_literal(job.seq for job in jobs),
                "settled": array_literal(job.attempt_no for job in jobs),
            },
        )
        found: dict[int, list[JournalRow]] = {}
        for row in await cursor.fetchall():
            found.setdefault(row[0], []).append(JournalRow(*row))
        return found

    def record(self, seq: int, attempt: int, outcome: Outcome) -> None:
        """Take down an answer; it is in the database after FLUSH_SECONDS, or with the settle if that comes first."""
        self._outcomes[seq, attempt] = outcome_row(seq, attempt, outcome)
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_is_due)

    def take(self, keys: Iterable[AttemptKey]) -> list[OutcomeRow]:
        """Answers not written yet, for a settle to write. If it fails they must be put back."""
        return [row for key in keys if (row := self._outcomes.pop(key, None)) is not None]

    def put_back(self, rows: Iterable[OutcomeRow]) -> None:
        """Answers that a settle could not write."""
        for row in rows:
            self._outcomes[row.seq, row.attempt] = row
        if self._outcomes and self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_is_due)

    def _flush_is_due(self) -> None:
        self._flush_timer = None
        if self._flush_task is None or self._flush_task.done():
            self._flush_task = asyncio.create_task(self.flush())
        elif self._outcomes:
            self._flush_timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_is_due)

    async def flush(self) -> None:
        """Write the answers that no settle has taken. What cannot be written now is tried again."""
        async with self._lock:
            rows = list(self._outcomes.values())
            self._outcomes.clear()
            if not rows:
                return
            try:
                await write_outcomes(await self._connected(), rows, synchronous_commit="off")
            except (psycopg.Error, OSError, DatabaseError) as error:
                await self._drop_connection(error)
                self.put_back(row for row in rows if (row.seq, row.attempt) not in self._outcomes)

    async def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(**self._parameters, autocommit=True)
            await check_session(self._connection)
        return self._connection

    async def _drop_connection(self, error: Exception) -> None:
        log.warning("the journal lost its connection", error=str(error).strip())
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def open(self) -> None:
        """Connect, so that trouble shows at the start. Raises psycopg.OperationalError or PoolerInBetween."""
        await self._connected()

    async def close(self) -> None:
        """Write what is left, and disconnect."""
        if self._writer is not None:
            await self._writer
        if self._outcomes:
            await self.flush()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self._connection is not None:
            await self._connection.close()


async def write_outcomes(
    connection: AsyncConnection[Any], rows: Sequence[OutcomeRow], synchronous_commit: str | None = None
) -> None:
    """Write answers into their rows, on whichever connection; None leaves the commit as durable as it is."""
    await connection.execute(
        query("write_outcomes"),
        {
            "synchronous_commit": synchronous_commit,
            "seqs": array_literal(row.seq for row in rows),
            "attempts": array_literal(row.attempt for row in rows),
            "states": array_literal(row.state for row in rows),
            "answers": array_literal(row.answer for row in rows),
            "message_ids": array_literal(row.message_id for row in rows),
        },
    )


def outcome_row(seq: int, attempt: int, outcome: Outcome) -> OutcomeRow:
    """An outcome in the journal's words."""
    match outcome:
        case Accepted(message_id, answer):
            return OutcomeRow(seq, attempt, AttemptState.ACCEPTED, clip(answer), message_id)
        case Refused(answer):
            return OutcomeRow(seq, attempt, AttemptState.REFUSED, clip(answer), None)
        case Failed(answer, _, _):
            return OutcomeRow(seq, attempt, AttemptState.FAILED, clip(answer), None)
        case Unknown(answer):
            return OutcomeRow(seq, attempt, AttemptState.UNKNOWN, clip(answer), None)
        case NotSent(reason):
            return OutcomeRow(seq, attempt, AttemptState.NOT_SENT, clip(reason), None)
        case Unavailable(reason, _):
            return OutcomeRow(seq, attempt, AttemptState.NOT_SENT, clip(reason), None)
        case _:
            assert_never(outcome)
