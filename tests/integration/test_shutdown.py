"""Stopping a worker: it finishes what is in a provider's hands, and leaves the rest to others."""

import signal
from pathlib import Path

import pytest

from lab.sink_process import Sink
from tests.integration.rows import column, insert_jobs, rows, value
from tests.support import Database, Worker, eventually, running_worker

JOBS = 120


def stop(worker: Worker, number: signal.Signals = signal.SIGTERM) -> int:
    """Ask it to stop, and return its exit status."""
    worker.process.send_signal(number)
    return worker.process.wait(timeout=60)


def test_sigterm_in_the_middle_of_a_batch_loses_and_repeats_nothing(database: Database, tmp_path: Path) -> None:
    """Exit status 0; what the provider took is sent, the rest is pending as before, and the next worker sends it."""
    with Sink(ledger=tmp_path / "ledger", reply_delay=0.1) as sink, database.connect() as db:
        insert_jobs(db, JOBS)
        before = dict(rows(db, "SELECT job_id, next_attempt_at FROM email_jobs"))
        settings = database.environment(SMTP_PORT=sink.port)
        with running_worker(settings | {"EMAIL_JOB_CONCURRENCY": "2"}) as worker:
            eventually(lambda: len(sink.ledger()) >= 3, "some mails are out")
            assert stop(worker) == 0, worker.log_text()

        taken = [entry.job_id for entry in sink.ledger()]
        sent = column(db, "SELECT id::text FROM email_jobs WHERE status = 'sent'")
        assert sorted(sent) == sorted(taken)
        pending = rows(db, "SELECT job_id, retry_count, next_attempt_at FROM email_jobs WHERE status = 'pending'")
        assert 0 < len(pending) == JOBS - len(sent)
        assert pending == [(job_id, 0, before[job_id]) for job_id, _, _ in pending]
        open_intents = "SELECT count(*) FROM email_attempts WHERE state NOT IN ('accepted', 'not_sent')"
        assert value(db, open_intents) == 0
        assert rows(db, "SELECT * FROM email_in_flight") == []

        with running_worker(settings) as worker:
            everything = "SELECT count(*) = 120 FROM email_jobs WHERE status = 'sent'"
            eventually(lambda: value(db, everything), "the next worker sends the rest")
            assert stop(worker) == 0, worker.log_text()
        delivered = [entry.job_id for entry in sink.ledger()]
        assert sorted(delivered) == sorted(column(db, "SELECT id::text FROM email_jobs"))
        assert rows(db, "SELECT * FROM email_books_difference()") == []


@pytest.mark.parametrize(
    ("number", "uvloop"),
    [(signal.SIGTERM, True), (signal.SIGINT, False)],
    ids=["SIGTERM to email-worker worker", "SIGINT to procrastinate worker"],
)
def test_an_idle_worker_stops_in_good_order(
    database: Database, sink: Sink, number: signal.Signals, uvloop: bool
) -> None:
    """Exit status 0, no task and no session left behind, and not a word of trouble in the log."""
    environment = database.environment(SMTP_PORT=sink.port)
    listening = "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'"
    with database.connect() as db, running_worker(environment, uvloop=uvloop) as worker:
        eventually(lambda: value(db, listening), "a listener waits in each queue")
        assert stop(worker, number) == 0, worker.log_text()
        log = worker.log_text()
        assert "Traceback" not in log
        assert "warning" not in log
        assert "error" not in log
        assert column(db, "SELECT status FROM procrastinate_jobs WHERE status = 'doing'") == []
        sessions = "SELECT count(*) = 0 FROM pg_stat_activity WHERE starts_with(application_name, 'email-worker')"
        eventually(lambda: value(db, sessions), "its sessions are gone")


def test_a_worker_that_is_told_to_stop_while_it_starts_stops(database: Database, sink: Sink) -> None:
    """SIGTERM in the very beginning ends the process too, with whatever status, and no job is touched."""
    with database.connect() as db:
        insert_jobs(db, 3)
        with running_worker(database.environment(SMTP_PORT=sink.port)) as worker:
            sessions = "SELECT count(*) > 0 FROM pg_stat_activity WHERE starts_with(application_name, 'email-worker')"
            eventually(lambda: value(db, sessions), "it has begun to look at the database")
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(timeout=60)
        sent = value(db, "SELECT count(*) FROM email_jobs WHERE status = 'sent'")
        assert sent == sink.counts().accepted
        assert value(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") == 3 - sent
