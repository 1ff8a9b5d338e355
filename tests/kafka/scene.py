"""What the Kafka tests share: a road of a test's own, its messages, its ingestors, and what arrived at its end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from confluent_kafka import Consumer, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from lab.kafka import Broker
from tests.kafka.ingestor import Ingestor
from tests.support import Database, eventually
from worker.kafka import describe_topic

Db = psycopg.Connection[tuple[Any, ...]]

# tansu says that a log ends behind the first message of its last batch. Where a test counts, each is a batch alone.
ONE_BY_ONE = {"batch.num.messages": 1}
ANSWER_SECONDS = 10.0


def message(job_id: str, **fields: object) -> bytes:
    """A job that is complete."""
    own = {"id": job_id, "type": "password-reset", "recipient": {"email": "ann@example.com"}}
    return json.dumps(own | fields).encode()


@dataclass
class Road:
    """Topics, a group and a database that no other test uses."""

    broker: Broker
    database: Database
    db: Db
    folder: Path
    stack: ExitStack
    partitions: int
    ingestors: list[Ingestor] = field(default_factory=list)

    @property
    def topic(self) -> str:
        """The topic of the jobs."""
        return self.broker.jobs_topic

    @property
    def dead_letter_topic(self) -> str:
        """The topic of what was rejected."""
        return self.broker.environment()["EMAIL_DEAD_LETTER_QUEUE"]

    def environment(self, **overrides: object) -> dict[str, str]:
        """What leads an ingestor here."""
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "PYTHONPATH", "TMPDIR") if key in os.environ}
        own = self.broker.environment() | {"ENVIRONMENT": "production", "KAFKA_SESSION_TIMEOUT_SECONDS": "6"}
        return kept | self.database.environment(**(own | overrides))

    def start(self, **overrides: object) -> Ingestor:
        """One more ingestor; killed at the end of the test if it still runs."""
        name = f"ingestor-{len(self.ingestors) + 1}"
        log = self.folder / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "kafka_ingest"],
                env=self.environment(**({"WORKER_NAME": name} | overrides)),
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        ingestor = Ingestor(process, log)
        self.stack.callback(ingestor.kill)
        self.ingestors.append(ingestor)
        return ingestor

    def start_fixed(self, **overrides: object) -> Ingestor:
        """One more ingestor, of all partitions and no group."""
        return self.start(**({"KAFKA_PARTITIONS": f"0-{self.partitions - 1}"} | overrides))

    def produce(self, values: Iterable[bytes | None], partition: int | None = None, **config: object) -> None:
        """Messages, each acknowledged; into one partition, or into all in turn."""
        producer = self.broker.producer(**({"log_level": 3} | ONE_BY_ONE | config))
        for number, value in enumerate(values):
            to = number % self.partitions if partition is None else partition
            producer.produce(self.topic, value, partition=to, on_delivery=_must_arrive)
        assert producer.flush(ANSWER_SECONDS) == 0

    def create_topics(self) -> None:
        """Make the topics, and wait until the broker knows them."""
        admin = self.admin()
        for name, partitions in ((self.topic, self.partitions), (self.dead_letter_topic, 1)):
            # A real broker has to be told that these may be large.
            topic = NewTopic(name, partitions, 1, config={"max.message.bytes": "31000000"})
            try:
                admin.create_topics([topic])[name].result(ANSWER_SECONDS)
            except KafkaException as error:
                if "TOPIC_ALREADY_EXISTS" not in str(error):
                    raise
            eventually(partial(self.topic_exists, name), f"the topic {name} is there")

    def delete_jobs_topic(self) -> None:
        """Delete the topic of the jobs."""
        admin = self.admin()
        admin.delete_topics([self.topic])[self.topic].result(ANSWER_SECONDS)
        eventually(lambda: not self.topic_exists(self.topic), "the topic is gone")

    def topic_id(self) -> str:
        """Kafka's own id of the topic of the jobs."""
        return describe_topic(self.admin(), self.topic).id

    def topic_exists(self, name: str) -> bool:
        """Whether the broker can describe it."""
        admin = self.admin()
        try:
            admin.describe_topics(TopicCollection([name]))[name].result(ANSWER_SECONDS)
        except KafkaException:
            return False
        return True

    def admin(self) -> AdminClient:
        """A client for topics; keep it until the answer is there."""
        return AdminClient({"bootstrap.servers": self.broker.servers, "log_level": 3})

    # What arrived

    def connect_again(self) -> None:
        """After Postgres was away."""
        self.db.close()
        self.db = self.stack.enter_context(self.database.connect())

    def jobs(self) -> set[str]:
        """The ids of the jobs that are stored."""
        return {str(job_id) for (job_id,) in self.db.execute("SELECT job_id FROM email_jobs").fetchall()}

    def rejects(self) -> list[tuple[str, bytes, str]]:
        """Position, bytes and error of what was rejected."""
        return [
            (str(position), bytes(raw), str(error))
            for position, raw, error in self.db.execute(
                "SELECT position, raw, error FROM email_rejects ORDER BY id"
            ).fetchall()
        ]

    def offsets(self) -> dict[int, int]:
        """`ingest_offsets` of the topic as it is now: partition -> next offset."""
        rows = self.db.execute(
            "SELECT DISTINCT ON (partition) partition, next_offset FROM ingest_offsets WHERE topic = %s"
            " ORDER BY partition, updated_at DESC",
            (self.topic,),
        ).fetchall()
        return {int(partition): int(next_offset) for partition, next_offset in rows}

    def reset(self, next_offset: int, partition: int | None = None) -> dict[int, int]:
        """An operator's reset; which partitions it moved, and where they stood."""
        rows = self.db.execute(
            "SELECT * FROM email_ingest_reset(%s, %s, %s)", (self.topic, next_offset, partition)
        ).fetchall()
        return {int(moved): int(was) for moved, was in rows}

    def committed(self) -> dict[int, int]:
        """What the group has committed to Kafka."""
        parts = [TopicPartition(self.topic, partition) for partition in range(self.partitions)]
        with self.consumer() as consumer:
            return {part.partition: part.offset for part in consumer.committed(parts, timeout=ANSWER_SECONDS)}

    def wait_for_jobs(self, *expected: str, seconds: float = 30.0) -> None:
        """Wait until exactly these jobs are stored."""
        eventually(lambda: self.jobs() >= set(expected), f"{expected} arrive", seconds)
        assert self.jobs() == set(expected)

    def wait_for_offsets(self, expected: Mapping[int, int], seconds: float = 30.0) -> None:
        """Wait until the partitions have been read exactly so far."""
        eventually(lambda: self.offsets() == expected, f"the offsets are {expected}", seconds)

    def wait_until_shared(self, *members: Ingestor) -> None:
        """Wait until these read all partitions, each at least one and none two."""
        everything = list(range(self.partitions))
        eventually(
            lambda: (
                sorted(part for member in members for part in member.partitions()) == everything
                and all(member.partitions() for member in members)
            ),
            f"{len(members)} members share the partitions",
        )

    def dead_letters(self, count: int) -> list[Message]:
        """The messages of the dead letter topic, as soon as there are that many."""
        found: list[Message] = []
        with self.consumer() as consumer:
            consumer.assign([TopicPartition(self.dead_letter_topic, 0, 0)])

            def look() -> bool:
                found.extend(one for one in consumer.consume(100, 0.1) if one.error() is None)
                return len(found) >= count

            eventually(look, f"{count} dead letters")
        return found

    @contextmanager
    def consumer(self) -> Iterator[Consumer]:
        """A consumer that only asks: it never joins the group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker.servers,
                "group.id": self.broker.environment()["KAFKA_GROUP_ID"],
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 3,
            }
        )
        try:
            yield consumer
        finally:
            consumer.close()


def headers(letter: Message) -> dict[str, str]:
    """A dead letter's headers as text."""
    found = letter.headers()
    assert isinstance(found, list)
    return {key: value.decode() for key, value in found if isinstance(value, bytes)}


@contextmanager
def open_road(broker: Broker, database: Database, folder: Path, partitions: int) -> Iterator[Road]:
    """A road of one's own."""
    with ExitStack() as stack:
        db = stack.enter_context(database.connect())
        road = Road(replace(broker, prefix=uuid4().hex[:8]), database, db, folder, stack, partitions)
        road.create_topics()
        yield road


def ids(prefix: str, count: int) -> Sequence[str]:
    """That many job ids."""
    return [f"{prefix}-{number}" for number in range(count)]


def _must_arrive(error: object, _: Message) -> None:
    assert error is None, error
