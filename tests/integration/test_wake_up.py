"""Wake-ups: NOTIFY is sent only to an idle listener, and producers never keep the listener from its lock."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from tests.integration.rows import Connection, end_job, insert_job, insert_jobs, value
from tests.support import Database
from worker.db import query
from worker.drain import _LOCK_KEYS
from worker.job import Queue

CHANNELS = {queue: f"email_jobs_{queue}" for queue in Queue}


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


@pytest.fixture
def ear(database: Database) -> Iterator[Connection]:
    """A connection that hears every channel; it holds no lock."""
    with database.connect() as connection:
        for channel in (*CHANNELS.values(), "end"):
            connection.execute(f'LISTEN "{channel}"'.encode())
        yield connection


@pytest.fixture
def listener(database: Database) -> Iterator[Connection]:
    """The session of a worker that may become an idle listener."""
    with database.connect() as connection:
        yield connection


def heard(ear: Connection, producer: Connection) -> list[str]:
    """The channels of everything that was sent until now: notifications come in the order of their commits."""
    producer.execute('NOTIFY "end"')
    channels: list[str] = []
    for notification in ear.notifies(timeout=30):
        if notification.channel == "end":
            return channels
        channels.append(notification.channel)
    raise AssertionError("the end was not heard")


def try_to_listen(listener: Connection, queue: Queue) -> bool:
    """One try of a worker to become the queue's listener, by the worker's own statement."""
    (got,) = listener.execute(query("become_listener"), {"key": _LOCK_KEYS[queue]}).fetchone() or (None,)
    return bool(got)


def test_nobody_is_notified_while_nobody_is_idle(db: Connection, ear: Connection) -> None:
    """NOTIFY serialises all commits, so without an idle listener there is none, whoever else listens."""
    insert_jobs(db, 20)
    db.execute("SELECT email_enqueue('e-1', 'newsletter', 'ann@example.com')")
    assert heard(ear, db) == []


@pytest.mark.parametrize("queue", Queue)
def test_the_idle_listener_of_the_queue_is_notified(
    db: Connection, ear: Connection, listener: Connection, queue: Queue
) -> None:
    """A new job wakes the listener of its queue and of no other, once per commit, however many jobs there are."""
    assert try_to_listen(listener, queue)
    with db.transaction():
        for number in range(10):
            insert_job(db, f"transactional-{number}")
            insert_job(db, f"bulk-{number}", type="newsletter")
    assert heard(ear, db) == [CHANNELS[queue]]

    value(listener, "SELECT pg_advisory_unlock_all()::text")
    insert_job(db, "afterwards", queue=queue)
    assert heard(ear, db) == []


def test_a_job_that_is_rolled_back_wakes_nobody(db: Connection, ear: Connection, listener: Connection) -> None:
    """A wake-up belongs to the producer's transaction."""
    assert try_to_listen(listener, Queue.TRANSACTIONAL)
    with db.transaction(force_rollback=True):
        insert_job(db)
    assert heard(ear, db) == []


def test_a_requeued_job_wakes_the_listener(db: Connection, ear: Connection, listener: Connection) -> None:
    """email_requeue() wakes the queue's listener as an INSERT does."""
    insert_job(db)
    end_job(db, "dead")
    assert try_to_listen(listener, Queue.TRANSACTIONAL)
    db.execute("SELECT email_requeue('j-1')")
    assert heard(ear, db) == [CHANNELS[Queue.TRANSACTIONAL]]


def test_a_queue_has_one_listener(database: Database, listener: Connection) -> None:
    """The lock is one for the whole cluster, and each queue has its own."""
    assert try_to_listen(listener, Queue.TRANSACTIONAL)
    with database.connect() as other:
        assert not try_to_listen(other, Queue.TRANSACTIONAL)
        assert try_to_listen(other, Queue.BULK)


def test_an_open_transaction_of_a_producer_holds_no_lock(database: Database, listener: Connection) -> None:
    """The trigger gives its lock back at once, not at the commit: a slow producer cannot shut the listener out."""
    with database.connect() as producer, producer.transaction():
        insert_jobs(producer, 20)
        assert try_to_listen(listener, Queue.TRANSACTIONAL)


def test_a_burst_of_producers_does_not_keep_the_listener_from_its_lock(
    database: Database, listener: Connection
) -> None:
    """While four producers insert without a pause, a worker becomes the listener again and again within a few tries."""
    stop = Event()

    def produce(name: str) -> int:
        with database.connect() as producer:
            for number in range(100_000):
                if stop.is_set():
                    return number
                insert_jobs(producer, 10, f"{name}-{number}")
        return 0

    with ThreadPoolExecutor(4) as threads:
        producers = [threads.submit(produce, f"p{n}") for n in range(4)]
        tries = []
        try:
            for _ in range(20):
                needed = next(n for n in range(1, 1000) if try_to_listen(listener, Queue.TRANSACTIONAL))
                tries.append(needed)
                value(listener, "SELECT pg_advisory_unlock_all()::text")
        finally:
            stop.set()
    assert len(tries) == 20
    assert min(producer.result() for producer in producers) > 0, "all of them were inserting"


def test_a_change_of_the_catalog_raises_its_version(db: Connection) -> None:
    """Templates and types are read again by all workers, each with its next claim."""
    before = value(db, "SELECT version FROM email_catalog")
    db.execute("UPDATE email_types SET priority = 'low' WHERE type = 'newsletter'")
    db.execute("INSERT INTO email_templates (name, subject, html_content) VALUES ('t', 's', 'h')")
    db.execute("DELETE FROM email_templates")
    assert value(db, "SELECT version FROM email_catalog") == before + 3
