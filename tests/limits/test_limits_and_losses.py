"""Limits when something goes wrong: doubts, failures, a change of keeper, jobs that are taken back."""

import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.redis import RedisServer
from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Script, Stall
from tests.integration.rows import Connection, column, insert_job, insert_jobs, rows, value
from tests.limits.test_limited_workers import all_sent, snoozes, times
from tests.support import Database, eventually, running_worker


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Sink]:
    """The first server."""
    with Sink(ledger=tmp_path / "primary") as sink:
        yield sink


def test_what_a_killed_worker_left_in_doubt_is_sent_under_a_rate(
    database: Database, db: Connection, primary: Sink
) -> None:
    """The journal is asked in between, and a mail pays once for both ways."""
    for number in range(6):
        insert_job(db, f"doubt-{number}", guarantee="at_least_once")
    with (
        in_thread(ScriptedServer(Script(content=lambda _: Stall()))) as silent,
        running_worker(database.environment(SMTP_PORT=silent.port)) as worker,
    ):
        eventually(lambda: value(db, "SELECT count(*) = 6 FROM email_attempts WHERE state = 'sending'"), "in hand")
        worker.process.send_signal(signal.SIGKILL)
        worker.process.wait()
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_SMTP="100/s")):
        all_sent(db)
    assert len(times(primary)) == 6


def test_a_days_count_survives_a_change_of_keeper(
    database: Database, db: Connection, primary: Sink, frail_redis: RedisServer
) -> None:
    """Redis comes, goes and comes back: ten a day are ten."""
    db.execute("INSERT INTO email_warmup (provider, day, ceiling) VALUES ('smtp', %s, 10)", (datetime.now(UTC).date(),))
    insert_jobs(db, 15)
    keeper = "SELECT keeper FROM email_bucket_keeper"
    settings = {"SMTP_PORT": primary.port, "EMAIL_RATE_SMTP": "20/s"}
    with running_worker(database.environment(**settings, **frail_redis.environment())):
        eventually(lambda: len(times(primary)) == 10, "today's ten")
        eventually(lambda: value(db, keeper) == "redis", "Redis keeps the rates")
        frail_redis.embedded.stop()
        insert_jobs(db, 15, prefix="later")
        eventually(lambda: value(db, keeper) == "postgres", "Postgres keeps them")
        eventually(lambda: len(snoozes(db)) == 20, "the rest waits for tomorrow")
    assert len(times(primary)) == 10


def test_what_nobody_got_counts_for_nobody(database: Database, db: Connection, tmp_path: Path) -> None:
    """A server that is away uses up neither a person's mails nor a day's: when it is back, all of them go."""
    db.execute("INSERT INTO email_warmup (provider, day, ceiling) VALUES ('smtp', %s, 12)", (datetime.now(UTC).date(),))
    for number in range(10):
        insert_job(db, f"job-{number}", max_retries=50)
    with Sink(ledger=tmp_path / "ledger") as sink:
        sink.kill()
        settings = {
            "SMTP_PORT": sink.port,
            "EMAIL_RATE_RECIPIENT": "20/h burst 10",
            "EMAIL_BREAKER_FAILURES": 0,
            "EMAIL_RETRY_DELAY_SECONDS": 0.2,
        }
        with running_worker(database.environment(**settings)):
            eventually(lambda: value(db, "SELECT min(retry_count) >= 2 FROM email_jobs"), "they have failed")
            sink.start()
            all_sent(db)


def test_those_who_were_taken_back_leave_no_line_and_no_turn(database: Database, db: Connection, primary: Sink) -> None:
    """Twenty that waited are cancelled: a new one need not wait for them, and one that is requeued has no turn."""
    for number in range(20):
        insert_job(db, f"waits-{number}", recipient_email=f"ann{number}@full.example")
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_DOMAIN="60/m burst 1")):
        eventually(lambda: len(snoozes(db)) >= 18, "they wait")
        db.execute("SELECT email_cancel(job_id) FROM email_jobs WHERE status = 'pending'")
        cancelled = column(db, "SELECT job_id FROM email_jobs WHERE status = 'cancelled'")
        assert len(cancelled) >= 15
        sent = len(times(primary))
        eventually(
            lambda: value(db, "SELECT extract(epoch FROM clock_timestamp()) - used > 2.5 FROM email_buckets"),
            "it idles",
        )
        insert_job(db, "new", recipient_email="new@full.example")
        eventually(lambda: len(times(primary)) > sent, "the new one goes", seconds=5)
        db.execute("SELECT email_requeue(%s)", (cancelled[0],))
        assert rows(db, "SELECT 1 FROM email_jobs WHERE job_id = %s AND has_turn", cancelled[0]) == []


def test_a_campaign_and_urgent_mail_for_one_domain_cost_few_snoozes(
    database: Database, db: Connection, primary: Sink
) -> None:
    """Transactional mail takes the campaign's turns: those it displaces come again in order, not all at once."""
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, subject, content)"
        " SELECT 'bulk-' || n, 'newsletter', 'newsletter', 'ann' || n || '@full.example', 's', 'c'"
        " FROM generate_series(1, 100) AS n"
    )
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_DOMAIN="20/s burst 5")):
        for turn in range(8):
            for number in range(5):
                insert_job(db, f"urgent-{turn}-{number}", recipient_email=f"bob{turn}{number}@full.example")
            seen = f"urgent-{turn}-%"
            eventually(
                lambda seen=seen: (
                    not rows(  # type: ignore[misc]
                        db, "SELECT 1 FROM email_jobs WHERE job_id LIKE %s AND status <> 'sent'", seen
                    )
                ),
                "they go first",
            )
        all_sent(db)
    put_off = snoozes(db)
    assert max(put_off.values()) <= 12, put_off
    assert sum(put_off.values()) <= 400
