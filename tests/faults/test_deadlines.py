"""The batch deadline: whatever does not answer, a provider, the journal or a template, the claim ends in time."""

import asyncio
import time
from contextlib import ExitStack

from lab.scripted_smtp import ScriptedServer
from lab.sink_process import Sink
from lab.smtp_script import Script, Stall
from tests.faults import scene
from tests.faults.engine import Engine, running_engine, soon
from tests.support import Database
from worker.job import Queue

DEADLINE_SECONDS = 3
# What a slow machine may take beside the waiting itself.
SLACK_SECONDS = 2.0
CONNECTIONS = 2


async def test_a_provider_that_never_answers_keeps_a_batch_no_longer_than_its_deadline(
    database: Database, db: scene.Db
) -> None:
    """At the deadline what was handed over is unknown, the rest is pending and free, and no retry is used for it."""
    scene.small_templates(db)
    scene.enqueue(db, 40, ["password-reset", "booking-confirmation"])
    async with (
        ScriptedServer(Script(content=Stall())) as server,
        running_engine(
            database,
            "one",
            SMTP_PORT=server.port,
            EMAIL_JOB_CONCURRENCY=CONNECTIONS,
            EMAIL_BATCH_DEADLINE_SECONDS=DEADLINE_SECONDS,
        ) as engine,
    ):
        began = time.monotonic()
        await engine.deliver()
        took = time.monotonic() - began
        handed_over = len(server.mails)
        await engine.journal.flush()
    assert took < DEADLINE_SECONDS + SLACK_SECONDS
    assert handed_over == CONNECTIONS
    rows = db.execute("SELECT state::text, count(*) FROM email_attempts GROUP BY state").fetchall()
    states: dict[str, int] = dict(rows)
    assert states.pop("unknown") == handed_over
    assert set(states) <= {"not_sent"}, "only what was handed over can be unknown"
    assert scene.statuses(db) == {"pending": 40}
    used = scene.count(db, "SELECT count(*) FROM email_jobs WHERE retry_count > 0 OR next_attempt_at > now()")
    assert used == handed_over, "mails that were not handed over stay as due as they were"
    # Nobody holds a lock.
    assert len(db.execute("SELECT seq FROM email_jobs FOR UPDATE SKIP LOCKED").fetchall()) == 40


async def test_a_journal_that_does_not_answer_keeps_batches_no_longer_than_their_deadline(
    database: Database, db: scene.Db
) -> None:
    """While the journal is locked batches end in time and nothing is handed over; then all is sent, nothing doubted."""
    types = ["newsletter", "password-reset"]
    scene.small_templates(db)
    scene.enqueue(db, 40, types)
    async with (
        ScriptedServer() as server,
        running_engine(
            database, "one", SMTP_PORT=server.port, WORKER_BATCH_SIZE=10, EMAIL_BATCH_DEADLINE_SECONDS=DEADLINE_SECONDS
        ) as engine,
    ):
        with database.connect() as blocker, blocker.transaction():
            blocker.execute("LOCK TABLE email_attempts IN ACCESS EXCLUSIVE MODE")
            began = time.monotonic()
            batches = [asyncio.create_task(engine.deliver()) for _ in range(2)]
            await soon(lambda: all(batch.done() for batch in batches), "both batches end")
            took = time.monotonic() - began
        results = await asyncio.gather(*batches, return_exceptions=True)
        assert [error for error in results if isinstance(error, BaseException)] == []
        assert took < DEADLINE_SECONDS + SLACK_SECONDS
        assert server.mails == []
        await _deliver_all(engine)
        assert len(server.mails) == 40
    assert scene.statuses(db) == {"sent": 40}, "a doubt about a mail of which not a byte went out"


async def _deliver_all(engine: Engine) -> None:
    while any([(await engine.deliver(queue)).claimed for queue in Queue]):
        pass


def test_templates_that_run_for_ever_do_not_stop_the_line(database: Database, db: scene.Db) -> None:
    """More rendering than a claim may take still ends: the endless jobs are dead with a reason, and others are sent."""
    scene.small_templates(db)
    db.execute(
        "INSERT INTO email_templates (name, subject, html_content) VALUES ('endless', 'Hello', %s)",
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",),
    )
    scene.enqueue(db, 8, ["password-reset"], prefix="endless")
    db.execute("UPDATE email_jobs SET template = 'endless'")
    scene.enqueue(db, 10, ["password-reset"], prefix="fine")
    with Sink() as sink, ExitStack() as stack:
        fleet = scene.Fleet(database, stack, SMTP_PORT=sink.port, EMAIL_BATCH_DEADLINE_SECONDS=DEADLINE_SECONDS)
        fleet.start()
        scene.nothing_pending(db, 60)
    assert scene.statuses(db) == {"dead": 8, "sent": 10}
