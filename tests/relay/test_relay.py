"""The relay page by page: what an event says, who is the active one, and Kafka away."""

import asyncio
import signal
from typing import Any

import msgspec
import psycopg
import pytest
from structlog.testing import capture_logs

from lab.kafka import Broker
from tests.integration.rows import Connection, end_job, insert_job, insert_jobs, rows, value
from tests.relay import scene
from tests.relay.listener import Listener
from tests.support import Database
from worker import relay as relay_module
from worker.db import query
from worker.errors import KafkaUnusable
from worker.events import EventMessage, event_schema
from worker.job import Event


def _settle_all(db: Connection, status: str = "sent") -> None:
    """One event for each job, as one settle."""
    db.execute(
        "WITH ended AS (UPDATE email_jobs SET status = %(status)s::text::email_status RETURNING id)"
        " INSERT INTO email_tracking (job_id, event_type) SELECT id, %(status)s::text::email_event FROM ended",
        {"status": status},
    )


async def test_each_kind_of_event_is_told_by_the_schema(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """Each event type comes as JSON by the published schema, under the job_id as its key."""
    insert_job(db, "j-1")
    for event in Event:
        db.execute(
            "INSERT INTO email_tracking (job_id, event_type, provider, message_id, event_data)"
            " SELECT id, %s, 'smtp', '<m@example.org>', '{\"attempt\": 2}' FROM email_jobs",
            (event,),
        )
    async with scene.open_relay(database, kafka) as relay:
        assert await relay.publish_page() == len(Event)
    listener.await_ids(scene.event_ids(db))
    assert [event["event"] for event in listener.events] == [str(event) for event in Event]
    assert {key for key, _ in listener.raw} == {"j-1"}
    schema = event_schema()["$defs"]["EventMessage"]
    for _, content in listener.raw:
        fields: dict[str, Any] = msgspec.json.decode(content)
        assert fields.keys() <= schema["properties"].keys()
        assert fields.keys() >= set(schema["required"])
        decoded = msgspec.json.decode(content, type=EventMessage)
        assert (decoded.version, decoded.job_id, decoded.type) == (1, "j-1", "booking-confirmation")
        assert (decoded.provider, decoded.message_id, decoded.attempt) == ("smtp", "<m@example.org>", 2)
        assert decoded.occurred_at.tzinfo is not None
    occurred = rows(db, "SELECT id::text, occurred_at FROM email_tracking ORDER BY seq")
    assert [(e.id, e.occurred_at) for e in (_read(content) for _, content in listener.raw)] == occurred


def _read(content: bytes) -> EventMessage:
    return msgspec.json.decode(content, type=EventMessage)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("smtp refused it: 550 5.1.1 no mailbox ann@example.com here", "550 5.1.1"),
        ("550-5.7.26 unauthenticated mail from ann@example.com", "550-5.7.26"),
        ("451 try later, Ann Lee", "451"),
        ("no answer from ann1234@example.com", None),
        ("call 5551234567", None),
    ],
)
async def test_of_a_reason_only_the_code_is_told(
    database: Database, db: Connection, kafka: Broker, listener: Listener, reason: str, code: str | None
) -> None:
    """Whatever a server's words held, an event has its status code and nothing else of them, nor of the mail."""
    private = {
        "recipient_email": "ann@example.com",
        "recipient_name": "Ann Lee",
        "subject": "Your bill",
        "content": "<p>x</p>",
    }
    insert_job(db, "j-1", data='{"secret": "s-3"}', **private)
    end_job(db, "dead", error_message=reason)
    db.execute("UPDATE email_tracking SET event_data = jsonb_build_object('reason', %s::text, 'attempt', 1)", (reason,))
    async with scene.open_relay(database, kafka) as relay:
        assert await relay.publish_page() == 1
    listener.await_ids(scene.event_ids(db))
    ((_, content),) = listener.raw
    assert _read(content).code == code
    for text in (*private.values(), "s-3", "ann", "Ann", "mailbox", "1234"):
        assert text.encode() not in content


async def test_pages_follow_each_other_without_a_gap(
    database: Database, db: Connection, kafka: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut anywhere, also within one transaction's events, pages make up the whole, each event once."""
    monkeypatch.setattr(relay_module, "PAGE", 7)
    insert_jobs(db, 20)
    _settle_all(db)
    for number in range(1, 6):
        db.execute("SELECT email_requeue(%s)", (f"j-{number}",))
    async with scene.open_relay(database, kafka) as relay:
        assert [await relay.publish_page() for _ in range(5)] == [7, 7, 7, 4, 0]
    listener.await_ids(scene.event_ids(db))
    assert len(listener.raw) == 25
    assert listener.by_job() == scene.ids_by_job(db)


@pytest.mark.parametrize("ahead", [50, 1_000_000_000])
async def test_after_a_restore_the_relay_waits_until_it_is_told_where_to_go_on(
    database: Database, db: Connection, kafka: Broker, listener: Listener, ahead: int
) -> None:
    """In a cluster that counts anew nothing is passed over, also when it has counted beyond the place of before."""
    insert_jobs(db, 10)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as relay:
        assert await scene.publish_all(relay) == 10
        await relay.leave()
        db.execute("SELECT email_requeue('j-1')")
        # As pg_restore leaves it, from a cluster that had counted further.
        db.execute(f"UPDATE email_tracking SET xid = (xid::text::bigint + {ahead})::text::xid8".encode())
        db.execute(f"UPDATE email_relay SET xid = (xid::text::bigint + {ahead})::text::xid8".encode())
        db.execute("UPDATE email_relay SET cluster = 17, published_at = published_at - interval '1 hour'")
        db.execute("SELECT email_requeue('j-2')")
        for _ in range(60):
            db.execute("SELECT pg_current_xact_id()")
        with capture_logs() as lines:
            assert await relay.publish_page() is None
        assert any("email_relay_rebase()" in line["event"] for line in lines)
        assert 3600 <= value(db, query("relay_lag").decode()) < 4000
        with pytest.raises(psycopg.DatabaseError, match="of another cluster"):
            db.execute("SELECT email_purge(90, 1000, true)")
        assert value(db, "SELECT email_relay_rebase()") == 2
        assert await scene.publish_all(relay) == 2
        db.execute("SELECT email_requeue('j-3')")
        assert await scene.publish_all(relay) == 1
    listener.await_ids(scene.event_ids(db))
    assert len(listener.raw) == 13
    assert listener.by_job() == scene.ids_by_job(db)
    with pytest.raises(psycopg.DatabaseError, match="nothing to mend"):
        db.execute("SELECT email_relay_rebase()")


async def test_an_event_of_others_with_an_odd_attempt_stops_nobody(
    database: Database, db: Connection, kafka: Broker, listener: Listener
) -> None:
    """What stands in event_data is whatever its writer put there."""
    insert_job(db)
    for odd in ('{"attempt": "x-1"}', '{"attempt": 99999999999}', '{"attempt": [1]}', '{"attempt": -1}', "[]"):
        db.execute(
            "INSERT INTO email_tracking (job_id, event_type, event_data) SELECT id, 'opened', %s FROM email_jobs",
            (odd,),
        )
    async with scene.open_relay(database, kafka) as relay:
        assert await scene.publish_all(relay) == 5
    listener.await_ids(scene.event_ids(db))


async def test_one_relay_is_active_until_it_leaves(database: Database, db: Connection, kafka: Broker) -> None:
    """While one holds the lease another publishes nothing; when it leaves, the other goes on where it was."""
    insert_jobs(db, 2)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as one, scene.open_relay(database, kafka) as two:
        assert await one.publish_page() == 2
        assert await two.publish_page() is None
        await one.leave()
        assert await two.publish_page() == 0
        assert await one.publish_page() is None


async def test_the_lease_of_a_dead_relay_passes(database: Database, db: Connection, kafka: Broker) -> None:
    """A relay that is never heard of again is followed by another one when its lease is over, not before."""
    insert_jobs(db, 2)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as dead, scene.open_relay(database, kafka) as next_one:
        assert await dead.publish_page() == 2
        assert await next_one.publish_page() is None
        assert value(db, "SELECT held_until > clock_timestamp() FROM email_relay")
        scene.let_lease_pass(db)
        db.execute("SELECT email_requeue('j-1')")
        assert await next_one.publish_page() == 1


async def test_a_relay_that_lost_its_lease_does_not_move_the_place(
    database: Database, db: Connection, kafka: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overtaken while it waits for Kafka, a relay leaves the place where its successor has put it, and stops."""
    insert_jobs(db, 2)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as zombie, scene.open_relay(database, kafka) as successor:
        publish = zombie._publish

        async def overtaken(found: Any) -> None:
            scene.let_lease_pass(db)
            assert await successor.publish_page() == 2
            db.execute("SELECT email_requeue('j-1')")
            assert await successor.publish_page() == 1
            await publish(found)

        monkeypatch.setattr(zombie, "_publish", overtaken)
        assert await zombie.publish_page() is None
        last = rows(db, "SELECT xid::text, seq FROM email_tracking ORDER BY xid DESC, seq DESC LIMIT 1")
        assert [scene.place(db)] == last
        assert await zombie.publish_page() is None
        assert await successor.publish_page() == 0
    listener.await_ids(scene.event_ids(db))
    assert listener.by_job() == scene.ids_by_job(db), "repeated, but in order for who drops repetitions"


async def test_a_broker_that_dies_keeps_the_place_where_it_is(
    database: Database, db: Connection, kafka: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Kafka never acknowledged is published when Kafka is back, by the same relay, and nothing is passed over."""
    if not kafka.controllable:
        pytest.skip("the broker is not ours to kill")
    monkeypatch.setattr(relay_module, "ACKNOWLEDGED_SECONDS", 1.0)
    insert_jobs(db, 3)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as relay:
        assert await relay.publish_page() == 3
        before = scene.event_ids(db)
        listener.await_ids(before)
        reached = scene.place(db)
        kafka.kill()
        db.execute("SELECT email_requeue('j-1')")
        for _ in range(2):
            with pytest.raises(KafkaUnusable):
                await relay.publish_page()
        assert scene.place(db) == reached
        kafka.start()
        kafka.create_topic(kafka.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], 3)
        async with asyncio.timeout(30):
            while not await _published(relay):
                pass
        listener.reopen()
        listener.await_ids(scene.event_ids(db) - before)
        assert scene.place(db) != reached


async def _published(relay: relay_module.Relay) -> bool:
    """Whether a page went out."""
    try:
        return bool(await relay.publish_page())
    except KafkaUnusable:
        return False


UNPUBLISHED = "SELECT count(*) FROM email_tracking AS t, email_relay AS r WHERE (t.xid, t.seq) > (r.xid, r.seq)"


async def test_a_broker_that_stops_answering_costs_no_event(
    database: Database, db: Connection, kafka: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that hangs is an error in bounded time, and when it answers again each job's events are in order."""
    if kafka.process is None:
        pytest.skip("the broker is not ours to stop")
    monkeypatch.setattr(relay_module, "ACKNOWLEDGED_SECONDS", 1.0)
    insert_jobs(db, 50)
    _settle_all(db)
    async with scene.open_relay(database, kafka) as relay:
        assert await relay.publish_page() == 50
        for number in range(1, 51):
            db.execute("SELECT email_requeue(%s)", (f"j-{number}",))
        kafka.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(KafkaUnusable):
                await relay.publish_page()
        finally:
            kafka.process.send_signal(signal.SIGCONT)
        _settle_all(db)
        async with asyncio.timeout(30):
            # On a busy machine more than one page may run out of its second.
            while value(db, UNPUBLISHED):
                await _published(relay)
    listener.await_ids(scene.event_ids(db))
    assert listener.by_job() == scene.ids_by_job(db)
