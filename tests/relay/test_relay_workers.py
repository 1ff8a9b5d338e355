"""The relay as a part of real workers: killed, held up by an open transaction, and without Kafka."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab.kafka import Broker
from lab.sink_process import Sink
from tests.faults.scene import Fleet, count, enqueue, nothing_pending, small_templates, statuses
from tests.integration.office import ROOT, inherited
from tests.integration.rows import Connection, end_job, insert_job, rows, value
from tests.relay import scene
from tests.relay.listener import Listener
from tests.support import Database, Worker, eventually

KILLS = 5


@pytest.fixture
def forgetful_sink() -> Iterator[Sink]:
    """Refuses each address twice, so that jobs have several events."""
    with Sink(refuse_first=[("r*", 2)]) as sink:
        yield sink


def test_workers_killed_in_turn_tell_every_event_in_order(
    database: Database, db: Connection, kafka: Broker, listener: Listener, forgetful_sink: Sink
) -> None:
    """Through kills of whoever publishes, every event arrives at least once, those of each job in their order."""
    small_templates(db)
    environment = kafka.environment() | {"EMAIL_RETRY_DELAY_SECONDS": 0, "EMAIL_DOUBT_SECONDS": 1}
    with ExitStack() as stack:
        fleet = Fleet(database, stack, SMTP_PORT=forgetful_sink.port, **environment)
        workers = dict(fleet.start() for _ in range(2))
        for number in range(KILLS):
            _kill_the_relay(database, db, workers, f"kill-{number}")
            # As if this test had waited as long as a lease lasts.
            scene.let_lease_pass(db)
            workers.update([fleet.start()])
        nothing_pending(db, 90)
        assert value(
            db, "SELECT count(email_requeue(job_id)) FROM email_jobs WHERE status = 'sent' AND mod(seq, 10) = 0"
        )
        nothing_pending(db, 90)
        told = scene.event_ids(db)
        listener.await_ids(told)
        wanted = scene.ids_by_job(db)
    assert {job_id: ids for job_id, ids in listener.by_job().items() if ids != wanted[job_id]} == {}
    print(f"\n{KILLS} kills: {len(told)} events of {len(wanted)} jobs, {len(listener.raw) - len(told)} told again")


def _kill_the_relay(database: Database, db: Connection, workers: dict[str, Worker], prefix: str) -> None:
    """Kill the worker that publishes, when Kafka has events of new jobs and the place does not say so yet."""
    is_active = "SELECT held_until > clock_timestamp() FROM email_relay"
    eventually(lambda: value(db, is_active), "a relay is active", 60)
    waits = (
        "SELECT application_name, pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'email-worker keeper%%' AND wait_event_type = 'Lock'"
    )
    with database.connect() as blocker, blocker.transaction():
        blocker.execute("SELECT FROM email_relay FOR UPDATE")
        enqueue(db, 600, prefix=prefix)
        (application, session), *_ = eventually(lambda: rows(db, waits), "a relay wants to move its place", 60)
        name = application.rpartition(" ")[2]
        workers[name].process.kill()
        workers.pop(name).process.wait()
        # Postgres would notice the death of who waits for a lock only when it has the lock.
        db.execute("SELECT pg_terminate_backend(%s)", (session,))
        eventually(lambda: (application, session) not in rows(db, waits), "its session ends")


@pytest.mark.parametrize("seconds", [3, pytest.param(30, marks=pytest.mark.long)])
def test_a_transaction_held_open_loses_no_event(
    database: Database, db: Connection, kafka: Broker, listener: Listener, sink: Sink, seconds: int
) -> None:
    """While a transaction that wrote an event stays open, others deliver; at its end all is told, its event too."""
    small_templates(db)
    insert_job(db, "held", scheduled_at="2099-01-01 00:00Z")
    with ExitStack() as stack:
        fleet = Fleet(database, stack, SMTP_PORT=sink.port, **kafka.environment())
        fleet.start()
        fleet.start()
        enqueue(db, 3, prefix="before")
        eventually(lambda: scene.event_ids(db), "the workers work")
        nothing_pending_but_one(db)
        before = scene.event_ids(db)
        listener.await_ids(before)
        with database.connect() as early, early.transaction():
            end_job(early, "cancelled", "held")
            for number in range(seconds):
                enqueue(db, 100, prefix=f"during-{number}")
                age = "SELECT clock_timestamp() - now() > make_interval(secs => %s)"
                eventually(lambda: value(early, age, number + 1), "time goes by")  # noqa: B023
            nothing_pending_but_one(db)
            listener.hear()
            assert listener.ids() == before, "told before it was sure that nothing comes before it"
        wanted = scene.event_ids(db)
        assert len(wanted) == len(before) + 100 * seconds + 1
        listener.await_ids(wanted)
    assert listener.by_job() == scene.ids_by_job(db)


def nothing_pending_but_one(db: Connection) -> None:
    """All jobs that are due have ended."""
    pending = "SELECT count(*) FROM email_jobs WHERE status = 'pending' AND next_attempt_at < '2099-01-01'"
    eventually(lambda: count(db, pending) == 0, "all end", 60)


def test_without_kafka_mails_go_out_and_their_events_come_later(
    database: Database, db: Connection, kafka: Broker, listener: Listener, sink: Sink
) -> None:
    """A broker that dies costs a warning; mails go out all the same, and what it missed is told when it is back."""
    if not kafka.controllable:
        pytest.skip("the broker is not ours to kill")
    small_templates(db)
    with ExitStack() as stack:
        _, worker = Fleet(database, stack, SMTP_PORT=sink.port, **kafka.environment()).start()
        enqueue(db, 30, prefix="before")
        nothing_pending(db)
        before = scene.event_ids(db)
        listener.await_ids(before)
        kafka.kill()
        enqueue(db, 300, prefix="without")
        nothing_pending(db)
        assert set(statuses(db)) == {"sent"}
        eventually(lambda: "events wait for Kafka" in worker.log_text(), "the worker says so")
        kafka.start()
        kafka.create_topic(kafka.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], 3)
        listener.reopen()
        listener.await_ids(scene.event_ids(db) - before, 90)
        _stop(worker)


def test_a_worker_can_be_stopped_while_kafka_is_away(
    database: Database, db: Connection, kafka: Broker, listener: Listener, sink: Sink
) -> None:
    """SIGTERM ends a worker with status 0 although its events cannot be told; the next one tells them."""
    if not kafka.controllable:
        pytest.skip("the broker is not ours to kill")
    small_templates(db)
    with ExitStack() as stack:
        fleet = Fleet(database, stack, SMTP_PORT=sink.port, **kafka.environment())
        _, worker = fleet.start()
        kafka.kill()
        enqueue(db, 30)
        nothing_pending(db)
        eventually(lambda: "events wait for Kafka" in worker.log_text(), "the worker says so")
        _stop(worker)
        kafka.start()
        kafka.create_topic(kafka.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], 3)
        listener.reopen()
        fleet.start()
        listener.await_ids(scene.event_ids(db))
    assert listener.by_job() == scene.ids_by_job(db)


def test_a_topic_that_is_missing_is_made_or_waited_for(
    database: Database, db: Connection, kafka: Broker, sink: Sink
) -> None:
    """Without its topic the relay passes nothing over: the events are there once somebody has made it."""
    small_templates(db)
    named = kafka.environment() | {"KAFKA_TOPIC_EMAIL_EVENTS": f"made-later-{kafka.prefix}"}
    with ExitStack() as stack:
        _, worker = Fleet(database, stack, SMTP_PORT=sink.port, **named).start()
        enqueue(db, 10)
        nothing_pending(db)
        moved = "SELECT count(*) FROM email_relay WHERE xid > '0'"
        eventually(lambda: "events wait for Kafka" in worker.log_text() or count(db, moved), "it tries")
        kafka.create_topic(named["KAFKA_TOPIC_EMAIL_EVENTS"], 3)
        with Listener(kafka, named["KAFKA_TOPIC_EMAIL_EVENTS"]) as listener:
            listener.await_ids(scene.event_ids(db), 90)


def _stop(worker: Worker) -> None:
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0, worker.log_text()[-3000:]


def test_without_kafka_configured_nothing_of_it_is_loaded(database: Database) -> None:
    """Importing the app loads neither Kafka's client nor Redis's, when none is configured."""
    code = "import sys, worker.app; print([name for name in ('confluent_kafka', 'redis') if name in sys.modules])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited(), **database.environment()},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout == "[]\n"


def test_without_kafka_configured_no_relay_runs(database: Database, db: Connection, sink: Sink) -> None:
    """A worker without Kafka delivers; its periodic task ends at once, holds no lease, and no task piles up."""
    small_templates(db)
    with ExitStack() as stack:
        _, worker = Fleet(database, stack, SMTP_PORT=sink.port).start()
        enqueue(db, 10)
        nothing_pending(db)
        ticks = "SELECT count(*) FROM procrastinate_periodic_defers WHERE task_name = 'email:relay'"
        eventually(lambda: count(db, ticks) >= 1, "the periodic task has been there")
        left = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'email:relay'"
        eventually(lambda: count(db, left) == 0, "none is left")
        assert rows(db, "SELECT xid::text, seq, holder FROM email_relay") == [("0", 0, None)]
        loaded = Path(f"/proc/{worker.process.pid}/maps").read_text()
        assert re.findall("rdkafka|confluent", loaded) == []
