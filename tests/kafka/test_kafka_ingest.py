"""The road from a Kafka topic into the queue: what arrives, what does not, and how an ingestor starts and ends."""

import json
import signal
from collections.abc import Mapping

import pytest

from tests.kafka import scene
from tests.support import eventually

MEGABYTE = 1_000_000
# What a producer of large messages needs; a real topic has to allow them too.
LARGE = {"message.max.bytes": 10 * MEGABYTE}
LARGEST_DEAD_LETTER_BYTES = 900_000


def test_messages_become_jobs(road: scene.Road) -> None:
    """Each message of each partition is one job of the source kafka, with the message's fields as columns."""
    road.start_fixed()
    road.produce([scene.message(name, data={"code": 7}, priority="low") for name in scene.ids("job", 9)])
    road.wait_for_jobs(*scene.ids("job", 9))
    stored = road.db.execute(
        "SELECT DISTINCT type, source, data->>'code', priority::text, recipient_email, status::text FROM email_jobs"
    ).fetchall()
    assert stored == [("password-reset", "kafka", "7", "low", "ann@example.com", "pending")]


def test_the_same_job_twice_is_one_row(road: scene.Road) -> None:
    """A job_id that comes again, in the same partition or in another one, is counted and changes nothing."""
    ingestor = road.start_fixed()
    road.produce([scene.message("one"), scene.message("one"), scene.message("one"), scene.message("two")])
    road.wait_for_offsets({0: 2, 1: 1, 2: 1})
    road.wait_for_jobs("one", "two")
    assert ingestor.stop() == 0
    assert ingestor.counts() == {"accepted": 2, "duplicate": 2, "rejected": 0}


def test_offsets_are_in_postgres_and_in_kafka(road: scene.Road) -> None:
    """What counts stands in ingest_offsets with the topic's own id, and Kafka's tools see the same soon after."""
    road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("job", 7)])
    road.wait_for_offsets({0: 3, 1: 2, 2: 2})
    eventually(lambda: road.committed() == {0: 3, 1: 2, 2: 2}, "Kafka has the offsets")
    topic_ids = road.db.execute("SELECT DISTINCT topic_id FROM ingest_offsets").fetchall()
    assert topic_ids == [(road.topic_id(),)]


def test_the_last_offsets_are_committed_at_the_end(road: scene.Road) -> None:
    """An ingestor that is asked to stop leaves no lag behind in Kafka's own books."""
    ingestor = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("job", 300)])
    road.wait_for_offsets({0: 100, 1: 100, 2: 100})
    assert ingestor.stop() == 0
    assert road.committed() == {0: 100, 1: 100, 2: 100}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_ingestor_goes_on_where_the_last_one_was(road: scene.Road, end: signal.Signals) -> None:
    """After an orderly end and after a kill: what was read is not read again, what came meanwhile is read once."""
    first = road.start_fixed()
    road.produce([scene.message(name) for name in scene.ids("before", 30)])
    road.wait_for_offsets({0: 10, 1: 10, 2: 10})
    first.process.send_signal(end)
    first.status()
    road.produce([scene.message(name) for name in scene.ids("between", 30)])
    second = road.start_fixed().reads()
    road.produce([scene.message(name) for name in scene.ids("after", 30)])
    road.wait_for_offsets({0: 30, 1: 30, 2: 30})
    road.wait_for_jobs(*scene.ids("before", 30), *scene.ids("between", 30), *scene.ids("after", 30))
    assert second.stop() == 0
    assert second.lines("reading")[0]["offsets"] == {"0": 10, "1": 10, "2": 10}
    assert second.counts() == {"accepted": 60, "duplicate": 0, "rejected": 0}


def test_the_group_shares_the_partitions(road: scene.Road) -> None:
    """Without KAFKA_PARTITIONS the group assigns them: three members read one each, and together they read all."""
    members = [road.start() for _ in range(3)]
    road.wait_until_shared(*members)
    road.produce([scene.message(name) for name in scene.ids("job", 30)])
    road.wait_for_jobs(*scene.ids("job", 30))
    eventually(lambda: road.committed() == {0: 10, 1: 10, 2: 10}, "Kafka has the offsets")
    for member in members:
        assert member.stop() == 0
        assert member.counts()["accepted"] == 10


def test_fixed_partitions_are_all_that_is_read(road: scene.Road) -> None:
    """KAFKA_PARTITIONS=0,2 reads those two, and leaves the third one and its offset to others."""
    ingestor = road.start_fixed(KAFKA_PARTITIONS="0,2")
    road.produce([scene.message(name) for name in scene.ids("left", 3)], partition=1)
    road.produce([scene.message(name) for name in scene.ids("zero", 3)], partition=0)
    road.produce([scene.message(name) for name in scene.ids("two", 3)], partition=2)
    road.wait_for_jobs(*scene.ids("zero", 3), *scene.ids("two", 3))
    assert road.offsets() == {0: 3, 2: 3}
    assert ingestor.stop() == 0
    road.start_fixed(KAFKA_PARTITIONS="1")
    road.wait_for_jobs(*scene.ids("zero", 3), *scene.ids("two", 3), *scene.ids("left", 3))


def test_a_tombstone_is_passed_over(road: scene.Road) -> None:
    """A message without a value is neither a job nor a reject, and the offset goes beyond it, also as the last one."""
    ingestor = road.start_fixed()
    road.produce([None, scene.message("job"), None], partition=0)
    road.wait_for_offsets({0: 3, 1: 0, 2: 0})
    assert ingestor.stop() == 0
    assert (road.jobs(), road.rejects()) == ({"job"}, [])
    assert ingestor.counts() == {"accepted": 1, "duplicate": 0, "rejected": 0, "tombstones": 2}


# Each with a word of its error.
BROKEN: Mapping[str, tuple[bytes, str]] = {
    "garbage": (b"{{{ garbage", "not JSON"),
    "an empty value": (b"", "not JSON"),
    "no object": (b"[1, 2]", "must be an object"),
    "UTF-8 that is none": (scene.message("x", subject="?").replace(b"?", b"\xff\xfe"), "UTF-8"),
    "nothing but bytes": (bytes(range(256)), "not JSON"),
    "deep nesting": (scene.message("x", data=0).replace(b": 0", b":" + b"[" * 100_000), "nested too deeply"),
    "an unknown type": (scene.message("x", type="love-letter"), "$.type: unknown email type"),
    "no recipient": (b'{"id": "x", "type": "password-reset"}', "recipient"),
    "a wrong address": (scene.message("x", recipient={"email": "nobody"}), "$.recipient.email"),
    "a NUL, which only the database refuses": (scene.message("x", data={"a": "\0"}), "NUL"),
}


def test_what_cannot_be_a_job_is_kept_and_told(road: scene.Road) -> None:
    """Each broken message goes whole to email_rejects and to the dead letter topic, and costs no neighbour its place.

    Both say where it stood and what is wrong with it.
    """
    road.start_fixed()
    values = [scene.message("first"), *(raw for raw, _ in BROKEN.values()), scene.message("last")]
    road.produce(values, partition=1)
    road.wait_for_offsets({0: 0, 1: len(values), 2: 0})
    assert road.jobs() == {"first", "last"}
    rejects = road.rejects()
    positions = [f"{road.topic}/1/{offset} ({road.topic_id()})" for offset in range(1, len(values) - 1)]
    assert [(position, raw) for position, raw, _ in rejects] == list(zip(positions, values[1:-1], strict=True))
    for (_, _, error), (name, (_, word)) in zip(rejects, BROKEN.items(), strict=True):
        assert word in error, name
    letters = road.dead_letters(len(BROKEN))
    assert [letter.value() for letter in letters] == values[1:-1]
    assert [scene.headers(letter) for letter in letters] == [
        {"kind": "rejected", "position": position, "error": error, "bytes": str(len(raw))}
        for position, raw, error in rejects
    ]


def test_a_large_reject_is_told_without_its_content(road: scene.Road) -> None:
    """Up to 900 KB a reject is in the dead letter topic whole, above only as position and error; Postgres has both."""
    road.start_fixed()
    values = [b"?" * LARGEST_DEAD_LETTER_BYTES, b"?" * (LARGEST_DEAD_LETTER_BYTES + 1)]
    road.produce(values, partition=0, **LARGE)
    whole, bare = road.dead_letters(2)
    assert [raw for _, raw, _ in road.rejects()] == values
    assert whole.value() == values[0]
    assert bare.value() is None
    assert scene.headers(bare)["bytes"] == str(len(values[1]))
    assert f"{road.topic}/0/1 " in scene.headers(bare)["position"]
    assert "not JSON" in scene.headers(bare)["error"]


def test_a_large_reject_fits_into_a_topic_with_the_usual_limit(road: scene.Road) -> None:
    """900,000 bytes with headers are taken by a dead letter topic whose limit nobody has raised."""
    if not road.broker.is_real:
        pytest.skip("real Kafka only: tansu has no limit for a message's size")
    ingestor = road.start_fixed()
    road.produce([b"?" * LARGEST_DEAD_LETTER_BYTES], partition=0, **LARGE)
    assert len(road.dead_letters(1)) == 1
    assert ingestor.stop() == 0
    assert "not in the dead letter topic" not in ingestor.log_text()


def test_messages_of_five_megabytes(road: scene.Road) -> None:
    """A mail with a large attachment is a job; five megabytes that are none, or too large a field, are rejects."""
    road.start_fixed()
    attachment = {"filename": "plan.pdf", "content": "QUJD" * (5 * MEGABYTE // 4)}
    too_large = scene.message("x", content="x" * 5 * MEGABYTE)
    large = scene.message("large", options={"attachments": [attachment]})
    road.produce([large, b"?" * 5 * MEGABYTE, too_large, scene.message("small")], partition=0, **LARGE)
    road.wait_for_jobs("large", "small")
    assert road.db.execute("SELECT options FROM email_jobs WHERE job_id = 'large'").fetchone() == (
        json.loads(large)["options"],
    )
    assert [len(raw) for _, raw, _ in road.rejects()] == [5 * MEGABYTE, len(too_large)]
    assert [letter.value() for letter in road.dead_letters(2)] == [None, None]


def test_many_large_messages_at_once(road: scene.Road) -> None:
    """A hundred megabytes that lie ready are stored in portions, whatever the batch size would allow."""
    road.produce((scene.message(name, content="x" * 900_000) for name in scene.ids("job", 120)), **LARGE)
    road.start_fixed(INGEST_BATCH_SIZE=5000)
    road.wait_for_jobs(*scene.ids("job", 120), seconds=60)


@pytest.mark.parametrize("ask", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("mode", ["fixed", "group"])
def test_a_signal_ends_it_in_order(road: scene.Road, ask: signal.Signals, mode: str) -> None:
    """Reading or idle, it says that it has stopped and exits with 0."""
    ingestor = (road.start_fixed() if mode == "fixed" else road.start()).reads()
    road.produce([scene.message("job")])
    road.wait_for_jobs("job")
    ingestor.process.send_signal(ask)
    assert ingestor.status() == 0
    assert len(ingestor.lines("stopped")) == 1


def test_a_partition_that_is_not_there_is_told(road: scene.Road) -> None:
    """It ends with 1 and says which one, instead of reading the others as if all were well."""
    ingestor = road.start(KAFKA_PARTITIONS="0,7")
    assert ingestor.status() == 1
    assert "KAFKA_PARTITIONS=0,7 names 7, but the last partition of the topic" in ingestor.log_text()


@pytest.mark.parametrize(
    "wrong",
    [
        {"KAFKA_BOOTSTRAP_SERVERS": ""},
        {"KAFKA_PARTITIONS": "all"},
        {"KAFKA_PARTITIONS": "0-"},
        {"KAFKA_SESSION_TIMEOUT_SECONDS": "1"},
        {"KAFKA_PARTITIONS": "3-1"},
        {"EMAIL_DEAD_LETTER_QUEUE": "mails", "KAFKA_TOPIC_EMAIL_JOBS": "mails"},
    ],
    ids=str,
)
def test_wrong_settings_are_told_in_a_line(road: scene.Road, wrong: dict[str, str]) -> None:
    """It exits with 2, and says which variable is wrong in one line, without a traceback."""
    ingestor = road.start(**wrong)
    assert ingestor.status(8) == 2
    heading, line = ingestor.log_text().splitlines()
    assert heading == "kafka_ingest: wrong settings"
    assert line.startswith(next(iter(wrong)))
