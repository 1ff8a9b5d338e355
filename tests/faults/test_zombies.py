"""Workers that lost their claim and still live: stopped ones that wake, and those whose session Postgres ended."""

import asyncio
import os
import signal
import socket
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Delay, ReceivedMail, Script
from tests.faults import scene
from tests.faults.engine import running_engine, soon
from tests.support import Database, eventually
from worker.claim import watch_claim
from worker.db import connection_parameters
from worker.errors import ClaimLost
from worker.job import Queue

CONNECTIONS = 2
JOBS = 30
# Of the bulk queue: at_most_once and at_least_once.
BULK_TYPES = ("newsletter", "maintenance-notice")


def _job_ids(mails: list[ReceivedMail]) -> Counter[str]:
    """How often a scripted server got the content of each job."""
    lines = (line for mail in mails for line in mail.content.split(b"\r\n") if line.startswith(b"X-Job-Id: "))
    return Counter(line.partition(b" ")[2].decode() for line in lines)


def test_a_worker_that_wakes_after_its_claim_was_given_away_hands_nothing_over(
    database: Database, db: scene.Db, tmp_path: Path
) -> None:
    """Stopped past deadline and grace, a worker wakes to answers and invitations to send, and sends nothing more."""
    scene.small_templates(db)
    # Each reply comes a moment after the content: it waits in the zombie's socket, with the 354 for the next mail.
    slow = Script(content=lambda _: Delay(1.0))
    with in_thread(ScriptedServer(slow)) as first, Sink(ledger=tmp_path / "ledger") as second, ExitStack() as stack:
        fleet = scene.Fleet(
            database, stack, EMAIL_BATCH_DEADLINE_SECONDS=3, EMAIL_JOB_CONCURRENCY=CONNECTIONS, EMAIL_DOUBT_SECONDS=1
        )
        name, zombie = fleet.start(SMTP_PORT=first.port)
        # Then it knows all types and templates: its next claim is one statement and nothing else.
        scene.enqueue(db, len(scene.TYPES), prefix="early")
        scene.nothing_pending(db)
        early = len(first.mails)
        scene.enqueue(db, JOBS)
        eventually(lambda: len(first.mails) >= early + CONNECTIONS, "the first worker has mails in hand")
        zombie.process.send_signal(signal.SIGSTOP)
        in_hand = len(first.mails)
        eventually(lambda: _claims(db, name) == 0, "Postgres ends the sleeper's claims", 30)
        fleet.start(SMTP_PORT=second.port)
        scene.nothing_pending(db)
        zombie.process.send_signal(signal.SIGCONT)
        # It may also find that it was without Postgres for too long, and end.
        eventually(
            lambda: zombie.process.poll() is not None or _unfinished(db, name) == 0, "the zombie comes to its senses"
        )
        assert zombie.process.poll() != 0
        assert len(first.mails) == in_hand, "the zombie handed something over after it woke"
        eventually(lambda: _answered_doubts(db) == 0, "late answers settle the doubts", 45)
        by_zombie, by_other = _job_ids(first.mails), Counter(entry.job_id for entry in second.ledger())
    for job_id, guarantee, status in db.execute("SELECT id::text, guarantee::text, status::text FROM email_jobs"):
        copies = by_zombie[job_id] + by_other[job_id]
        most = 1 if guarantee == "at_most_once" else 1 + by_zombie[job_id]
        told = f"{guarantee} {job_id} {status}: {by_zombie[job_id]} + {by_other[job_id]}"
        assert (copies >= 1 and status == "sent") or (guarantee == "at_most_once" and status == "in_doubt"), told
        assert copies <= most, told
    sent = "SELECT count(*) - count(DISTINCT job_id) FROM email_tracking WHERE event_type = 'sent'"
    assert scene.count(db, sent) == 0, "settled twice"
    scene.books_balance(db)


def _answered_doubts(db: scene.Db) -> int:
    """Jobs in doubt although the journal knows of each attempt what became of it."""
    return scene.count(
        db,
        "SELECT count(*) FROM email_jobs AS job WHERE status = 'in_doubt' AND NOT EXISTS ("
        "SELECT FROM email_attempts WHERE seq = job.seq AND state IN ('sending', 'unknown'))",
    )


def test_a_worker_stopped_while_it_defers_a_task_does_not_stop_the_others(
    database: Database, db: scene.Db, sink: Sink
) -> None:
    """A worker that is frozen inside a transaction of procrastinate's does not hold up the tasks of all others."""
    scene.small_templates(db)
    with ExitStack() as stack:
        fleet = scene.Fleet(database, stack, SMTP_PORT=sink.port, EMAIL_BATCH_DEADLINE_SECONDS=3)
        name, sleeper = fleet.start()
        scene.enqueue(db, 3)
        scene.nothing_pending(db)
        defers = "application_name = %s AND query LIKE '%%procrastinate_defer%%' AND"
        who = f"email-worker tasks {name}"
        with database.connect() as blocker:
            blocker.autocommit = False
            # Its deferring statement waits for this one's end, so it can be stopped before it commits.
            eventually(lambda: _takes_the_lock(blocker), "no deliver task waits just now")
            waits = f"SELECT count(*) FROM pg_stat_activity WHERE {defers} wait_event_type = 'Lock'"
            eventually(lambda: scene.count(db, waits, who) > 0, "the worker defers a task")
            sleeper.process.send_signal(signal.SIGSTOP)
            blocker.rollback()
        idle = f"SELECT count(*) FROM pg_stat_activity WHERE {defers} state = 'idle in transaction'"
        eventually(lambda: scene.count(db, idle, who) > 0, "the worker is stopped inside its transaction")
        fleet.start()
        scene.enqueue(db, 30, prefix="later")
        scene.nothing_pending(db, 45)
    assert scene.statuses(db) == {"sent": 33}


def _takes_the_lock(blocker: scene.Db) -> bool:
    """Insert a deliver task without committing it; one that is there already is picked up soon."""
    try:
        blocker.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, queueing_lock, args)"
            " VALUES ('email', 'email:deliver', 'deliver:transactional', '{\"queue\": \"transactional\"}')"
        )
    except psycopg.errors.UniqueViolation:
        blocker.rollback()
        return False
    return True


def _claims(db: scene.Db, worker: str) -> int:
    """How many batches a worker holds."""
    return scene.count(
        db,
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'idle in transaction'",
        f"email-worker claim {worker}",
    )


def _unfinished(db: scene.Db, worker: str) -> int:
    return scene.count(db, "SELECT count(*) FROM email_attempts WHERE worker = %s AND state = 'sending'", worker)


async def test_a_session_ended_in_the_middle_of_a_send_hands_nothing_more_over(
    database: Database, db: scene.Db
) -> None:
    """When Postgres ends a claim, no further mail of it leaves, and answers that still come save a second sending."""
    scene.small_templates(db)
    scene.enqueue(db, 12, ["password-reset", "booking-confirmation"])
    slow = Script(content=lambda _: Delay(0.5))
    async with ScriptedServer(slow) as first, ScriptedServer() as second:
        async with (
            running_engine(database, "one", SMTP_PORT=first.port, EMAIL_JOB_CONCURRENCY=CONNECTIONS) as one,
            running_engine(database, "two", SMTP_PORT=second.port) as two,
        ):
            batch = asyncio.create_task(one.deliver())
            await soon(lambda: len(first.mails) == CONNECTIONS, "mails are in hand")
            _end_claims(db, "one")
            with pytest.raises(ClaimLost):
                await batch
            assert len(first.mails) == CONNECTIONS, "handed over after the claim was lost"
            await one.journal.flush()
            assert _states(db) == {"accepted": CONNECTIONS, "not_sent": 12 - CONNECTIONS}
            await two.deliver()
        copies = _job_ids(first.mails) + _job_ids(second.mails)
    assert scene.statuses(db) == {"sent": 12}
    assert set(copies.values()) == {1}, f"sent again although the answer was in the journal: {copies}"
    assert scene.count(db, "SELECT count(*) FROM email_tracking") == 12, "settled twice"
    scene.books_balance(db)


async def test_a_process_that_lost_its_claim_does_not_forget_what_it_was_told(database: Database, db: scene.Db) -> None:
    """A process that takes its own lost jobs again at once knows their answers, although the journal does not yet."""
    scene.small_templates(db, BULK_TYPES)
    scene.enqueue(db, 2, BULK_TYPES)
    slow = Script(content=lambda _: Delay(0.3))
    async with ScriptedServer(slow) as server, running_engine(database, "one", SMTP_PORT=server.port) as engine:
        batch = asyncio.create_task(engine.deliver(Queue.BULK))
        await soon(lambda: len(server.mails) == 2, "mails are in hand")
        _end_claims(db, "one")
        with pytest.raises(ClaimLost):
            await batch
        await engine.deliver(Queue.BULK)
        copies = _job_ids(server.mails)
    assert scene.statuses(db) == {"sent": 2}
    assert set(copies.values()) == {1}


async def test_the_end_of_a_lost_claim_leaves_the_sockets_of_others_alone(database: Database, db: scene.Db) -> None:
    """A socket that got the file number of the lost session's is still listened to when the watch has ended."""
    scene.enqueue(db, 1)
    heard = asyncio.Event()
    async with await psycopg.AsyncConnection.connect(**connection_parameters(database.settings(), "test")) as session:
        number = session.fileno()
        with watch_claim(session) as watch:
            db.execute("SELECT pg_terminate_backend(%s)", (session.info.backend_pid,))
            await soon(lambda: watch.is_lost, "the loss is noticed")
            near, far = socket.socketpair()
            descriptor = near.detach()
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            asyncio.get_running_loop().add_reader(number, heard.set)
        far.send(b"!")
        try:
            async with asyncio.timeout(5):
                await heard.wait()
        finally:
            asyncio.get_running_loop().remove_reader(number)
            os.close(number)
            far.close()


def _end_claims(db: scene.Db, worker: str) -> None:
    """Have Postgres end the sessions that hold a worker's batches, and wait until the locks are gone."""
    claims = "application_name = %s AND state = 'idle in transaction'"
    name = (f"email-worker claim {worker}",)
    assert db.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {claims}".encode(), name
    ).fetchall()
    eventually(lambda: _claims(db, worker) == 0, "the sessions end")


def _states(db: scene.Db) -> dict[str, int]:
    rows = db.execute("SELECT state::text, count(*) FROM email_attempts GROUP BY state").fetchall()
    return dict(rows)


async def test_a_requeued_job_whose_mail_was_accepted_is_really_sent_again(database: Database, db: scene.Db) -> None:
    """The journal of its first life does not settle a job that a person has sent again."""
    scene.small_templates(db)
    scene.enqueue(db, 3)
    async with ScriptedServer() as server, running_engine(database, "one", SMTP_PORT=server.port) as engine:
        for _ in range(2):
            for queue in Queue:
                await engine.deliver(queue)
            assert scene.statuses(db) == {"sent": 3}
            db.execute("SELECT email_requeue(job_id) FROM email_jobs")
        for queue in Queue:
            await engine.deliver(queue)
        copies = _job_ids(server.mails)
    assert set(copies.values()) == {3}
    assert db.execute("SELECT DISTINCT attempt_no FROM email_jobs").fetchall() == [(3,)]
    scene.books_balance(db)
