"""What the demo asks the database: the moment while it runs, and everything for the account at the end."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from lab.demo_jobs import Call

Connection = psycopg.Connection[tuple[Any, ...]]

ENQUEUE = """
SELECT email_enqueue(
    job_id => %(job_id)s, type => %(type)s, recipient_email => %(recipient_email)s, data => %(data)s,
    recipient_name => %(recipient_name)s, scheduled_at => %(scheduled_at)s, expires_at => %(expires_at)s,
    max_retries => %(max_retries)s
)
"""
STANDING = """
SELECT queue::text,
    CASE
        WHEN status <> 'pending' THEN status::text
        WHEN next_attempt_at <= clock_timestamp() THEN 'due'
        ELSE 'later'
    END,
    count(*)
FROM email_jobs GROUP BY 1, 2
"""
IN_HAND = """
SELECT flight.worker, job.guarantee::text, count(*)
FROM email_in_flight AS flight INNER JOIN email_jobs AS job USING (job_id)
GROUP BY 1, 2
"""
# procrastinate's own list of workers, entered when one is about to look for work.
RUNNING = "SELECT count(*) FROM procrastinate_workers"
# Its sessions end a moment after the process: only then can nothing more come from it.
SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'email-worker%%' || %(worker)s"
LEFT = """
SELECT count(*) FROM email_attempts WHERE worker = %(worker)s AND state = 'sending'
"""
JOBS = """
SELECT id::text, seq, job_id, type, queue::text, guarantee::text, priority::text, status::text, error_message,
    retry_count,
    extract(EPOCH FROM greatest(scheduled_at, created_at))::float, extract(EPOCH FROM sent_at)::float
FROM email_jobs ORDER BY seq
"""
ATTEMPTS = "SELECT seq, attempt, state::text, worker FROM email_attempts ORDER BY seq, attempt"
BOOKS = """
SELECT sum(accepted)::int, sum(pending + sent + dead + cancelled + suppressed + expired + in_doubt)::int
FROM email_books
"""


@dataclass(frozen=True)
class Moment:
    """How things stand while the workers work."""

    by_queue: dict[str, Counter[str]]
    in_hand: dict[str, Counter[str]]

    @property
    def standing(self) -> Counter[str]:
        """Jobs by where they stand, over both queues: `due` and `later` are the two sides of pending."""
        return sum(self.by_queue.values(), Counter())

    @property
    def pending(self) -> int:
        """Jobs without an end."""
        return self.standing["due"] + self.standing["later"]

    def waiting(self, queue: str) -> int:
        """Jobs of a queue that wait for a worker, or are with one."""
        return self.by_queue[queue]["due"] if queue in self.by_queue else 0

    @property
    def ended(self) -> int:
        """Jobs that have come to their end, whatever it was."""
        return self.standing.total() - self.pending


@dataclass(frozen=True)
class JobRow:
    """A row of email_jobs at the end."""

    id: str
    seq: int
    job_id: str
    type: str
    queue: str
    guarantee: str
    priority: str
    status: str
    error: str | None
    retry_count: int
    due_at: float
    sent_at: float | None


@dataclass(frozen=True)
class AttemptRow:
    """A row of the journal at the end."""

    seq: int
    attempt: int
    state: str
    worker: str


@dataclass(frozen=True)
class TimelineRow:
    """A row of email_timeline()."""

    at: datetime
    what: str
    attempt: int | None
    provider: str | None
    detail: str | None


@dataclass(frozen=True)
class Record:
    """All that the database knows at the end."""

    jobs: list[JobRow]
    attempts: list[AttemptRow]
    books_accepted: int
    books_sum: int
    differences: list[str]


def enqueue(db: Connection, calls: Iterable[Call]) -> None:
    """Put jobs into the queue as any producer would, in one transaction."""
    now = datetime.now(UTC)
    rows = [
        {
            "job_id": call.job_id,
            "type": call.type,
            "recipient_email": call.recipient_email,
            "recipient_name": call.recipient_name,
            "data": Jsonb(call.data),
            "scheduled_at": _after(now, call.due_in_seconds),
            "expires_at": _after(now, call.expires_in_seconds),
            "max_retries": call.max_retries,
        }
        for call in calls
    ]
    if rows:
        with db.transaction(), db.cursor() as cursor:
            cursor.executemany(ENQUEUE, rows)


def _after(moment: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else moment + timedelta(seconds=seconds)


def cancel(db: Connection, job_id: str) -> str:
    """Take a job back; returns what email_cancel() says."""
    row = db.execute("SELECT email_cancel(%s)", (job_id,)).fetchone()
    assert row is not None
    return str(row[0])


def look(db: Connection) -> Moment:
    """How things stand now."""
    by_queue: dict[str, Counter[str]] = {"transactional": Counter(), "bulk": Counter()}
    for queue, standing, number in db.execute(STANDING):
        by_queue[queue][standing] = number
    in_hand: dict[str, Counter[str]] = {}
    for worker, guarantee, number in db.execute(IN_HAND):
        in_hand.setdefault(worker, Counter())[guarantee] = number
    return Moment(by_queue, in_hand)


def running_workers(db: Connection) -> int:
    """Workers that have started."""
    return _number(db, RUNNING)


def sessions_of(db: Connection, worker: str) -> int:
    """Connections to Postgres that a worker has."""
    return _number(db, SESSIONS, worker=worker)


def left_by(db: Connection, worker: str) -> int:
    """Mails that a dead worker left in its provider's hands: its journal rows stay `sending` for good."""
    return _number(db, LEFT, worker=worker)


def now(db: Connection) -> float:
    """The database's clock, as a Unix time."""
    row = db.execute("SELECT extract(EPOCH FROM clock_timestamp())::float").fetchone()
    assert row is not None
    return float(row[0])


def _number(db: Connection, statement: str, **parameters: object) -> int:
    row = db.execute(statement, parameters).fetchone()
    assert row is not None
    return int(row[0])


def read_record(db: Connection) -> Record:
    """Everything, for the account."""
    books = db.execute(BOOKS).fetchone()
    assert books is not None
    return Record(
        [JobRow(*row) for row in db.execute(JOBS)],
        [AttemptRow(*row) for row in db.execute(ATTEMPTS)],
        books[0],
        books[1],
        [job_id for (job_id,) in db.execute("SELECT job_id FROM email_books_difference()")],
    )


def timeline(db: Connection, job_id: str) -> list[TimelineRow]:
    """The life of one mail."""
    return [TimelineRow(*row) for row in db.execute("SELECT * FROM email_timeline(%s)", (job_id,))]
