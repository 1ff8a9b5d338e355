"""`ingest_offsets`: how far each partition has been read, moved in the transaction of the rows themselves.

Ingestors only move an offset forward, and only one whose epoch they know: whoever puts it elsewhere, the check at an
assignment or an operator, raises the epoch under the row's lock.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from psycopg import Connection

from worker.db import query

log = structlog.get_logger(__name__)


class Topic(NamedTuple):
    """A topic by its name and by Kafka's own id."""

    name: str
    id: str


class Held(NamedTuple):
    """How far a partition has been read, and the epoch of that."""

    next_offset: int
    epoch: int


class Log(NamedTuple):
    """The ends of a partition's log: its first offset, and the one that its next message will have."""

    begins: int
    ends: int


def place(
    connection: Connection[Any], topic: Topic, partition: int, partition_log: Log, before: Held | None
) -> Held | None:
    """Where to read a partition on; an offset outside its log goes to the nearest end, loudly.

    `before` was there before Kafka was asked for the log. None: somebody else has read on since then, perhaps beyond
    what the log was; ask again.
    """
    with connection.transaction():
        row = connection.execute(
            query("place_partition"), _key(topic) | {"partition": partition, "beginning": partition_log.begins}
        ).fetchone()
        assert row is not None
        held = Held(*row)
        nearest = min(max(held.next_offset, partition_log.begins), partition_log.ends)
        if nearest == held.next_offset:
            return held
        if held != before:
            return None
        log.error(
            "an offset lies outside the partition's log: messages are gone, or the log is another",
            topic=topic.name,
            partition=partition,
            next_offset=held.next_offset,
            log_begins=partition_log.begins,
            log_ends=partition_log.ends,
            goes_on_at=nearest,
        )
        moved = connection.execute(
            query("move_offset"), _key(topic) | {"partition": partition, "next_offset": nearest}
        ).fetchone()
        assert moved is not None
        return Held(nearest, moved[0])


def lock(connection: Connection[Any], topic: Topic, partitions: Iterable[int]) -> dict[int, Held]:
    """How far these have been read, locked until the end of the transaction."""
    rows = connection.execute(query("lock_offsets"), _key(topic) | {"partitions": sorted(partitions)}).fetchall()
    return {partition: Held(next_offset, epoch) for partition, next_offset, epoch in rows}


def advance(connection: Connection[Any], topic: Topic, next_offsets: Mapping[int, int]) -> None:
    """Move locked partitions forward."""
    connection.execute(
        query("advance_offsets"),
        _key(topic) | {"partitions": list(next_offsets), "next_offsets": list(next_offsets.values())},
    )


def read(connection: Connection[Any], topic: Topic) -> dict[int, Held]:
    """How far every partition of a topic has been read."""
    rows = connection.execute(query("read_offsets"), _key(topic)).fetchall()
    return {partition: Held(next_offset, epoch) for partition, next_offset, epoch in rows}


def _key(topic: Topic) -> dict[str, object]:
    return {"topic": topic.name, "topic_id": topic.id}
