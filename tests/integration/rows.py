"""Short words for what these tests say to Postgres all the time."""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]

# What a job needs, and data that its shipped template is content with.
COLUMNS: dict[str, object] = {
    "type": "booking-confirmation",
    "template": "booking-confirmation",
    "recipient_email": "ann@example.com",
    "data": '{"bookingId": "b-1", "eventName": "Concert", "ticketCount": 2, "totalAmount": 150.0}',
}


def insert_job(db: Connection, job_id: str = "j-1", **columns: object) -> None:
    """A bare INSERT of one complete job; further columns as given."""
    values = {"job_id": job_id, **COLUMNS, **columns}
    db.execute(
        sql.SQL("INSERT INTO email_jobs ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(sql.Placeholder() * len(values))
        ),
        list(values.values()),
    )


def insert_jobs(db: Connection, count: int, prefix: str = "j") -> None:
    """Many alike in one statement: `{prefix}-1` and so on."""
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, data)"
        " SELECT %s || '-' || n, %s, %s, 'ann' || n || '@example.com', %s FROM generate_series(1, %s) AS n",
        (prefix, COLUMNS["type"], COLUMNS["template"], COLUMNS["data"], count),
    )


def rows(db: Connection, statement: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
    """All rows."""
    return db.execute(statement, parameters).fetchall()


def row(db: Connection, statement: LiteralString, *parameters: object) -> tuple[Any, ...]:
    """The one row that there must be."""
    (only,) = rows(db, statement, *parameters)
    return only


def value(db: Connection, statement: LiteralString, *parameters: object) -> Any:
    """The one value that there must be."""
    (only,) = row(db, statement, *parameters)
    return only


def column(db: Connection, statement: LiteralString, *parameters: object) -> list[Any]:
    """The first column of all rows."""
    return [first for first, *_ in rows(db, statement, *parameters)]


def job(db: Connection, names: Sequence[str], job_id: str = "j-1") -> tuple[Any, ...]:
    """Some columns of one job."""
    statement = sql.SQL("SELECT {} FROM email_jobs WHERE job_id = %s").format(
        sql.SQL(", ").join(map(sql.Identifier, names))
    )
    (only,) = db.execute(statement, (job_id,)).fetchall()
    return only


def events(db: Connection, job_id: str = "j-1") -> list[str]:
    """The events of one job, in order."""
    return column(
        db,
        "SELECT t.event_type FROM email_tracking AS t JOIN email_jobs AS j ON t.job_id = j.id"
        " WHERE j.job_id = %s ORDER BY t.seq",
        job_id,
    )


def end_job(db: Connection, status: str, job_id: str = "j-1", **columns: object) -> None:
    """Put a job at an end and write the event, as a worker's settle does."""
    values = {"status": status, **columns}
    assignments = [sql.SQL("{} = %s").format(sql.Identifier(name)) for name in values]
    statement = sql.SQL(
        "WITH ended AS (UPDATE email_jobs SET {}, attempt_no = attempt_no + 1, updated_at = clock_timestamp()"
        " WHERE job_id = %s RETURNING id)"
        " INSERT INTO email_tracking (job_id, event_type) SELECT id, %s::email_event FROM ended"
    ).format(sql.SQL(", ").join(assignments))
    db.execute(statement, [*values.values(), job_id, status])


def journal(db: Connection, state: str, attempt: int = 1, job_id: str = "j-1", provider: str = "smtp") -> None:
    """Write an attempt into the journal, as a worker would have."""
    db.execute(
        "INSERT INTO email_attempts (seq, attempt, state, provider, reason, worker)"
        " SELECT seq, %s, %s, %s, 'primary smtp', 'elsewhere-1' FROM email_jobs WHERE job_id = %s",
        (attempt, state, provider, job_id),
    )
