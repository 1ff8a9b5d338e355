"""The measurements, one function each: they return figures and judge nothing."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg

from lab import postgres_install
from lab.bench.scene import DATABASE, PROCRASTINATE, Run, Scene, drain, workers

YARDSTICK = Path(__file__).parent.parent.parent.parent / "shared" / "peers" / "run-go"
# Its exit status where Go's libraries are missing.
CANNOT_BE_BUILT = 2


def throughput(where: Scene, command: Sequence[str], count: int, jobs: int, runs: int) -> list[Run]:
    """Drain a filled queue, several times."""
    return [_fresh_drain(where, command, count, jobs) for _ in range(runs)]


def _fresh_drain(where: Scene, command: Sequence[str], count: int, jobs: int) -> Run:
    where.fresh_database()
    where.fill(jobs)
    where.settle_down()
    return drain(where, command, count)


def against_yardstick(where: Scene, jobs: int, runs: int) -> tuple[list[Run], list[float]] | None:
    """Two workers and the Go yardstick in turn; None where it cannot be built."""
    if not YARDSTICK.exists() or (shutil.which("go") is None and not _built()):
        return None
    ours, theirs = [], []
    for _ in range(runs):
        try:
            theirs.append(_yardstick(where, jobs))
        except subprocess.CalledProcessError as error:
            if error.returncode != CANNOT_BE_BUILT:
                raise
            print(f"the Go yardstick is left out: {error.stderr.strip()}")
            return None
        ours.append(_fresh_drain(where, PROCRASTINATE, 2, jobs))
    return ours, theirs


def _built() -> bool:
    return (Path(os.environ.get("TMPDIR", "/tmp")) / "go-yardstick" / "go-peer").exists()


def _yardstick(where: Scene, jobs: int) -> float:
    where.server.drop_database("yardstick")
    where.server.create_database("yardstick")
    dsn = f"host={where.server.socket_folder} port={where.server.port} user=postgres dbname=yardstick"
    output = subprocess.run(
        [str(YARDSTICK), dsn, f"127.0.0.1:{where.sink.port}", str(jobs)], capture_output=True, text=True, check=True
    ).stdout
    return float(output.split("/s ")[0].split()[-1])


def under_old_snapshot(where: Scene, jobs: int) -> float:
    """Rate of the last tenth over that of the first, while another session keeps every dead row alive."""
    where.fresh_database()
    where.fill(jobs)
    where.settle_down()
    with where.connect() as old:
        old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        old.execute("SELECT count(*) FROM email_types")
        drain(where, PROCRASTINATE)
        old.execute("ROLLBACK")
    with where.connect() as connection:
        row = connection.execute(
            "WITH sent AS (SELECT sent_at, ntile(10) OVER (ORDER BY sent_at) AS tenth FROM email_jobs),"
            " spans AS (SELECT tenth, extract(epoch FROM max(sent_at) - min(sent_at)) AS span FROM sent GROUP BY tenth)"
            " SELECT (SELECT span FROM spans WHERE tenth = 1) / (SELECT span FROM spans WHERE tenth = 10)"
        ).fetchone()
    assert row is not None
    return float(row[0])


def in_large_table(where: Scene, pending: int, sent: int, jobs: int) -> tuple[float, float]:
    """Rates of the same number of mails: from a table of that many rows, and from one with nothing else."""
    small = _fresh_drain(where, PROCRASTINATE, 1, jobs).rate
    where.fresh_database()
    where.fill_history(sent, "sent")
    where.fill_history(pending, "pending")
    where.settle_down()
    return drain(where, PROCRASTINATE, 1, jobs).rate, small


def idle_latencies(where: Scene, mails: int, command: Sequence[str] = PROCRASTINATE) -> list[float]:
    """Milliseconds from before the INSERT until the sink has the mail, one after the other on an idle worker."""
    where.fresh_database()
    with workers(where, command):
        _insert_and_wait(where, "warm-up", "password-reset", 5, 0.05)
        return _insert_and_wait(where, "idle", "password-reset", mails, 0.03)


def busy_latencies(where: Scene, mails: int, backlog: int) -> list[float]:
    """The same while a backlog of newsletters drains."""
    where.fresh_database()
    where.fill(backlog, "newsletter", "news")
    where.settle_down()
    with workers(where, PROCRASTINATE):
        _until(lambda: where.sink.counts().accepted > 0)
        time.sleep(3)
        return _insert_and_wait(where, "urgent", "password-reset", mails, 0.03)


def _insert_and_wait(where: Scene, prefix: str, kind: str, mails: int, pause: float) -> list[float]:
    began: dict[str, float] = {}
    with where.connect() as connection:
        data = connection.execute("SELECT data FROM email_jobs LIMIT 1").fetchone()
        values = data[0] if data else _SAMPLE
        for number in range(mails):
            now = time.time()
            row = connection.execute(
                "SELECT email_enqueue(%s, %s, %s, %s)",
                (f"{prefix}-{number}-{now}", kind, "ann@example.com", psycopg.types.json.Jsonb(values)),
            ).fetchone()
            assert row is not None
            began[str(row[0])] = now
            time.sleep(pause)
    found: dict[str, float] = {}
    _until(lambda: len(found.update(_arrivals(where, began)) or found) == len(began))
    return [(found[job] - at) * 1000 for job, at in began.items()]


def _arrivals(where: Scene, wanted: dict[str, float]) -> dict[str, float]:
    return {entry.job_id: entry.time for entry in where.sink.ledger() if entry.job_id in wanted}


_SAMPLE: dict[str, Any] = {
    "bookingId": "b-1",
    "eventName": "Concert",
    "ticketCount": 2,
    "totalAmount": 150.0,
    "venue": "Main Hall",
    "date": "2024-01-01",
    "items": [{"name": f"Item {k}", "qty": k, "price": k * 10.5} for k in range(1, 6)],
}


def start_seconds(where: Scene, runs: int, command: Sequence[str] = PROCRASTINATE) -> list[float]:
    """From the start of a process to the first mail accepted."""
    taken = []
    for _ in range(runs):
        where.fresh_database()
        where.fill(1)
        accepted = where.sink.counts().accepted
        began = time.monotonic()
        with workers(where, command):
            while where.sink.counts().accepted == accepted:
                time.sleep(0.002)
            taken.append(time.monotonic() - began)
    return taken


def inserts_with_and_without_trigger(where: Scene, seconds: int, runs: int) -> tuple[list[float], list[float]]:
    """Single-row inserts per second over 32 connections, with and without the wake-up trigger, in turn."""
    with_trigger, without = [], []
    where.fresh_database()
    for _ in range(runs):
        _set_trigger(where, "ENABLE")
        with_trigger.append(_pgbench(where, seconds))
        _set_trigger(where, "DISABLE")
        without.append(_pgbench(where, seconds))
    return with_trigger, without


def _set_trigger(where: Scene, how: str) -> None:
    with where.connect() as connection:
        connection.execute("TRUNCATE email_jobs CASCADE")
        connection.execute(f"ALTER TABLE email_jobs {how} TRIGGER email_jobs_wake")
        connection.execute("CHECKPOINT")


_INSERT = """INSERT INTO email_jobs (job_id, type, template, recipient_email, data)
VALUES (gen_random_uuid()::text, 'booking-confirmation', 'booking-confirmation', 'ann@example.com',
    '{"bookingId": "b-1"}');
"""


def _pgbench(where: Scene, seconds: int) -> float:
    script = where.server.folder / "insert.sql"
    script.write_text(_INSERT)
    script.chmod(0o644)
    pgbench = postgres_install.binaries(postgres_install.unprivileged_account()) / "pgbench"
    options = (
        f"-n -c 32 -j 2 -T {seconds} -f {script} -h {where.server.socket_folder} -p {where.server.port} -U postgres"
    )
    command = [str(pgbench), *options.split(), DATABASE]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(next(line for line in output.splitlines() if line.startswith("tps")).split()[2])


def _until(condition: Callable[[], bool], pause: float = 0.02, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("the worker did not get there")
        time.sleep(pause)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)
