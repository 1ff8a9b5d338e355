"""Enqueueing a file of messages, one JSON object a line, through the same intake as every other road."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from psycopg import Connection

from worker.intake import Received, count_results, portions, size_of, store
from worker.message import LARGEST_BYTES

BATCH = 500
SOURCE = "file"


class Progress(NamedTuple):
    """How far it is: bytes of the file, and what became of the lines so far."""

    bytes_read: int
    counts: Counter[str]


def enqueue_lines(
    connection: Connection[Any], lines: BinaryIO, name: str, tell: Callable[[Progress], None]
) -> Counter[str]:
    """Store every line that is not empty, some hundreds in a transaction; a second run of the file adds nothing."""
    counts: Counter[str] = Counter()
    bytes_read = 0
    for portion in portions(_messages(lines, name), size_of, BATCH):
        bytes_read += sum(size_of(message) + 1 for message in portion)
        counts.update(count_results(store(connection, SOURCE, portion)))
        tell(Progress(bytes_read, counts))
    return counts


def _messages(lines: BinaryIO, name: str) -> Iterator[Received]:
    # A file's name may be no text at all.
    shown = name.encode("utf-8", "replace").decode()
    for number, line in enumerate(_lines(lines), start=1):
        if raw := line.strip():
            yield Received(f"{shown}:{number}", raw)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines, of one that is too long for a message only the beginning: it is refused for its length."""
    while line := stream.readline(LARGEST_BYTES + 1):
        yield line
        while not line.endswith(b"\n") and len(line) > LARGEST_BYTES:
            line = stream.readline(LARGEST_BYTES + 1)
