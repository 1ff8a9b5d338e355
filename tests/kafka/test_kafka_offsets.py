"""Where a topic is read on: topics that were made again, offsets outside the log, resets, and the fence of epochs."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import TopicPartition

from kafka_ingest import offsets
from kafka_ingest.offsets import Held, Log, Topic
from kafka_ingest.writer import Batch, Item, Written, write
from tests.integration.command import Command
from tests.kafka import scene
from tests.support import Database, eventually
from worker.db import connect_once
from worker.intake import Result
from worker.message import read_or_error

TOPIC = Topic("unit", "id-1")
OUTSIDE = "an offset lies outside the partition's log: messages are gone, or the log is another"
MOVED = "the topic was made again, or somebody moved its offsets"


def test_a_topic_that_is_made_again_is_read_from_its_beginning(road: scene.Road) -> None:
    """A running ingestor notices the new topic by its id, reads it from 0, and keeps the old one's offsets apart."""
    if not road.broker.is_real:
        pytest.skip("real Kafka only: tansu answers for a deleted topic without its id, and librdkafka 2.16 dies of it")
    ingestor = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("old", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    road.delete_jobs_topic()
    road.create_topics()
    road.produce([scene.message(name) for name in scene.ids("new", 3)])
    road.wait_for_jobs(*scene.ids("old", 30), *scene.ids("new", 3), seconds=60)
    road.wait_for_offsets({0: 1, 1: 1, 2: 1})
    assert ingestor.lines("reading")[-1]["offsets"] == {"0": 0, "1": 0, "2": 0}
    assert road.db.execute("SELECT count(DISTINCT topic_id) FROM ingest_offsets").fetchone() == (2,)


def test_a_topic_that_is_made_again_while_nobody_reads(road: scene.Road) -> None:
    """An ingestor that starts later finds another topic id, and begins at 0 although the new log is longer."""
    first = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("old", 3)])
    road.wait_for_offsets({0: 1, 1: 1, 2: 1})
    assert first.stop() == 0
    road.delete_jobs_topic()
    road.create_topics()
    road.produce([scene.message(name) for name in scene.ids("new", 9)])
    road.start_fixed()
    road.wait_for_jobs(*scene.ids("old", 3), *scene.ids("new", 9))


@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_a_broker_that_forgets_everything(own_broker_road: scene.Road, mode: str) -> None:
    """Killed and started again empty, it has a topic of another id: a running ingestor reads that one from 0."""
    road = own_broker_road
    ingestor = road.start_fixed() if mode == "fixed" else road.start()
    road.produce([scene.message(name) for name in scene.ids("old", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    road.broker.kill()
    road.broker.start()
    road.create_topics()
    road.produce([scene.message(name) for name in scene.ids("new", 6)])
    road.wait_for_jobs(*scene.ids("old", 30), *scene.ids("new", 6), seconds=90)
    assert ingestor.stop() == 0


def test_an_offset_behind_the_end_of_the_log(road: scene.Road) -> None:
    """It is told at error, with what stood there and what the log holds, and reading goes on at the log's end."""
    first = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("before", 9)])
    road.wait_for_offsets({0: 3, 1: 3, 2: 3})
    assert first.stop() == 0
    road.reset(1000, 1)
    second = road.start_fixed().reads()
    road.produce([scene.message(name) for name in scene.ids("after", 3)])
    road.wait_for_jobs(*scene.ids("before", 9), *scene.ids("after", 3))
    road.wait_for_offsets({0: 4, 1: 4, 2: 4})
    (line,) = second.lines(OUTSIDE)
    assert {
        key: line[key] for key in ("level", "partition", "next_offset", "log_begins", "log_ends", "goes_on_at")
    } == {
        "level": "error",
        "partition": 1,
        "next_offset": 1000,
        "log_begins": 0,
        "log_ends": 3,
        "goes_on_at": 3,
    }


def test_an_offset_before_the_beginning_of_the_log(road: scene.Road) -> None:
    """Where Kafka has deleted what was not read yet, that is told at error, and reading goes on with what is left."""
    if not road.broker.is_real:
        pytest.skip("real Kafka only: tansu does not delete records")
    first = road.start_fixed()
    road.produce([scene.message("read")], partition=0)
    road.wait_for_offsets({0: 1, 1: 0, 2: 0})
    assert first.stop() == 0
    road.produce([scene.message(name) for name in scene.ids("gone", 5)], partition=0)
    admin = road.admin()
    admin.delete_records([TopicPartition(road.topic, 0, 6)])[TopicPartition(road.topic, 0)].result(10)
    road.produce([scene.message("left")], partition=0)
    second = road.start_fixed()
    road.wait_for_jobs("read", "left")
    (line,) = second.lines(OUTSIDE)
    assert (line["next_offset"], line["goes_on_at"]) == (1, 6)


def test_records_that_vanish_under_a_reader(road: scene.Road) -> None:
    """The broker's out-of-range error in the middle of reading does not stop an ingestor."""
    if not road.broker.is_real:
        pytest.skip("real Kafka only: tansu reports no offset out of range")
    road.start_fixed().reads()
    admin = road.admin()
    for name in scene.ids("job", 20):
        road.produce([scene.message(name)], partition=0)
        admin.delete_records([TopicPartition(road.topic, 0, -1)])[TopicPartition(road.topic, 0)].result(10)
    road.produce([scene.message("last")], partition=0)
    eventually(lambda: "last" in road.jobs(), "the last one arrives")


@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_a_reset_is_followed_by_a_running_ingestor_that_is_idle(road: scene.Road, mode: str) -> None:
    """email_ingest_reset() needs no restart and no new message: all is read again, and job_id makes it harmless."""
    ingestor = road.start_fixed() if mode == "fixed" else road.start()
    road.produce([*(scene.message(name) for name in scene.ids("job", 30)), b"garbage", b"rubbish", b"waste"])
    road.wait_for_offsets({0: 11, 1: 11, 2: 11})
    assert road.reset(0) == {0: 11, 1: 11, 2: 11}
    eventually(lambda: ingestor.lines(MOVED), "the ingestor notices")
    road.wait_for_offsets({0: 11, 1: 11, 2: 11})
    assert ingestor.stop() == 0
    assert ingestor.counts() == {"accepted": 30, "duplicate": 30, "rejected": 6}
    assert len(road.rejects()) == 3
    assert road.jobs() == set(scene.ids("job", 30))


def test_a_reset_of_one_partition_to_the_middle(road: scene.Road) -> None:
    """Only that partition is read again, and only from there."""
    ingestor = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("job", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    assert road.reset(7, 1) == {1: 10}
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    assert ingestor.stop() == 0
    assert ingestor.counts() == {"accepted": 30, "duplicate": 3, "rejected": 0}


def test_the_command_refuses_an_offset_beyond_the_log(
    road: scene.Road, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A slip of the hand would pass over what is not there yet; within the log it moves the offset."""
    road.produce([scene.message(name) for name in scene.ids("job", 12)], partition=1)
    road.start().reads()
    road.wait_for_jobs(*scene.ids("job", 12))
    command = Command(monkeypatch, capsys, tmp_path)
    reset = partial(command, "ingest", "offsets", "reset", road.topic, **road.environment())
    refused = reset("--partition", "1", "--to", "1000")
    assert refused.status == 1
    assert f"1,000 lies beyond the log of {road.topic}: partition 1 ends at " in refused.err
    assert reset("--partition", "1", "--to", "3").out == f"{road.topic}/1: from 12 to 3\n"
    away = reset("--to", "3", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    assert (away.status, away.err.startswith("not compared with the log: ")) == (0, True)


def test_a_reset_while_messages_come(road: scene.Road) -> None:
    """A reset in the middle of the reading loses nothing, and the ingestor goes on from where it was put."""
    road.start_fixed().reads()
    names = scene.ids("job", 600)
    for start in range(0, 600, 100):
        road.produce([scene.message(name) for name in names[start : start + 100]])
        road.reset(0)
    road.wait_for_jobs(*names)
    road.wait_for_offsets({0: 204, 1: 198, 2: 198})


# The writer alone.

Connect = Callable[[], psycopg.Connection[tuple[object, ...]]]


def _items(first: int, last: int, partition: int = 0) -> list[Item]:
    """Messages of these offsets, the last one excluded; the offset is the job's name."""
    raws = {offset: scene.message(f"{partition}-{offset}") for offset in range(first, last)}
    return [Item(partition, offset, raw, read_or_error(raw)) for offset, raw in raws.items()]


def _batch(items: Sequence[Item], epoch: int = 0) -> Batch:
    ends = {item.partition: item.offset + 1 for item in items}
    return Batch(TOPIC, items, ends, dict.fromkeys(ends, epoch))


@pytest.fixture
def connect(database: Database) -> Connect:
    """Makes connections as an ingestor has them; partition 0 of the topic is known and starts at 0."""

    def connected() -> psycopg.Connection[tuple[object, ...]]:
        return connect_once(database.settings(), "tests")

    with closing(connected()) as connection:
        assert offsets.place(connection, TOPIC, 0, Log(0, 100), None) == Held(0, 0)
    return connected


def _state(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[set[str], Held]:
    """The jobs that are stored, and how far partition 0 has been read."""
    jobs = {str(job_id) for (job_id,) in connection.execute("SELECT job_id FROM email_jobs").fetchall()}
    return jobs, offsets.lock(connection, TOPIC, [0])[0]


def test_a_stale_epoch_writes_nothing_and_says_so(connect: Connect) -> None:
    """Whoever does not know that the offset was moved writes no row and no offset of that partition."""
    with closing(connect()) as connection:
        connection.execute("SELECT * FROM email_ingest_reset(%s, 0)", (TOPIC.name,)).fetchall()
        written = write(connection, _batch(_items(0, 3)))
        assert written == Written(dict.fromkeys(Result, 0), [], {}, frozenset({0}))
        assert _state(connection) == (set(), Held(0, 1))
        assert write(connection, _batch(_items(0, 3), epoch=1)).counts[Result.ACCEPTED] == 3


def test_an_end_of_the_log_that_is_old_by_now_moves_nothing(connect: Connect) -> None:
    """Another holder of the partition read on beyond it meanwhile: nothing is lost, nobody's epoch is raised."""
    with closing(connect()) as connection:
        before = offsets.read(connection, TOPIC)[0]
        offsets.lock(connection, TOPIC, [0])
        offsets.advance(connection, TOPIC, {0: 150})
        assert offsets.place(connection, TOPIC, 0, Log(0, 100), before) is None
        assert offsets.read(connection, TOPIC)[0] == Held(150, 0)
        assert offsets.place(connection, TOPIC, 0, Log(0, 100), Held(150, 0)) == Held(100, 1)


def test_a_stale_partition_costs_the_others_nothing(connect: Connect) -> None:
    """In a batch of two partitions only the one that was moved is left out."""
    with closing(connect()) as connection:
        offsets.place(connection, TOPIC, 1, Log(0, 100), None)
        connection.execute("SELECT * FROM email_ingest_reset(%s, 0, 1)", (TOPIC.name,)).fetchall()
        written = write(connection, _batch([*_items(0, 2, 0), *_items(0, 2, 1)]))
        assert (written.next_offsets, written.stale) == ({0: 2}, frozenset({1}))
        assert _state(connection) == ({"0-0", "0-1"}, Held(2, 0))


def test_an_unknown_partition_is_stale(connect: Connect) -> None:
    """A partition that was never placed, or whose row somebody deleted, is not written."""
    with closing(connect()) as connection:
        written = write(connection, _batch(_items(0, 2, 5)))
        assert written.stale == frozenset({5})
        assert _state(connection)[0] == set()


def test_an_overlapping_batch_stores_only_what_is_new(connect: Connect) -> None:
    """What another holder of the partition has stored is behind the offset: it is not even counted as a duplicate."""
    with closing(connect()) as one, closing(connect()) as other:
        write(one, _batch(_items(0, 5)))
        written = write(other, _batch(_items(2, 8)))
        assert (written.counts[Result.ACCEPTED], written.counts[Result.DUPLICATE]) == (3, 0)
        assert _state(one) == ({f"0-{offset}" for offset in range(8)}, Held(8, 0))


def test_offsets_never_go_back(connect: Connect) -> None:
    """A batch that lies wholly behind the offset leaves it where it is, and reports nothing as moved."""
    with closing(connect()) as connection:
        write(connection, _batch(_items(0, 9)))
        written = write(connection, _batch(_items(0, 4)))
        assert (written.next_offsets, written.stale) == ({}, frozenset())
        offsets.advance(connection, TOPIC, {0: 2})
        assert _state(connection)[1] == Held(9, 0)


def test_two_that_write_the_same_partition_at_once(connect: Connect) -> None:
    """Two holders of a partition, in batches that overlap each other's: each row is stored, and accepted, once."""
    begin = threading.Barrier(2)
    last = 400

    def read_on(step: int) -> int:
        accepted = 0
        with closing(connect()) as connection:
            begin.wait(10)
            for first in range(0, last, step):
                counts = write(connection, _batch(_items(first, min(first + step, last)))).counts
                assert counts[Result.DUPLICATE] == 0
                accepted += counts[Result.ACCEPTED]
        return accepted

    with ThreadPoolExecutor(2) as threads:
        accepted = list(threads.map(read_on, (3, 7)))
    with closing(connect()) as connection:
        assert _state(connection) == ({f"0-{offset}" for offset in range(last)}, Held(last, 0))
    assert sum(accepted) == last


def test_the_second_waits_for_the_first(connect: Connect) -> None:
    """While one holder's transaction is open, another one's write of the same partition waits for its row's lock."""
    with closing(connect()) as one, closing(connect()) as other, ThreadPoolExecutor(1) as thread:
        with one.transaction():
            write(one, _batch(_items(0, 3)))
            writing = thread.submit(write, other, _batch(_items(0, 5)))
            eventually(lambda: _waits_for_a_lock(one, other), "the second one waits")
            assert not writing.done()
        counts = writing.result(10).counts
        assert (counts[Result.ACCEPTED], counts[Result.DUPLICATE]) == (2, 0)


def _waits_for_a_lock(
    watching: psycopg.Connection[tuple[object, ...]], other: psycopg.Connection[tuple[object, ...]]
) -> bool:
    return watching.execute("SELECT pg_blocking_pids(%s) <> '{}'", (other.info.backend_pid,)).fetchone() == (True,)
