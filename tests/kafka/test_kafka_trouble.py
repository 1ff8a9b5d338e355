"""Postgres or Kafka is away, slow or frozen, and the group is rebalanced: nothing is lost, and nobody is thrown out."""

import signal
from collections.abc import Callable
from itertools import chain

import psycopg
import pytest
from confluent_kafka import KafkaException

from lab.postgres import PostgresServer
from tests.kafka import scene
from tests.kafka.ingestor import Ingestor
from tests.support import eventually

AWAY = "Postgres is away; nothing is read meanwhile"
# A pause that is logged when Postgres has been away for longer than the session of a group member lasts.
LONG_PAUSE_SECONDS = 3.0
SESSION_SECONDS = 6

Harm = Callable[[PostgresServer], None]


def _stop(server: PostgresServer) -> None:
    server.stop("fast")


def _crash(server: PostgresServer) -> None:
    server.kill()


def _was_away_for_long(ingestor: Ingestor) -> bool:
    return any(line["pause"] > LONG_PAUSE_SECONDS for line in ingestor.lines(AWAY))


def _stayed_in_the_group(ingestor: Ingestor) -> bool:
    return len(ingestor.lines("assigned")) == 1 and not ingestor.lines("revoked")


@pytest.mark.parametrize("harm", [_stop, _crash])
def test_postgres_is_away_while_messages_come(
    frail_road: scene.Road, frail_postgres: PostgresServer, harm: Harm
) -> None:
    """Longer away than a session lasts: the member keeps its place, and everything arrives when Postgres is back."""
    road = frail_road
    ingestor = road.start().reads()
    road.produce([scene.message(name) for name in scene.ids("before", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    harm(frail_postgres)
    road.produce([*(scene.message(name) for name in scene.ids("meanwhile", 300)), b"garbage"])
    eventually(lambda: _was_away_for_long(ingestor), "the ingestor waits for Postgres")
    frail_postgres.start()
    road.connect_again()
    road.produce([scene.message(name) for name in scene.ids("after", 30)])
    road.wait_for_jobs(*scene.ids("before", 30), *scene.ids("meanwhile", 300), *scene.ids("after", 30))
    road.wait_for_offsets({0: 121, 1: 120, 2: 120})
    assert [raw for _, raw, _ in road.rejects()] == [b"garbage"]
    assert _stayed_in_the_group(ingestor), ingestor.log_text()
    assert ingestor.stop() == 0
    assert ingestor.counts() == {"accepted": 360, "duplicate": 0, "rejected": 1}


def test_it_can_be_stopped_while_postgres_is_away(frail_road: scene.Road, frail_postgres: PostgresServer) -> None:
    """SIGTERM ends it in order; what it held is read again by the next one."""
    road = frail_road
    ingestor = road.start_fixed().reads()
    frail_postgres.stop("fast")
    road.produce([scene.message(name) for name in scene.ids("job", 30)])
    eventually(lambda: ingestor.lines(AWAY), "the ingestor waits for Postgres")
    assert ingestor.stop() == 0
    frail_postgres.start()
    road.connect_again()
    assert road.jobs() == set()
    road.start_fixed()
    road.wait_for_jobs(*scene.ids("job", 30))


@pytest.mark.parametrize("is_idle", [False, True], ids=["writing", "idle"])
def test_it_can_be_stopped_while_postgres_is_frozen(
    frail_road: scene.Road, frail_postgres: PostgresServer, is_idle: bool
) -> None:
    """A server that answers nothing, to a batch or to a look at the offsets, does not keep it from ending."""
    road = frail_road
    ingestor = road.start_fixed().reads()
    road.db.close()
    frail_postgres.freeze()
    if not is_idle:
        road.produce([scene.message(name) for name in scene.ids("job", 30)])
    eventually(lambda: ingestor.lines("Postgres is slow; nothing is read meanwhile"), "it waits for Postgres")
    assert ingestor.stop() == 0
    frail_postgres.thaw()
    road.connect_again()
    assert road.jobs() == set()
    road.start_fixed().reads()
    if not is_idle:
        road.wait_for_jobs(*scene.ids("job", 30))


def test_it_can_be_started_while_postgres_is_away(frail_road: scene.Road, frail_postgres: PostgresServer) -> None:
    """It joins the group, waits for Postgres to say where to go on, and reads when it does."""
    road = frail_road
    frail_postgres.stop("fast")
    road.produce([scene.message(name) for name in scene.ids("job", 30)])
    ingestor = road.start()
    eventually(lambda: _was_away_for_long(ingestor), "the ingestor waits for Postgres")
    frail_postgres.start()
    road.connect_again()
    road.wait_for_jobs(*scene.ids("job", 30))
    assert _stayed_in_the_group(ingestor), ingestor.log_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"},
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CA_LOCATION": "/nowhere/ca.pem"},
    ],
)
def test_what_kafka_cannot_be_told_is_a_wrong_setting(road: scene.Road, wrong: dict[str, str]) -> None:
    """It ends with status 2 and words, not with a library's traceback."""
    ingestor = road.start(**wrong)
    assert ingestor.status() == 2
    assert "wrong settings" in ingestor.log_text()
    assert "KAFKA_" in ingestor.log_text()
    assert "Traceback" not in ingestor.log_text()


def test_a_database_of_a_newer_version_is_one_line(road: scene.Road) -> None:
    """An ingestor that does not know the schema ends with what to do, and has stored nothing."""
    road.db.execute("INSERT INTO email_schema (name, checksum) VALUES ('9999_of_tomorrow.sql', '')")
    road.produce([scene.message("waits")])
    ingestor = road.start()
    assert ingestor.process.wait(30) == 1
    said = [line for line in ingestor.log_text().splitlines() if line.startswith("kafka_ingest: ")]
    assert len(said) == 1
    assert said[0].endswith("Run that version, or a newer one.")
    assert road.jobs() == set()
    road.db.execute("DELETE FROM email_schema WHERE name = '9999_of_tomorrow.sql'")
    road.start()
    road.wait_for_jobs("waits")


def test_postgres_is_frozen_for_a_while(frail_road: scene.Road, frail_postgres: PostgresServer) -> None:
    """A server that keeps its connections and does not answer costs the member neither its place nor a message."""
    road = frail_road
    members = [road.start(), road.start()]
    road.wait_until_shared(*members)
    road.db.close()
    frail_postgres.freeze()
    road.produce([scene.message(name) for name in scene.ids("job", 300)])
    # Another member that comes needs an answer of both, which they can give without Postgres.
    third = road.start()
    eventually(lambda: third.lines("assigned"), "the group is served")
    frail_postgres.thaw()
    road.connect_again()
    road.wait_for_jobs(*scene.ids("job", 300))


def test_postgres_is_slow(road: scene.Road) -> None:
    """A write that waits for longer than a session lasts is waited for, and the member keeps its place."""
    ingestor = road.start().reads()
    with road.database.connect() as other, other.transaction():
        other.execute("LOCK TABLE email_jobs IN ACCESS EXCLUSIVE MODE")
        road.produce([scene.message(name) for name in scene.ids("job", 300)])
        eventually(lambda: _waits_for_long(road.db), "a write waits")
    road.wait_for_jobs(*scene.ids("job", 300))
    road.produce([scene.message("last")])
    road.wait_for_jobs(*scene.ids("job", 300), "last")
    assert _stayed_in_the_group(ingestor), ingestor.log_text()
    assert ingestor.stop() == 0
    assert ingestor.counts() == {"accepted": 301, "duplicate": 0, "rejected": 0}


def _waits_for_long(db: psycopg.Connection[tuple[object, ...]]) -> bool:
    return db.execute(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name LIKE 'email-worker kafka%%'"
        " AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > make_interval(secs => %s)",
        (SESSION_SECONDS + 2,),
    ).fetchone() == (True,)


@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_the_broker_is_away_at_the_start(own_broker_road: scene.Road, mode: str) -> None:
    """An ingestor that starts before its broker waits, and reads when topic and messages are there."""
    road = own_broker_road
    road.broker.kill()
    ingestor = road.start_fixed() if mode == "fixed" else road.start()
    eventually(lambda: "brokers are down" in ingestor.log_text() or "does not answer" in ingestor.log_text(), "waits")
    road.broker.start()
    road.create_topics()
    road.produce([scene.message(name) for name in scene.ids("job", 30)])
    road.wait_for_jobs(*scene.ids("job", 30), seconds=60)
    assert ingestor.stop() == 0


@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_the_broker_is_away_for_a_while(own_broker_road: scene.Road, mode: str) -> None:
    """A broker that does not answer for longer than a session, and then does, has lost nothing, and nor have we."""
    road = own_broker_road
    ingestor = (road.start_fixed() if mode == "fixed" else road.start()).reads()
    road.produce([scene.message(name) for name in scene.ids("before", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    assert road.broker.process is not None
    road.broker.process.send_signal(signal.SIGSTOP)
    admin = road.admin()
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=SESSION_SECONDS + 2)
    assert ingestor.process.poll() is None
    road.broker.process.send_signal(signal.SIGCONT)
    road.produce([scene.message(name) for name in scene.ids("after", 30)])
    road.wait_for_jobs(*scene.ids("before", 30), *scene.ids("after", 30), seconds=90)
    assert ingestor.stop() == 0


@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_it_can_be_stopped_while_the_broker_is_away(own_broker_road: scene.Road, mode: str) -> None:
    """What is in Postgres counts, so an ingestor ends in order without the broker's consent."""
    road = own_broker_road
    ingestor = (road.start_fixed() if mode == "fixed" else road.start()).reads()
    road.produce([scene.message("job")])
    road.wait_for_jobs("job")
    road.broker.kill()
    assert ingestor.stop(seconds=30) == 0
    assert len(ingestor.lines("stopped")) == 1


def test_members_that_come_and_go_while_messages_come(road: scene.Road) -> None:
    """A second one joins and leaves, a third joins and is killed: each message is one job, and none is read twice."""
    first = road.start().reads()
    parts = [scene.ids(f"part-{number}", 300) for number in range(5)]
    batches = iter(parts)

    def produce() -> None:
        road.produce([scene.message(name) for name in next(batches)])

    produce()
    second = road.start()
    produce()
    road.wait_until_shared(first, second)
    produce()
    assert second.stop() == 0
    road.wait_until_shared(first)
    third = road.start()
    produce()
    road.wait_until_shared(first, third)
    third.kill()
    produce()
    road.wait_for_jobs(*chain(*parts), seconds=60)
    road.wait_for_offsets({0: 500, 1: 500, 2: 500})
    assert first.stop() == 0
    assert (first.counts() + second.counts() + third.counts())["duplicate"] == 0
