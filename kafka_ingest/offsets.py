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


def place(connection: Connection[Any], topic: Topic, partition: int, log_begins: int, log_ends: int) -> Held:
    """Where to read a partition on; an offset outside its log goes to the nearest end, loudly."""
    with connection.transaction():
        row = connection.execute(
            query("place_partition"), _key(topic) | {"partition": partition, "beginning": log_begins}
        ).fetchone()
        assert row is not None
        held = Held(*row)
        nearest = min(max(held.next_offset, log_begins), log_ends)
        if nearest == held.next_offset:
            return held
        log.error(
            "an offset lies outside the partition's log: messages are gone, or the log is another",
            topic=topic.name,
            partition=partition,
            next_offset=held.next_offset,
            log_begins=log_begins,
            log_ends=log_ends,
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


def epochs(connection: Connection[Any], topic: Topic) -> dict[int, int]:
    """The epoch of every partition."""
    return dict(connection.execute(query("read_epochs"), _key(topic)).fetchall())


def _key(topic: Topic) -> dict[str, object]:
    return {"topic": topic.name, "topic_id": topic.id}
