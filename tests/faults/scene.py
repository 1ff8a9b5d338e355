"""What the fault tests share: many jobs at once, small templates, workers by name, and what became of it all."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import psycopg

from lab.sink_process import LedgerEntry
from tests.support import Database, Worker, eventually, running_worker

Db = psycopg.Connection[tuple[Any, ...]]

# One type of each guarantee: at_least_once, effectively_once (transactional) and at_most_once (bulk).
TYPES = ("password-reset", "booking-confirmation", "newsletter")


def small_templates(db: Db, types: Sequence[str] = TYPES) -> None:
    """Templates that cost nothing, in the place of the shipped ones."""
    for name in types:
        db.execute(
            "INSERT INTO email_templates (name, subject, html_content, text_content)"
            " VALUES (%s, 'Hello', '<p>Hello</p>', 'Hello')",
            (name,),
        )


def enqueue(db: Db, count: int, types: Sequence[str] = TYPES, prefix: str = "j", priority: str | None = None) -> None:
    """That many jobs, their types in turn, in one statement."""
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, priority)"
        " SELECT %(prefix)s || '-' || n, type, type, 'r' || n || '@example.com', %(priority)s"
        " FROM generate_series(1, %(count)s) AS n"
        " CROSS JOIN LATERAL (SELECT (%(types)s::text[])[n %% %(kinds)s + 1] AS type) AS kind"
        " ORDER BY n",
        {"prefix": prefix, "count": count, "types": list(types), "kinds": len(types), "priority": priority},
    )


def statuses(db: Db) -> Counter[str]:
    """How many jobs are in each status."""
    return Counter(dict(db.execute("SELECT status::text, count(*) FROM email_jobs GROUP BY status").fetchall()))


def count(db: Db, statement: str, *parameters: object) -> int:
    """The one number that a statement gives."""
    row = db.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return int(row[0])


def nothing_pending(db: Db, seconds: float = 60.0) -> None:
    """Wait until every job has ended."""
    eventually(lambda: count(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") == 0, "all end", seconds)


class Fate(NamedTuple):
    """What the database says became of one job, and how often the ledger has it."""

    job_id: str
    guarantee: str
    status: str
    accepted: int  # attempts of it in the journal
    open: int
    taken: int


def fates(db: Db, ledger: Sequence[LedgerEntry]) -> list[Fate]:
    """What became of each job."""
    taken = Counter(entry.job_id for entry in ledger)
    rows = db.execute(
        "SELECT job.id::text, job.job_id, job.guarantee::text, job.status::text,"
        " count(*) FILTER (WHERE attempt.state = 'accepted'),"
        " count(*) FILTER (WHERE attempt.state IN ('sending', 'unknown'))"
        " FROM email_jobs AS job LEFT JOIN email_attempts AS attempt ON attempt.seq = job.seq"
        " GROUP BY job.id ORDER BY job.seq"
    ).fetchall()
    return [Fate(job, kind, status, accepted, open_, taken[id_]) for id_, job, kind, status, accepted, open_ in rows]


def books_balance(db: Db) -> None:
    """Fail unless each job's status is what its events say."""
    difference = db.execute("SELECT * FROM email_books_difference()").fetchmany(5)
    assert difference == [], f"the books do not balance: {difference}"


class Fleet:
    """Workers by name; a name is never used twice, so that sessions and journal rows tell who was who."""

    def __init__(self, database: Database, stack: ExitStack, **environment: object) -> None:
        self._database = database
        self._stack = stack
        self._environment = environment
        self._born = 0

    def start(self, **environment: object) -> tuple[str, Worker]:
        """One more worker."""
        self._born += 1
        name = f"worker-{self._born}."
        variables = self._database.environment(**(self._environment | {"WORKER_NAME": name} | environment))
        return name, self._stack.enter_context(running_worker(variables))


def sessions(db: Db, worker: str, application: str = "") -> int:
    """How many connections a worker holds, all or those of one application name."""
    return count(
        db,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s",
        f"email-worker {application}% {worker}",
    )
