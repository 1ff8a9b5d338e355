"""Claiming: due jobs, locked by the claiming transaction itself, in the order of priority and time.

Owns the positions from which each priority's scan resumes, and the watch over a claim that may be lost. There is no
`processing` status: the row lock is the claim, and Postgres drops it the moment a worker dies.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import AsyncConnection

from worker.db import array_literal, query
from worker.job import Job, Priority, Queue

# A scan resumes this many claimed rows behind the newest: transactions that commit a little late land there and are
# found at once. More would make every claim walk more dead rows; fewer, and late rows wait for the next full scan.
TRAIL_ROWS = 500
FULL_SCAN_EVERY_SECONDS = 2.0
# Full scans may take up to a twentieth of the time, however slow an old snapshot makes them.
FULL_SCAN_SHARE = 20
# A scan that claims all there is among paused jobs need not pass them again. What commits later than this after it
# became due, or is let go by a worker that dies, waits for the next full scan.
LATE_SECONDS = 5.0

BEGINNING = ("-infinity", 0)


class _Trail:
    """The scan position of one priority."""

    __slots__ = ("_claimed", "_rows", "resume")

    def __init__(self) -> None:
        self.resume: tuple[datetime, int] | None = None
        self._claimed: deque[tuple[int, tuple[datetime, int]]] = deque()
        self._rows = 0

    def advance(self, rows: int, last: tuple[datetime, int]) -> None:
        # What was claimed before and lies beyond is no position yet: rows committed late may go on before it.
        while self._claimed and self._claimed[-1][1] >= last:
            self._rows -= self._claimed.pop()[0]
        self._claimed.append((rows, last))
        self._rows += rows
        while self._rows - self._claimed[0][0] >= TRAIL_ROWS:
            passed, self.resume = self._claimed.popleft()
            self._rows -= passed

    def go_on_behind(self, place: tuple[datetime, int] | None) -> None:
        self._claimed.clear()
        self._rows = 0
        self.resume = place


class Scan(NamedTuple):
    """What was true when a scan began: how often the pauses had changed, and how often a position had gone back."""

    pauses: int
    falls: int


class ClaimPositions:
    """Where the scans of one queue resume, in this process. Shared by all its slots."""

    def __init__(self) -> None:
        self._trails = {priority: _Trail() for priority in Priority}
        self._paused: frozenset[str] = frozenset()
        self._pauses = self._falls = 0
        self._last_full_scan = float("-inf")
        self._last_duration = 0.0

    def full_scan_is_due(self, *, found_nothing: bool) -> bool:
        """Whether to scan from the beginning now; sooner when a resumed scan found nothing."""
        pause = FULL_SCAN_SHARE * self._last_duration
        return time.monotonic() - self._last_full_scan >= (
            pause if found_nothing else max(FULL_SCAN_EVERY_SECONDS, pause)
        )

    def full_scan_begins(self) -> float:
        """Note the moment, so that no other slot starts one too."""
        self._last_full_scan = time.monotonic()
        return self._last_full_scan

    def full_scan_ended(self, began: float) -> None:
        """Note how long it took."""
        self._last_duration = time.monotonic() - began

    def parameters(self, *, full: bool) -> dict[str, object]:
        """The position parameters of `claim_jobs.sql`."""
        starts: list[tuple[object, int]] = [
            BEGINNING if full or trail.resume is None else (trail.resume[0].isoformat(), trail.resume[1])
            for trail in self._trails.values()
        ]
        return {
            "priorities": array_literal(self._trails),
            "after_at": array_literal(at for at, _ in starts),
            "after_seq": array_literal(seq for _, seq in starts),
        }

    def begin_without(self, paused: frozenset[str]) -> Scan:
        """A scan for all types but these begins; when they are others than before, all begin at the beginning again."""
        if paused != self._paused:
            self._paused = paused
            self._pauses += 1
            for trail in self._trails.values():
                trail.go_on_behind(None)
        return Scan(self._pauses, self._falls)

    def claimed(self, jobs: Sequence[Job], scan: Scan) -> Scan:
        """Move on behind what was claimed, or back to what was found behind the position; for `passed`."""
        if scan.pauses != self._pauses:
            # Others are sent by now, and some of them stand before these.
            return scan
        falls = 0
        by_priority: dict[str, list[Job]] = {}
        for job in jobs:
            by_priority.setdefault(job.priority, []).append(job)
        for priority, group in by_priority.items():
            trail = self._trails[Priority(priority)]
            first, last = _position(group[0]), _position(group[-1])
            if trail.resume is not None and first <= trail.resume:
                falls += 1
                trail.go_on_behind((first[0], first[1] - 1))
            trail.advance(len(group), last)
        self._falls += falls
        return Scan(scan.pauses, scan.falls + falls)

    def passed(self, until: datetime, scan: Scan) -> None:
        """Move on behind what a scan has passed that claimed all there was: what is left of it is paused, or held."""
        if scan != Scan(self._pauses, self._falls):
            # Meanwhile another scan has found what this one had behind it.
            return
        for trail in self._trails.values():
            if trail.resume is None or trail.resume < (until, 0):
                trail.go_on_behind((until, 0))


def _position(job: Job) -> tuple[datetime, int]:
    return (cast(datetime, job.next_attempt_at), job.seq)


async def claim_jobs(
    connection: AsyncConnection[Any],
    queue: Queue,
    positions: ClaimPositions,
    batch_size: int,
    paused: frozenset[str] = frozenset(),
) -> list[Job]:
    """Begin a transaction that holds the locks of up to `batch_size` due jobs; none found leaves none open.

    Jobs of the types in `paused` stay where they are.
    """
    parameters = {"queue": queue, "batch_size": batch_size, "paused": array_literal(paused)}
    scan = positions.begin_without(paused)
    full = positions.full_scan_is_due(found_nothing=False)
    jobs = await _scan(connection, positions, parameters, full=full)
    if not jobs and not full and positions.full_scan_is_due(found_nothing=True):
        jobs = await _scan(connection, positions, parameters, full=True)
    scan = positions.claimed(jobs, scan)
    if paused and len(jobs) < batch_size:
        positions.passed(await _some_time_ago(connection), scan)
    if not jobs:
        await connection.execute(b"ROLLBACK")
    return jobs


async def _some_time_ago(connection: AsyncConnection[Any]) -> datetime:
    """LATE_SECONDS before the open transaction, by Postgres's clock."""
    cursor = await connection.execute(query("some_time_ago"), {"seconds": LATE_SECONDS})
    row = await cursor.fetchone()
    assert row is not None
    return cast(datetime, row[0])


async def _scan(
    connection: AsyncConnection[Any], positions: ClaimPositions, parameters: dict[str, object], *, full: bool
) -> list[Job]:
    began = positions.full_scan_begins() if full else 0.0
    parameters = positions.parameters(full=full) | parameters
    # Not in one pipeline, which would save a round trip: it ends with a Flush, and a Flush behind a Sync disarms
    # idle_in_transaction_session_timeout, by which Postgres frees the jobs of a worker that hangs.
    if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
        await connection.execute(b"BEGIN")
    cursor = await connection.execute(query("claim_jobs"), parameters)
    rows = await cursor.fetchall()
    if full:
        positions.full_scan_ended(began)
    return [Job(*row) for row in rows]


class ClaimWatch:
    """Says whether the claiming transaction still stands, by reading its socket while nothing else does.

    psycopg notices a lost connection at its next statement only, which may be half a minute of sending later.
    """

    __slots__ = ("_connection", "_is_watching", "_loop", "_socket", "is_lost")

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.is_lost = False
        self._is_watching = False
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._socket = connection.fileno()

    def start(self) -> None:
        """Watch from now on. No statement may run on the connection meanwhile."""
        self._loop.add_reader(self._socket, self._look)
        self._is_watching = True

    def stop(self) -> None:
        """Leave the socket to psycopg again. Only once: its number may be somebody else's by then."""
        if self._is_watching:
            self._is_watching = False
            self._loop.remove_reader(self._socket)

    def _look(self) -> None:
        """The socket has something to say: a notice is no harm, the end of the session is."""
        server = self._connection.pgconn
        try:
            server.consume_input()
        except psycopg.Error:
            self.is_lost = True
        if server.status != psycopg.pq.ConnStatus.OK:
            self.is_lost = True
        if self.is_lost:
            self.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For a statement in between, which finds out the hard way whether the claim stands."""
        self.stop()
        try:
            yield
        finally:
            if not self.is_lost and not self._connection.closed:
                self.start()


@contextmanager
def watch_claim(connection: AsyncConnection[Any]) -> Iterator[ClaimWatch]:
    """Watch over a claim while its mails are sent."""
    watch = ClaimWatch(connection)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
