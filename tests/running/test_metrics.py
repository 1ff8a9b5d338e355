"""Metrics of real processes during a real run, held against what the database says."""

import socket
from pathlib import Path

from lab.sink_process import Sink
from tests.integration.rows import Connection, insert_job, insert_jobs, rows, value
from tests.running.scrape import by_label, get, port_of, samples, value_of
from tests.support import Database, eventually, running_worker
from worker.db import query

NEWS = {"type": "newsletter", "template": "newsletter", "subject": "s", "content": "c"}
FIRST_PORT = 19_464


def test_it_listens_for_both_kinds_of_addresses(database: Database, sink: Sink) -> None:
    """A cluster may have IPv6 alone: probes and scrapes come to the same port by either."""
    with running_worker(database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT)) as worker:
        port = port_of(worker)
        hosts = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
        for host in hosts:
            with socket.create_connection((host, port), timeout=10) as line:
                line.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
                assert b" 200 OK" in line.recv(4096)


def test_counters_agree_with_the_database(database: Database, db: Connection, tmp_path: Path) -> None:
    """Sent, refused, failed, suppressed, expired and unrenderable ones, by type, outcome, provider and template."""
    refused = ("no-*@example.com",)
    with (
        Sink(ledger=tmp_path / "ledger", refuse=refused, refuse_first=[("busy*", 1)]) as sink,
        running_worker(
            database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT, EMAIL_RETRY_DELAY_SECONDS=0)
        ) as worker,
    ):
        insert_jobs(db, 120)
        for number in range(7):
            insert_job(db, f"refused-{number}", recipient_email=f"no-{number}@example.com")
            insert_job(db, f"news-{number}", **NEWS)
        db.execute("SELECT email_suppress('stop@example.com', 'complaint')")
        insert_job(db, "suppressed", recipient_email="stop@example.com")
        insert_job(db, "expired", expires_at="2020-01-01")
        insert_job(db, "unrenderable", data="{}")
        eventually(lambda: rows(db, "SELECT 1 FROM email_jobs WHERE status = 'pending'") == [], "all end")
        port = port_of(worker)
        processed = by_label(port, "email_jobs_processed_total", "type", "outcome")
        assert processed == {
            (kind, event): count
            for kind, event, count in rows(
                db,
                "SELECT job.type, event.event_type::text, count(*)::float FROM email_tracking AS event"
                " JOIN email_jobs AS job ON job.id = event.job_id GROUP BY 1, 2",
            )
        }
        attempts = by_label(port, "email_delivery_attempts_total", "provider", "outcome")
        assert attempts == {
            (provider, state): count
            for provider, state, count in rows(
                db,
                "SELECT provider, state::text, count(*)::float FROM email_attempts"
                " WHERE provider IS NOT NULL GROUP BY 1, 2",
            )
        }
        assert by_label(port, "email_suppressed_total", "reason") == {("complaint",): 1}
        assert by_label(port, "email_template_renders_total", "template")["newsletter",] == 7
        assert value_of(port, "email_delivery_duration_seconds_count", {"provider": "smtp"}) == sum(attempts.values())
        assert value_of(port, "email_batch_size_sum") == value(db, "SELECT count(*) FROM email_jobs")
        assert value_of(port, "email_provider_breaker_state", {"provider": "smtp"}) == 0
        for name in ("claim", "render", "settle"):
            assert (value_of(port, f"email_{name}_duration_seconds_count") or 0) > 0
        assert (value_of(port, "process_resident_memory_bytes") or 0) > 1_000_000
        assert value_of(port, "email_event_loop_lag_seconds") is not None
        _, text = get(port, "/metrics")
        assert "@" not in text
        assert "refused-" not in text


def test_the_queue_is_told_by_one_process(database: Database, db: Connection, sink: Sink) -> None:
    """Depth by queue and status, the age of what is due, doubts and books, while two workers run; each on a port."""
    insert_jobs(db, 30)
    db.execute("SELECT email_pause('type', 'booking-confirmation'), email_pause('queue', 'transactional')")
    insert_job(db, "due", type="security-alert", template="security-alert")
    insert_job(db, "later", scheduled_at="2099-01-01", **NEWS)
    environment = database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT)
    with running_worker(environment) as one, running_worker(environment) as two:
        ports = {port_of(one), port_of(two)}
        assert len(ports) == 2

        def readers() -> list[int]:
            return [port for port in ports if by_label(port, "email_queue_depth", "queue", "status")]

        (reader, *_) = eventually(readers, "one of them reads the queue", seconds=40)
        depth = by_label(reader, "email_queue_depth", "queue", "status")
        assert (depth["transactional", "pending"], depth["transactional", "due"]) == (31, 1)
        assert (depth["bulk", "pending"], depth["bulk", "due"]) == (1, 0)
        assert (value_of(reader, "email_queue_oldest_due_seconds", {"queue": "transactional"}) or 0) > 0
        assert value_of(reader, "email_queue_oldest_due_seconds", {"queue": "bulk"}) == 0
        assert value_of(reader, "email_in_doubt") == 0
        assert value_of(reader, "email_books_difference") == 0
        assert by_label(reader, "email_paused", "kind", "name") == {
            ("type", "booking-confirmation"): 1,
            ("queue", "transactional"): 1,
        }


def test_ended_jobs_are_estimated_without_counting_them(database: Database, db: Connection) -> None:
    """After ANALYZE the planner's statistics tell each status of each queue within some percent."""
    insert_jobs(db, 5000)
    db.execute("UPDATE email_jobs SET status = 'sent' WHERE seq % 5 > 0")
    db.execute("UPDATE email_jobs SET status = 'dead' WHERE seq % 50 = 0")
    db.execute("ANALYZE email_jobs")
    found = {(gauge, first, second): value for gauge, first, second, value in db.execute(query("queue_gauges"))}
    assert found["depth", "transactional", "sent"] == 4000
    assert found["depth", "transactional", "dead"] == 100
    assert found["depth", "transactional", "pending"] == 900


def test_nothing_else_is_served(database: Database, sink: Sink) -> None:
    """Another path is not found; without a port there is no server."""
    with running_worker(database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT)) as worker:
        port = port_of(worker)
        assert get(port, "/")[0] == 404
        assert get(port, "/metrics/../healthz")[0] == 404
        assert ("email_build_info", frozenset({("version", "0.4.0")})) in samples(port)
