"""The ingestor: reads its partitions, and has them written while it reads on.

Kafka tells which partitions are ours; Postgres tells where to go on in them. Two ingestors that hold the same partition
for a moment do no harm: what both read is stored by one of them, because the offset's row is locked with the rows.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from kafka_ingest.dead_letters import DeadLetters
from kafka_ingest.offsets import Log, Topic
from kafka_ingest.reading import consumer_config, is_message
from kafka_ingest.writer import Batch, Item, Writer, Written
from worker import metrics
from worker.errors import KafkaUnusable, PartitionsMissing
from worker.intake import portions
from worker.kafka import ANSWER_SECONDS, Described, client_config, describe_topic, make_client
from worker.message import read_or_error
from worker.patience import LONGEST_PAUSE_SECONDS, STOP_SECONDS, Stopped
from worker.reports import Reports
from worker.settings import Settings, listed_partitions
from worker.vital_signs import VitalSigns

IDLE_SECONDS = 0.2
# A write that takes longer than this stops the reading, which throws away what the client has fetched ahead.
PATIENCE_SECONDS = 2.0
CHECK_SECONDS = 5.0
# Kafka's own copy of the offsets is for its tools, and may be a second old.
COMMIT_SECONDS = 1.0

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Ingestor:
    """One member of the group, or the reader of fixed partitions. `run` works until `stop` is set."""

    def __init__(self, settings: Settings, stop: threading.Event, signs: VitalSigns) -> None:
        self._settings = settings
        self._stop = stop
        self._signs = signs
        self._name = settings.kafka_topic_email_jobs
        self._admin = make_client(AdminClient, client_config(settings))
        self._consumer = make_client(Consumer, consumer_config(settings))
        self._writer = Writer(settings, stop, signs)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._dead_letters = DeadLetters(settings)
        self._partitions: list[int] = []
        self._topic: Topic | None = None
        self._epochs: dict[int, int] = {}
        self._writing: Future[Written] | None = None
        self._checked_at = 0.0
        self._uncommitted: dict[int, int] = {}
        self._committed_at = 0.0
        self._reports = Reports("kafka", topic=self._name)

    def run(self) -> None:
        """Ingest until the stop event is set; then finish what is being written."""
        fixed = listed_partitions(self._settings.kafka_partitions)
        if fixed:
            self._partitions = fixed
        else:
            self._consumer.subscribe(
                [self._name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
            )
        log.info("started", topic=self._name, partitions=fixed or "those of the group")
        try:
            while not self._stop.is_set():
                self._turn()
        except Stopped:
            log.info("stopping while Postgres is away")
        finally:
            self._end()
        log.info("stopped")

    # Whose partitions

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # Nothing is read before Postgres has said from where: see `_place`.
        consumer.assign([])
        self._partitions = sorted(partition.partition for partition in partitions)
        self._topic = None
        log.info("assigned", topic=self._name, partitions=self._partitions)

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.info("revoked", topic=self._name, partitions=sorted(partition.partition for partition in partitions))
        self._partitions = []
        self._topic = None
        self._uncommitted.clear()
        metrics.INGEST_LAG.labels("kafka").set(0)

    # One turn of the loop

    def _turn(self) -> None:
        self._signs.turned()
        if self._topic is None and self._partitions and not self._place():
            return
        messages = self._read()
        for some in portions(messages, len):
            # A rebalance may have taken the topic from us while the last portion was waited for.
            if self._topic is not None:
                batch = self._batch(self._topic, some)
                self._finish_write()
                self._writing = self._thread.submit(self._writer.write, batch)
        if self._writing is not None and self._writing.done():
            self._finish_write()
        self._keep_house()

    def _read(self) -> list[Message]:
        """What is there: at once when something is, after IDLE_SECONDS when nothing is."""
        first = self._consumer.poll(0 if self._writing is not None and not self._writing.done() else IDLE_SECONDS)
        if first is None:
            if self._writing is not None:
                _ends_within(self._writing, IDLE_SECONDS)
            return []
        more = self._settings.ingest_batch_size - 1
        found = [first, *(self._consumer.consume(more, 0) if more else [])]
        return [message for message in found if is_message(message)]

    def _batch(self, topic: Topic, messages: Sequence[Message]) -> Batch:
        items: list[Item] = []
        next_offsets: dict[int, int] = {}
        for message in messages:
            partition, offset, raw = message.partition(), message.offset(), message.value()
            assert partition is not None
            assert offset is not None
            next_offsets[partition] = offset + 1
            if raw is None:
                # A tombstone says that a key is gone from a compacted topic: there is no mail in it.
                self._reports.count({"tombstones": 1})
                continue
            items.append(Item(partition, offset, raw, read_or_error(raw)))
        return Batch(topic, items, next_offsets, self._epochs)

    # Writing

    def _finish_write(self) -> None:
        """Wait for the batch that is being written, and do what follows from it."""
        if self._writing is None:
            return
        writing = self._writing
        self._serve_until(writing)
        # What it raises is raised once: the end finishes what is being written too.
        self._writing = None
        written = writing.result()
        self._reports.count(written.counts)
        self._uncommitted |= written.next_offsets
        for rejected in written.rejected:
            self._dead_letters.tell(rejected)
        if written.stale and self._topic is not None:
            log.warning("somebody moved offsets; reading on from there", partitions=sorted(written.stale))
            self._topic = None

    def _ask_writer(self, work: Callable[..., T], *arguments: object) -> T:
        """What the writer says; the group is served meanwhile."""
        asked = self._thread.submit(work, *arguments)
        self._serve_until(asked)
        return asked.result()

    def _serve_until(self, work: Future[Any]) -> None:
        """Wait for the writer's thread. If it takes long, read nothing, but go on serving the group."""
        if _ends_within(work, PATIENCE_SECONDS):
            return
        log.warning("Postgres is slow; nothing is read meanwhile")
        held = [TopicPartition(self._name, partition) for partition in self._partitions if self._topic is not None]
        self._consumer.pause(held)
        ends: float | None = None
        while not _ends_within(work, 0):
            self._signs.turned()
            # Paused partitions give no message; what comes is the group's news.
            self._consumer.poll(IDLE_SECONDS)
            if self._stop.is_set():
                ends = ends or time.monotonic() + STOP_SECONDS
                if time.monotonic() > ends:
                    self._writer.hang_up()
                    ends = None
        if self._topic is not None:
            self._consumer.resume(held)

    # Where to go on

    def _place(self) -> bool:
        """Ask Kafka what the topic is and Postgres where to go on, and begin to read there; False: try again."""
        self._finish_write()
        wanted = self._partitions
        try:
            described = describe_topic(self._admin, self._name)
            self._refuse_missing(described)
            topic = Topic(self._name, described.id)
            # Before the logs: another holder of a partition may read on meanwhile, beyond an end that is told here.
            before = self._ask_writer(self._writer.read_offsets, topic)
            logs = {partition: self._log(partition) for partition in wanted}
        except (KafkaUnusable, KafkaException) as error:
            log.warning("Kafka does not answer", error=str(error), pause=LONGEST_PAUSE_SECONDS)
            self._signs.turned()
            self._consumer.poll(LONGEST_PAUSE_SECONDS)
            return False
        placed = self._ask_writer(self._writer.place, topic, logs, before)
        held = {partition: place for partition, place in placed.items() if place is not None}
        if self._partitions is not wanted or len(held) < len(placed):
            return False
        self._epochs = {partition: place.epoch for partition, place in held.items()}
        self._topic = topic
        places = [TopicPartition(self._name, partition, place.next_offset) for partition, place in held.items()]
        self._consumer.assign(places)
        self._consumer.resume(places)
        log.info(
            "reading", topic=topic.name, offsets={partition: place.next_offset for partition, place in held.items()}
        )
        return True

    def _tell_lag(self) -> None:
        """Messages behind, by what the client knows from its last fetches."""
        places = [TopicPartition(self._name, partition) for partition in self._partitions]
        lag = 0
        for place in self._consumer.position(places):
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            lag += max(0, end - place.offset) if place.offset >= 0 else 0
        metrics.INGEST_LAG.labels("kafka").set(lag)

    def _log(self, partition: int) -> Log:
        """A partition's log as it is now. Raises KafkaException."""
        self._signs.turned()
        return Log(*self._consumer.get_watermark_offsets(TopicPartition(self._name, partition), timeout=ANSWER_SECONDS))

    def _refuse_missing(self, described: Described) -> None:
        missing = [partition for partition in self._partitions if partition >= described.partitions]
        if missing and self._settings.kafka_partitions:
            raise PartitionsMissing(
                f"KAFKA_PARTITIONS={self._settings.kafka_partitions} names {', '.join(map(str, missing))}, but the last"
                f" partition of the topic {self._name} is {described.partitions - 1}"
            )

    def _keep_house(self) -> None:
        now = time.monotonic()
        if self._uncommitted and now - self._committed_at >= COMMIT_SECONDS:
            self._committed_at = now
            self._commit()
        if self._topic is not None and now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._check(self._topic)
        self._reports.tell_if_due()

    def _check(self, topic: Topic) -> None:
        """Notice what no message would tell: an operator's reset, and a topic that was made again."""
        self._tell_lag()
        self._finish_write()
        try:
            is_same = describe_topic(self._admin, self._name).id == topic.id
        except KafkaUnusable:
            # Away; the client connects again by itself, and the next look tells.
            return
        held = self._ask_writer(self._writer.read_offsets, topic)
        moved = any(
            partition not in held or held[partition].epoch != epoch for partition, epoch in self._epochs.items()
        )
        if self._topic is topic and (moved or not is_same):
            log.warning("the topic was made again, or somebody moved its offsets", topic=self._name)
            self._topic = None

    def _commit(self) -> None:
        parts = [TopicPartition(self._name, partition, offset) for partition, offset in self._uncommitted.items()]
        self._uncommitted.clear()
        try:
            self._consumer.commit(offsets=parts)
        except KafkaException as error:
            log.debug("Kafka did not take the offsets; Postgres has them", error=str(error))

    def _end(self) -> None:
        with ExitStack() as last:
            for close in (self._writer.close, self._thread.shutdown, self._dead_letters.close, self._consumer.close):
                last.callback(close)
            try:
                self._finish_write()
            except Stopped:
                log.info("what was being written is read again by whoever gets the partitions")
            if self._uncommitted:
                self._commit()
            self._reports.tell()


def _ends_within(work: Future[Any], seconds: float) -> bool:
    return bool(wait((work,), seconds).done)
