"""Fallback with a real worker process: a primary that is down, that is back, and one that only says no."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Script
from tests.support import Database, eventually, running_worker

Connection = psycopg.Connection[Any]


def enqueue(db: Connection, first: int, count: int) -> None:
    """Insert so many booking confirmations."""
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, data)"
        " SELECT 'job-' || n, 'booking-confirmation', 'booking-confirmation', 'r' || n || '@example.com',"
        ' \'{"bookingId":"b-1","eventName":"Concert 2024","ticketCount":2,"totalAmount":150.0}\''
        " FROM generate_series(%s::int, %s) AS n",
        (first, first + count - 1),
    )


def all_have(db: Connection, status: str, count: int) -> bool:
    """Whether so many jobs have this status."""
    return db.execute("SELECT count(*) FROM email_jobs WHERE status::text = %s", (status,)).fetchone() == (count,)


def delivered(sink: Sink) -> Counter[str]:
    """How often each recipient got a mail."""
    return Counter(entry.recipient for entry in sink.ledger())


def recipients(first: int, count: int) -> dict[str, int]:
    """Those jobs' recipients, once each."""
    return {f"r{number}@example.com": 1 for number in range(first, first + count)}


def attempts(db: Connection) -> list[tuple[Any, ...]]:
    """The journal, job by job."""
    return db.execute(
        "SELECT job.job_id, attempt.attempt, attempt.provider, attempt.state::text, attempt.reason"
        " FROM email_attempts AS attempt JOIN email_jobs AS job USING (seq) ORDER BY job.seq, attempt.attempt"
    ).fetchall()


def environment(database: Database, primary_port: int, fallback: Sink) -> dict[str, str]:
    """A worker with both providers."""
    return database.environment(
        SMTP_PORT=primary_port,
        EMAIL_PROVIDER_FALLBACK="smtp_fallback",
        SMTP_FALLBACK_HOST=fallback.host,
        SMTP_FALLBACK_PORT=fallback.port,
        SMTP_FALLBACK_ENCRYPTION="none",
        EMAIL_BREAKER_SECONDS=0.5,
    )


@pytest.fixture
def fallback(tmp_path: Path) -> Any:
    """The fallback's server."""
    with Sink(ledger=tmp_path / "fallback") as sink:
        yield sink


def test_a_primary_that_is_down_and_comes_back(
    database: Database, db: Connection, fallback: Sink, tmp_path: Path
) -> None:
    """Everything goes by the fallback, once, and says why; soon after the primary is up, it is used again."""
    with Sink(ledger=tmp_path / "primary") as primary:
        primary.kill()
        with running_worker(environment(database, primary.port, fallback)):
            enqueue(db, 1, 40)
            eventually(lambda: all_have(db, "sent", 40), "the fallback has delivered all")
            assert delivered(fallback) == recipients(1, 40)
            assert db.execute("SELECT DISTINCT provider, retry_count FROM email_jobs").fetchall() == [
                ("smtp_fallback", 0)
            ]
            for _, attempt, provider, state, reason in attempts(db):
                assert (attempt, provider, state) == (1, "smtp_fallback", "accepted")
                assert reason.startswith("primary smtp: ")
                assert reason.endswith("; fallback smtp_fallback")
                assert f"127.0.0.1:{primary.port}" in reason or "breaker open since" in reason

            primary.start()
            numbers = itertools.count(41)

            def one_more_reaches_the_primary() -> bool:
                number = next(numbers)
                enqueue(db, number, 1)
                eventually(lambda: all_have(db, "sent", number), "it is sent")
                return bool(delivered(primary))

            eventually(one_more_reaches_the_primary, "the breaker has tried the primary")
            assert delivered(primary) + delivered(fallback) == recipients(1, next(numbers) - 1)


def test_a_primary_that_refuses_the_sender_uses_a_number(database: Database, db: Connection, fallback: Sink) -> None:
    """A journaled failure keeps its row, the fallback takes the next number, and the job counts both."""
    with (
        in_thread(ScriptedServer(Script(mail="451 4.7.1 sending limit"))) as primary,
        running_worker(environment(database, primary.port, fallback)),
    ):
        enqueue(db, 1, 10)
        eventually(lambda: all_have(db, "sent", 10), "the fallback has delivered all")
    assert delivered(fallback) == recipients(1, 10)
    reason = "primary smtp: 451 4.7.1 sending limit; fallback smtp_fallback"
    assert attempts(db) == [
        row
        for number in range(1, 11)
        for row in (
            (f"job-{number}", 1, "smtp", "failed", "primary smtp"),
            (f"job-{number}", 2, "smtp_fallback", "accepted", reason),
        )
    ]
    assert db.execute("SELECT DISTINCT provider, attempt_no, retry_count FROM email_jobs").fetchall() == [
        ("smtp_fallback", 2, 0)
    ]


def test_a_refused_recipient_is_dead_and_never_offered_to_the_fallback(
    database: Database, db: Connection, fallback: Sink
) -> None:
    """The other provider would refuse it too, and count it against us."""
    with (
        in_thread(ScriptedServer(Script(rcpt="550 5.1.1 no such mailbox"))) as primary,
        running_worker(environment(database, primary.port, fallback)),
    ):
        enqueue(db, 1, 5)
        eventually(lambda: all_have(db, "dead", 5), "all are refused")
    assert delivered(fallback) == {}
    assert {row[1:4] for row in attempts(db)} == {(1, "smtp", "refused")}


def test_a_server_that_speaks_latin_1_does_not_stop_the_line(
    database: Database, db: Connection, fallback: Sink
) -> None:
    """Words that are not UTF-8, from a primary that lets nobody in, are journaled like any others."""
    with (
        in_thread(ScriptedServer(Script(greeting="554 5.7.1 Zugriff f\udcfcr Fremde gesperrt"))) as primary,
        running_worker(environment(database, primary.port, fallback)),
    ):
        enqueue(db, 1, 5)
        eventually(lambda: all_have(db, "sent", 5), "the fallback has delivered all", seconds=5.0)
    assert delivered(fallback) == recipients(1, 5)
