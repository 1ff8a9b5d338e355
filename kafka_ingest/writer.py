"""Writing batches to Postgres, in a thread of its own: the consumer's thread must go on serving its group meanwhile.

A batch is written until it is written: while Postgres is away the writer waits with growing pauses, and the ingestor
reads nothing more. The same batch twice does no harm: the offsets say what is there already.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from psycopg import Connection

from kafka_ingest import offsets
from kafka_ingest.offsets import Held, Log, Topic
from worker.errors import BadMessage
from worker.intake import Received, Rejected, count_results, rejects_of, store
from worker.message import JobRow
from worker.patience import PatientConnection
from worker.settings import Settings
from worker.vital_signs import VitalSigns


class Item(NamedTuple):
    """A message of a partition, and what was read in it."""

    partition: int
    offset: int
    raw: bytes
    reading: JobRow | BadMessage


class Batch(NamedTuple):
    """Messages in the order in which they came, and how far each partition has been read with them.

    `next_offsets` may go beyond the last item: a tombstone moves the offset and is no message.
    """

    topic: Topic
    items: Sequence[Item]
    next_offsets: Mapping[int, int]
    epochs: Mapping[int, int]


class Written(NamedTuple):
    """What became of a batch. `stale`: partitions whose offset somebody moved; nothing of them was written."""

    counts: Mapping[str, int]
    rejected: Sequence[Rejected]
    next_offsets: Mapping[int, int]
    stale: frozenset[int]


class Writer:
    """The one connection of an ingestor to Postgres. Its methods run in one thread."""

    def __init__(self, settings: Settings, stop: threading.Event, signs: VitalSigns) -> None:
        self._postgres = PatientConnection(settings, "email-worker kafka", stop, signs)

    def write(self, batch: Batch) -> Written:
        """Write a batch and its offsets in one transaction. Raises Stopped."""
        return self._postgres.until_it_works(lambda connection: write(connection, batch))

    def read_offsets(self, topic: Topic) -> dict[int, Held]:
        """How far every partition has been read. Raises Stopped."""
        return self._postgres.until_it_works(lambda connection: offsets.read(connection, topic))

    def place(self, topic: Topic, logs: Mapping[int, Log], before: Mapping[int, Held]) -> dict[int, Held | None]:
        """Where to read partitions on, whose logs are these; see `offsets.place`. Raises Stopped."""
        return self._postgres.until_it_works(
            lambda connection: {
                partition: offsets.place(connection, topic, partition, log, before.get(partition))
                for partition, log in sorted(logs.items())
            }
        )

    def hang_up(self) -> None:
        """Wait no longer for Postgres; for another thread."""
        self._postgres.hang_up()

    def close(self) -> None:
        """Disconnect."""
        self._postgres.close()


def write(connection: Connection[Any], batch: Batch) -> Written:
    """Store what is new of a batch, and move the offsets, in one transaction."""
    with connection.transaction():
        held = offsets.lock(connection, batch.topic, batch.next_offsets)
        stale = frozenset(
            partition
            for partition in batch.next_offsets
            if partition not in held or held[partition].epoch != batch.epochs.get(partition)
        )
        # What another holder of the partition has stored meanwhile is behind its offset.
        items = [
            item
            for item in batch.items
            if item.partition not in stale and item.offset >= held[item.partition].next_offset
        ]
        received = [Received(_position(batch.topic, item), item.raw) for item in items]
        verdicts = store(connection, "kafka", received, [item.reading for item in items])
        moved = {
            partition: next_offset
            for partition, next_offset in batch.next_offsets.items()
            if partition not in stale and next_offset > held[partition].next_offset
        }
        offsets.advance(connection, batch.topic, moved)
    return Written(count_results(verdicts), rejects_of(received, verdicts), moved, stale)


def _position(topic: Topic, item: Item) -> str:
    # With the topic's id: in a topic that was made again the same offset is another message.
    return f"{topic.name}/{item.partition}/{item.offset} ({topic.id})"
