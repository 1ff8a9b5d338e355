"""The order of each job's events, whatever transactions began, waited and ended in which order."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from lab.kafka import Broker
from tests.integration.rows import Connection, end_job, events, insert_job, insert_jobs, value
from tests.relay import scene
from tests.relay.listener import Listener
from tests.support import Database
from worker import relay as relay_module
from worker.db import connection_parameters, query


@contextmanager
def _open_transaction(database: Database) -> Iterator[Connection]:
    """A transaction that has its number, and is committed at the end."""
    with database.connect() as connection, connection.transaction():
        connection.execute("SELECT pg_current_xact_id()")
        yield connection


def _die(db: Connection, job_id: str) -> None:
    end_job(db, "dead", job_id)


def _requeue(db: Connection, job_id: str) -> None:
    db.execute("SELECT email_requeue(%s)", (job_id,))


def _requeue_in_a_savepoint(db: Connection, job_id: str) -> None:
    with db.transaction():
        _requeue(db, job_id)


def _requeue_dead(db: Connection, job_id: str) -> None:
    assert value(db, "SELECT email_requeue_dead()") == 1


def _cancel(db: Connection, job_id: str) -> None:
    assert value(db, "SELECT email_cancel(%s)", job_id) == "cancelled"


@pytest.fixture(params=[1, 2, 2000])
def page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many events are in a page: it cuts between any two, or never."""
    size: int = request.param
    monkeypatch.setattr(relay_module, "PAGE", size)
    return size


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("act", [_requeue, _requeue_in_a_savepoint, _requeue_dead])
async def test_an_old_transaction_that_acts_late_is_told_late(
    database: Database, db: Connection, kafka: Broker, listener: Listener, act: Callable[[Connection, str], None]
) -> None:
    """A transaction older than the one that settled the job, which requeues it afterwards, is told after it."""
    insert_job(db)
    async with scene.open_relay(database, kafka) as relay:
        with _open_transaction(database) as early:
            _die(db, "j-1")
            assert await scene.publish_all(relay) == 0, "behind the oldest open transaction"
            act(early, "j-1")
        assert await scene.publish_all(relay) == 2
    listener.await_ids(scene.event_ids(db))
    assert [event["event"] for event in listener.events] == ["dead", "requeued"]
    assert len(listener.raw) == 2


@pytest.mark.usefixtures("page")
async def test_an_old_transaction_that_cancels_late_is_told_late(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """The same with a cancel, after an attempt that failed for now."""
    insert_job(db)
    async with scene.open_relay(database, kafka) as relay:
        with _open_transaction(database) as early:
            db.execute("INSERT INTO email_tracking (job_id, event_type) SELECT id, 'retry_scheduled' FROM email_jobs")
            _cancel(early, "j-1")
        await scene.publish_all(relay)
    listener.await_ids(scene.event_ids(db))
    assert [event["event"] for event in listener.events] == ["retry_scheduled", "cancelled"]


@pytest.mark.usefixtures("page")
@pytest.mark.parametrize("third", ["before the settle", "after the settle"])
async def test_a_third_transaction_in_between_changes_no_order(
    database: Database, db: Connection, kafka: Broker, listener: Listener, third: str
) -> None:
    """While a third transaction, numbered between the two, is open, nothing is told that has to wait for it."""
    insert_job(db, "j-1")
    insert_job(db, "other")
    async with scene.open_relay(database, kafka) as relay, _Closing() as stack:
        with _open_transaction(database) as early:
            if third == "before the settle":
                late = stack.enter_context(_open_transaction(database))
            _die(db, "j-1")
            if third == "after the settle":
                late = stack.enter_context(_open_transaction(database))
            _requeue(early, "j-1")
        await scene.publish_all(relay)
        _die(late, "other")
        await scene.publish_all(relay)
        _die(db, "j-1")
        stack.close()
        await scene.publish_all(relay)
    listener.await_ids(scene.event_ids(db))
    assert listener.by_job() == scene.ids_by_job(db)
    assert [event["event"] for event in listener.events if event["jobId"] == "j-1"] == ["dead", "requeued", "dead"]
    assert len(listener.raw) == 4, "each event once"


class _Closing(ExitStack):
    """An ExitStack among asynchronous contexts."""

    async def __aenter__(self) -> "_Closing":
        self.__enter__()
        return self

    async def __aexit__(self, *details: object) -> None:
        self.close()


@pytest.mark.usefixtures("page")
async def test_chains_of_old_transactions_are_told_in_their_order(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """Transactions numbered 1 to 6 that act in the order 6 to 1 are told as 6 to 1, job by job."""
    jobs = ["a", "b", "c"]
    for name in jobs:
        insert_job(db, name)
    async with scene.open_relay(database, kafka) as relay, _Closing() as stack:
        opened = [_open_transaction(database) for _ in range(6)]
        acting = [context.__enter__() for context in opened]
        for number in reversed(range(6)):
            for name in jobs:
                (_die if number % 2 else _requeue)(acting[number], name)
            opened[number].__exit__(None, None, None)
            await scene.publish_all(relay)
        stack.close()
    listener.await_ids(scene.event_ids(db))
    assert listener.by_job() == scene.ids_by_job(db)
    assert {name: events(db, name) for name in jobs} == dict.fromkeys(jobs, ["dead", "requeued"] * 3)


async def test_an_old_snapshot_is_refused_rather_than_told_in_the_wrong_order(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """A repeatable read that began before the settle cannot requeue the job: Postgres refuses it."""
    insert_job(db)
    with psycopg.connect(database.server.dsn(database.name)) as early:
        early.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        early.execute("SELECT pg_current_xact_id()")
        _die(db, "j-1")
        with pytest.raises(psycopg.errors.SerializationFailure):
            _requeue(early, "j-1")
    async with scene.open_relay(database, kafka) as relay:
        assert await relay.publish_page() == 1
    listener.await_ids(scene.event_ids(db))
    assert [event["event"] for event in listener.events] == ["dead"]


async def test_an_open_transaction_loses_nothing_and_nothing_is_passed_over(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """Events written early and committed last come, together with all that others committed meanwhile."""
    insert_jobs(db, 100)
    async with scene.open_relay(database, kafka) as relay:
        with _open_transaction(database) as early:
            _die(early, "j-1")
            for number in range(2, 101):
                _die(db, f"j-{number}")
                if number % 10 == 0:
                    assert await relay.publish_page() == 0
        assert await relay.publish_page() == 100
    listener.await_ids(scene.event_ids(db))
    assert len(listener.raw) == 100


async def test_a_transaction_that_is_rolled_back_holds_up_nothing_afterwards(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """What is rolled back is never told; what waited for its end comes then."""
    insert_jobs(db, 2)
    async with scene.open_relay(database, kafka) as relay:
        with database.connect() as early, early.transaction(force_rollback=True):
            _die(early, "j-1")
            _die(db, "j-2")
            assert await relay.publish_page() == 0
        assert await relay.publish_page() == 1
    listener.await_ids(scene.event_ids(db))
    assert [event["jobId"] for event in listener.events] == ["j-2"]


def test_a_settle_that_waited_for_its_claim_writes_behind_what_it_waited_for(
    database: Database, db: Connection
) -> None:
    """The worker's own statement puts an event behind the earlier ones of its job, however old its transaction is."""
    insert_job(db)
    parameters = connection_parameters(database.settings(), "test")
    with psycopg.connect(**parameters) as early:
        early.execute("SELECT pg_current_xact_id()")
        _die(db, "j-1")
        _requeue(db, "j-1")
        identity = value(db, "SELECT id::text FROM email_jobs")
        early.execute("SELECT FROM email_jobs FOR UPDATE")
        columns = {
            "ids": [identity],
            "statuses": ["sent"],
            "events": ["sent"],
            "attempt_nos": [2],
            "retries": [0],
            "delays": [None],
            "providers": ["smtp"],
            "message_ids": ["m"],
            "errors": [None],
            "turns": [None],
        }
        early.execute(query("settle_jobs"), columns)
        early.commit()
    assert value(db, "SELECT array_agg(event_type::text ORDER BY xid, seq) FROM email_tracking") == [
        "dead",
        "requeued",
        "sent",
    ]
