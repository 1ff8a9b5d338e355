"""Enqueueing a file of messages, one JSON object a line, through the same intake as every other road."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

from psycopg import Connection

from worker.intake import Received, count_results, portions, size_of, store

BATCH = 500
SOURCE = "file"


class Progress(NamedTuple):
    """How far it is: bytes of the file, and what became of the lines so far."""

    bytes_read: int
    counts: Counter[str]


def enqueue_lines(
    connection: Connection[Any], lines: BinaryIO, name: str, tell: Callable[[Progress], None]
) -> Counter[str]:
    """Store every line that is not empty, a transaction per BATCH; a second run of the same file adds nothing."""
    counts: Counter[str] = Counter()
    bytes_read = 0
    for batch in _batches(lines, name):
        bytes_read += sum(size_of(message) + 1 for message in batch)
        counts.update(count_results(store(connection, SOURCE, batch)))
        tell(Progress(bytes_read, counts))
    return counts


def _batches(lines: BinaryIO, name: str) -> Iterator[list[Received]]:
    # A file's name may be no text at all.
    shown = name.encode("utf-8", "replace").decode()
    messages = (
        Received(f"{shown}:{number}", raw) for number, line in enumerate(lines, start=1) if (raw := line.strip())
    )
    while batch := list(islice(messages, BATCH)):
        yield from portions(batch, size_of)
