"""The scene of a measurement: an embedded Postgres with its default durability, a sink, jobs and workers."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from lab.bench.meters import cpu_seconds, peak_megabytes
from lab.postgres import PostgresServer
from lab.sink_process import Sink
from worker.db import connect_once
from worker.migrate import migrate
from worker.settings_loading import load_settings

DATABASE = "bench"
PROCRASTINATE = (sys.executable, "-m", "procrastinate", "--app=worker.app.app", "worker")
UVLOOP = (sys.executable, "-m", "worker.cli", "worker")

# 4 KB of HTML, 1 KB of text, about 80 variables: what a confirmation looks like.
_PARAGRAPH = (
    "<p style='font-family:Arial,sans-serif;font-size:14px;line-height:20px;color:#555555'>Thank you for booking with "
    "us, {{ recipient.name }}. Your event {{ eventName }} at {{ venue }} on {{ date }} is confirmed.</p>\n"
)
_ROW = (
    "<tr><td style='padding:8px;border-bottom:1px solid #eee;font-family:Arial,sans-serif;color:#333333'>"
    "{{ item.name }}</td><td>{{ item.qty }}</td><td>{{ '%.2f' | format(item.price) }}</td></tr>"
)
_HTML = (
    "<html><body><h1>Booking {{ bookingId }}</h1>"
    + _PARAGRAPH * 16
    + "<table>{% for item in items %}"
    + _ROW
    + "{% endfor %}</table><b>{{ '%.2f' | format(totalAmount) }}</b> {{ ticketCount }}</body></html>"
)
_TEXT = (
    "Hello {{ recipient.name }}\n"
    + "Thank you for booking {{ eventName }} at {{ venue }}.\n" * 16
    + "{% for item in items %}{{ item.name }} x {{ item.qty }}\n{% endfor %}"
)
_SUBJECT = "Your booking {{ bookingId }} is confirmed"

_DATA = """jsonb_build_object('bookingId', 'b-' || i, 'eventName', 'Concert ' || i, 'ticketCount', 2,
    'totalAmount', 150.0, 'venue', 'Main Hall', 'date', '2024-01-01', 'items',
    (SELECT jsonb_agg(jsonb_build_object('name', 'Item ' || k, 'qty', k, 'price', k * 10.5))
     FROM generate_series(1, 5) AS k))"""


@dataclass
class Scene:
    """A server, a sink, and a database that is filled anew for each measurement."""

    server: PostgresServer
    sink: Sink
    environment: dict[str, str] = field(default_factory=dict)

    def connect(self, database: str = DATABASE) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection."""
        return psycopg.connect(self.server.dsn(database), autocommit=True)

    def fresh_database(self) -> None:
        """An empty, migrated database with the template."""
        self.server.drop_database(DATABASE)
        self.server.create_database(DATABASE)
        with connect_once(load_settings(self.environment), "bench") as connection:
            migrate(connection)
            for name in ("booking-confirmation", "newsletter", "password-reset"):
                connection.execute(
                    "INSERT INTO email_templates (name, subject, html_content, text_content) VALUES (%s, %s, %s, %s)",
                    (name, _SUBJECT, _HTML, _TEXT),
                )

    def fill(self, jobs: int, kind: str = "booking-confirmation", prefix: str = "job") -> None:
        """Enqueue so many jobs of a type, as a producer would."""
        with self.connect() as connection:
            connection.execute(
                f"INSERT INTO email_jobs (job_id, type, template, recipient_email, recipient_name, data)"
                f" SELECT %(prefix)s || '-' || i, %(kind)s, %(kind)s, 'user' || i || '@example.com', 'User ' || i,"
                f" {_DATA} FROM generate_series(1, %(jobs)s) AS i",
                {"prefix": prefix, "kind": kind, "jobs": jobs},
            )

    def fill_history(self, jobs: int, status: str) -> None:
        """Rows as they would lie there after long use, put there past the triggers, all with the same data."""
        with self.connect() as connection:
            row = connection.execute(f"SELECT {_DATA} FROM (SELECT 1 AS i) AS one").fetchone()
            assert row is not None
            connection.execute("SET session_replication_role = replica")
            connection.execute("SET synchronous_commit = off")
            connection.execute(
                "INSERT INTO email_jobs (job_id, type, template, recipient_email, recipient_name, data, queue,"
                " priority, guarantee, next_attempt_at, status)"
                " SELECT %(status)s || '-history-' || i, 'booking-confirmation', 'booking-confirmation',"
                " 'user' || i || '@example.com', 'User ' || i, %(data)s, 'transactional', 'high', 'effectively_once',"
                " clock_timestamp(), %(status)s::email_status"
                " FROM generate_series(1, %(jobs)s) AS i",
                {"status": status, "jobs": jobs, "data": Jsonb(row[0])},
            )

    def settle_down(self) -> None:
        """Let the database come to rest, so that a measurement does not pay for the filling."""
        with self.connect() as connection:
            connection.execute("VACUUM ANALYZE email_jobs, email_attempts, email_tracking")
            connection.execute("CHECKPOINT")


@contextmanager
def scene(sink: Sink | None = None) -> Iterator[Scene]:
    """Everything that a measurement needs, started and stopped."""
    with PostgresServer() as server, sink or Sink() as open_sink:
        environment = {
            "DB_HOST": server.socket_folder,
            "DB_PORT": str(server.port),
            "DB_NAME": DATABASE,
            "DB_USER": "postgres",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(open_sink.port),
            "SMTP_ENCRYPTION": "none",
            "EMAIL_FROM_ADDRESS": "noreply@bookingsystem.example",
            "EMAIL_FROM_NAME": "Booking System",
            "LOG_LEVEL": "WARNING",
            "ENVIRONMENT": "production",
        }
        yield Scene(server, open_sink, environment)


@dataclass(frozen=True)
class Run:
    """What a drain of the queue came to."""

    mails: int
    seconds: float
    worker_cpu_seconds: float
    postgres_cpu_seconds: float
    sink_cpu_seconds: float
    peak_megabytes: float

    @property
    def rate(self) -> float:
        """Mails per second."""
        return self.mails / self.seconds

    def microseconds(self, cpu: float) -> float:
        """CPU per mail."""
        return cpu / self.mails * 1e6


@contextmanager
def workers(where: Scene, command: Sequence[str], count: int = 1) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Worker processes."""
    environment = {**os.environ, **where.environment}
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()


def drain(where: Scene, command: Sequence[str], count: int = 1, jobs: int | None = None) -> Run:
    """Start workers on a filled queue and measure from the first accepted mail to the last (or `jobs` of them).

    The sink counts, because counting in the database would take from it what is measured.
    """
    with where.connect() as connection:
        total = jobs or _pending(connection)
    before = where.sink.counts().accepted
    with workers(where, command, count) as running:
        while (first := where.sink.counts().accepted - before) == 0:
            time.sleep(0.005)
        began, start = time.monotonic(), _cpu(where, running)
        done = first
        while done < total:
            time.sleep(0.02)
            done = where.sink.counts().accepted - before
        seconds, end = time.monotonic() - began, _cpu(where, running)
        peak = max(peak_megabytes(process.pid) for process in running)
        if jobs is None:
            _until_settled(where)
    worker, postgres, sink = (after - earlier for after, earlier in zip(end, start, strict=True))
    return Run(done - first, seconds, worker, postgres, sink, peak)


def _pending(connection: psycopg.Connection[tuple[Any, ...]]) -> int:
    row = connection.execute("SELECT count(*) FROM email_jobs WHERE status = 'pending'").fetchone()
    assert row is not None
    return int(row[0])


def _until_settled(where: Scene) -> None:
    with where.connect() as connection:
        while _pending(connection):
            time.sleep(0.05)


def _cpu(where: Scene, running: Sequence[subprocess.Popen[bytes]]) -> tuple[float, float, float]:
    """CPU seconds so far of the workers, of Postgres and of the sink."""
    return (
        sum(cpu_seconds(process.pid) for process in running),
        cpu_seconds(where.server.pid, with_children=True),
        where.sink.counts().cpu_seconds,
    )
