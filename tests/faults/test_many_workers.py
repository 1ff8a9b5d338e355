"""Many workers, two queues, four priorities: each mail once, the urgent first, and nobody starves."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.sink_process import LedgerEntry, Sink
from tests.faults import scene
from tests.support import Database, eventually

WORKERS = 8
SLOTS = 4
# Beside one connection a slot: see worker.process.
OTHER_CONNECTIONS = 7
BATCH_SIZE = 20


def test_eight_workers_deliver_each_mail_exactly_once(database: Database, db: scene.Db, tmp_path: Path) -> None:
    """Eight workers at one queue send each of 5,000 mails once, and none holds more connections than it may."""
    scene.small_templates(db)
    most: Counter[str] = Counter()
    with Sink(ledger=tmp_path / "ledger", reply_delay=0.01) as sink, ExitStack() as stack:
        fleet = scene.Fleet(database, stack, SMTP_PORT=sink.port, WORKER_CONCURRENCY=SLOTS, EMAIL_JOB_CONCURRENCY=2)
        workers = dict(fleet.start() for _ in range(WORKERS))
        # Only then: on a slow machine the first ones would be done before the last one has begun.
        eventually(lambda: all("started" in worker.log_text() for worker in workers.values()), "all have begun", 90)
        scene.enqueue(db, 5_000)
        eventually(lambda: _note_sessions(db, most) and scene.statuses(db) == {"sent": 5_000}, "all are sent", 90)
        ledger = sink.ledger()
    assert {job.taken for job in scene.fates(db, ledger)} == {1}
    shares = db.execute("SELECT worker, count(*) FROM email_attempts GROUP BY worker").fetchall()
    assert {name for name, _ in shares} == set(workers), f"not all had work: {shares}"
    assert max(most.values()) <= SLOTS + OTHER_CONNECTIONS, most
    scene.books_balance(db)


def _note_sessions(db: scene.Db, most: Counter[str]) -> bool:
    """Keep the highest number of sessions that each worker was seen with; always true."""
    rows = db.execute(
        "SELECT substring(application_name FROM 'worker-[0-9]+[.]$') AS name, count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND starts_with(application_name, 'email-worker ') GROUP BY name"
    ).fetchall()
    for name, sessions in rows:
        most[name] = max(most[name], sessions)
    return True


def test_what_is_due_goes_by_priority(database: Database, db: scene.Db, tmp_path: Path) -> None:
    """Of the jobs of a queue, all critical ones go before the normal, and those before the low, but for one batch."""
    scene.small_templates(db)
    for part in range(3):
        for priority in ("low", "normal", "critical"):
            scene.enqueue(db, 100, ["password-reset"], f"{priority}-{part}", priority)
    with Sink(ledger=tmp_path / "ledger") as sink, ExitStack() as stack:
        scene.Fleet(database, stack, SMTP_PORT=sink.port, WORKER_CONCURRENCY=2, WORKER_BATCH_SIZE=BATCH_SIZE).start()
        scene.nothing_pending(db)
        sent = _priorities(db, sink.ledger())
    assert Counter(sent) == {"critical": 300, "normal": 300, "low": 300}
    for urgent, other in (("critical", "normal"), ("normal", "low")):
        last = max(at for at, priority in enumerate(sent) if priority == urgent)
        overtaken = sum(priority == other for priority in sent[:last])
        # A batch at the border holds some of both, and its mails go over several connections.
        assert overtaken < BATCH_SIZE, f"{overtaken} {other} mails went before the last {urgent} one"


def _priorities(db: scene.Db, ledger: Sequence[LedgerEntry]) -> list[str]:
    """The priorities of the mails in the order in which they were taken."""
    priorities: dict[str, str] = dict(db.execute("SELECT id::text, priority::text FROM email_jobs").fetchall())
    return [priorities[entry.job_id] for entry in ledger]


def test_neither_queue_starves_the_other(database: Database, db: scene.Db, tmp_path: Path) -> None:
    """While both queues are full, each gets a share of what one provider takes."""
    scene.small_templates(db)
    scene.enqueue(db, 3_000, ["password-reset"], "urgent")
    scene.enqueue(db, 3_000, ["newsletter"], "bulk")
    with Sink(ledger=tmp_path / "ledger", reply_delay=0.01) as sink, ExitStack() as stack:
        fleet = scene.Fleet(database, stack, SMTP_PORT=sink.port, WORKER_CONCURRENCY=4, EMAIL_JOB_CONCURRENCY=5)
        fleet.start()
        eventually(lambda: sink.counts().accepted >= 2_000, "a third of them are sent")
        sent = Counter(_priorities(db, sink.ledger()[:2_000]))
    # Of the types: critical and low.
    assert min(sent["critical"], sent["low"]) >= 100, f"of 2,000 mails: {sent}"


def test_a_password_reset_does_not_wait_for_a_campaign(database: Database, db: scene.Db, tmp_path: Path) -> None:
    """With 100,000 newsletters pending, a reset goes out within a second: new, overdue, or committed late."""
    scene.small_templates(db)
    with Sink(ledger=tmp_path / "ledger") as sink, ExitStack() as stack:
        scene.enqueue(db, 100_000, ["newsletter"], "campaign")
        fleet = scene.Fleet(database, stack, SMTP_PORT=sink.port)
        fleet.start()
        eventually(lambda: sink.counts().accepted >= 1_000, "the campaign is on its way")

        waits = {"new": _time_to_delivery(db, sink, "new"), "overdue": _time_to_delivery(db, sink, "overdue", -3600)}
        with database.connect() as late, late.transaction():
            _reset(late, "late", None)
            scene.enqueue(db, 1_200, ["password-reset"], "newer")
            newer = "SELECT count(*) FROM email_jobs WHERE starts_with(job_id, 'newer-') AND status <> 'sent'"
            eventually(lambda: scene.count(db, newer) == 0, "newer ones are claimed and sent")
        waits["committed late"] = _until_taken(db, sink, "late")
        assert scene.count(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") > 1_000, (
            "the campaign goes on"
        )
    print(f"\nseconds until a reset was taken: {waits}")
    assert max(waits.values()) < 1.0, waits


def _time_to_delivery(db: scene.Db, sink: Sink, job_id: str, due_in: int | None = None) -> float:
    _reset(db, job_id, due_in)
    return _until_taken(db, sink, job_id)


def _reset(db: scene.Db, job_id: str, due_in: int | None) -> None:
    db.execute(
        "SELECT email_enqueue(%s, 'password-reset', 'ann@example.com',"
        " scheduled_at => clock_timestamp() + make_interval(secs => %s))",
        (job_id, due_in),
    )


def _until_taken(db: scene.Db, sink: Sink, job_id: str) -> float:
    """Seconds from now until the sink's ledger has this job."""
    committed = time.time()
    row = db.execute("SELECT id::text FROM email_jobs WHERE job_id = %s", (job_id,)).fetchone()
    assert row is not None

    def taken() -> list[float]:
        return [entry.time for entry in sink.ledger() if entry.job_id == row[0]]

    return eventually(taken, f"{job_id} is taken")[0] - committed
