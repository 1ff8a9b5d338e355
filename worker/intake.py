"""The intake: messages of any road become jobs, or are kept as rejects, in the caller's transaction.

Promises: each message has a verdict; what is accepted or rejected is committed together with whatever else the caller
writes in the same transaction, such as the source's position; a message that only the database refuses costs no other
one its place. The same job twice is one row.
"""

import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import Connection

from worker.db import array_literal, query
from worker.errors import BadMessage
from worker.message import JobRow, read_or_error

T = TypeVar("T")


class Result(StrEnum):
    """What became of a message."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"


class Received(NamedTuple):
    """A message as it came, and where it stood in its source."""

    position: str
    raw: bytes


class Rejected(NamedTuple):
    """A message that could not become a job, and why."""

    position: str
    raw: bytes
    error: str


class Verdict(NamedTuple):
    """What became of a message, and why, if it was rejected."""

    result: Result
    error: str = ""


# What is stored at once, and so held in memory several times over.
PORTION_BYTES = 8_000_000
LONGEST_REASON = 500
# Of a reject a copy of this size goes to those who watch Kafka or Redis: a broker refuses more than about a megabyte.
LARGEST_COPY_BYTES = 900_000

ACCEPTED = Verdict(Result.ACCEPTED)
DUPLICATE = Verdict(Result.DUPLICATE)

_UNKNOWN_TYPE = '$.type: unknown email type "{}"; the known ones are in email_types'

Readable = tuple[int, JobRow]


def portions(messages: Iterable[T], size: Callable[[T], int], most: int = sys.maxsize) -> Iterator[list[T]]:
    """Messages in portions of PORTION_BYTES or so, and `most` at most, for whoever may store them in turn."""
    some: list[T] = []
    total = 0
    for message in messages:
        some.append(message)
        total += size(message)
        if total >= PORTION_BYTES or len(some) == most:
            yield some
            some, total = [], 0
    if some:
        yield some


def size_of(message: Received) -> int:
    """A message's bytes."""
    return len(message.raw)


def count_results(verdicts: Iterable[Verdict]) -> Counter[str]:
    """How many messages had which end."""
    counts = Counter(dict.fromkeys(map(str, Result), 0))
    counts.update(verdict.result for verdict in verdicts)
    return counts


def rejects_of(messages: Sequence[Received], verdicts: Sequence[Verdict]) -> list[Rejected]:
    """Those that could not become jobs."""
    return [
        Rejected(message.position, message.raw, verdict.error)
        for message, verdict in zip(messages, verdicts, strict=True)
        if verdict.result is Result.REJECTED
    ]


def store(
    connection: Connection[Any],
    source: str,
    messages: Sequence[Received],
    readings: Sequence[JobRow | BadMessage] | None = None,
) -> list[Verdict]:
    """Store a batch, in the transaction that is open or in one of its own; a verdict for each message, in order.

    `readings` is what `read_or_error` made of them, which can be done while another batch is stored. Raises psycopg's
    error when it is not a message's fault.
    """
    readings = [read_or_error(message.raw) for message in messages] if readings is None else readings
    verdicts = [ACCEPTED] * len(messages)
    with connection.transaction():
        # Asked first: who is passed over for a type that comes a moment later would have no verdict.
        known = {kind for (kind,) in connection.execute(query("known_types")).fetchall()}
        _store_jobs(connection, source, list(_readable(readings, known, verdicts)), verdicts)
        _store_rejects(connection, source, rejects_of(messages, verdicts))
    return verdicts


def _readable(
    readings: Sequence[JobRow | BadMessage], known: Container[str], verdicts: list[Verdict]
) -> Iterator[Readable]:
    """Those that can become jobs, and verdicts on the others."""
    for number, reading in enumerate(readings):
        if isinstance(reading, BadMessage):
            verdicts[number] = _refusal(str(reading))
        elif reading.type not in known:
            verdicts[number] = _refusal(_UNKNOWN_TYPE.format(reading.type))
        else:
            yield number, reading


def _store_rejects(connection: Connection[Any], source: str, rejects: Sequence[Rejected]) -> None:
    if rejects:
        connection.execute(
            query("store_rejects"),
            {
                "source": source,
                "positions": [reject.position for reject in rejects],
                "raws": [reject.raw for reject in rejects],
                "errors": [reject.error for reject in rejects],
            },
        )


def _store_jobs(connection: Connection[Any], source: str, rows: Sequence[Readable], verdicts: list[Verdict]) -> None:
    """Insert rows; halves of them, where the database refuses one, until that one is alone."""
    if not rows:
        return
    try:
        with connection.transaction():
            found = connection.execute(query("store_jobs"), _columns(source, rows)).fetchall()
    except psycopg.Error as error:
        if not _is_a_messages_fault(error):
            raise
        if len(rows) == 1:
            verdicts[rows[0][0]] = _refusal(_words(error))
            return
        half = len(rows) // 2
        _store_jobs(connection, source, rows[:half], verdicts)
        _store_jobs(connection, source, rows[half:], verdicts)
        return
    new = {job_id for (job_id,) in found}
    if len(new) == len(rows):
        return
    for number, row in rows:
        if row.job_id in new:
            # The first of its name is the new row.
            new.remove(row.job_id)
        else:
            verdicts[number] = DUPLICATE


def _refusal(why: str) -> Verdict:
    """A reason for a table and a log: one line of a bounded length, whatever it quotes."""
    line = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in why[:LONGEST_REASON])
    return Verdict(Result.REJECTED, line)


def _columns(source: str, rows: Sequence[Readable]) -> dict[str, object]:
    parameters: dict[str, object] = {"source": source}
    for name, column in zip(_PARAMETERS, zip(*(_values(row) for _, row in rows), strict=True), strict=True):
        parameters[name] = array_literal(column)
    return parameters


def _values(row: JobRow) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in row.__struct_fields__)


_PARAMETERS = (
    "job_ids",
    "types",
    "templates",
    "emails",
    "names",
    "user_ids",
    "datas",
    "priorities",
    "scheduled",
    "expires",
    "retry_counts",
    "max_retries",
    "locales",
    "subjects",
    "contents",
    "campaigns",
    "options",
    "extras",
)

# SQLSTATE classes: data exception, integrity constraint, program limit; EM are our own.
_MESSAGES_FAULTS = ("22", "23", "54", "EM")


def _is_a_messages_fault(error: psycopg.Error) -> bool:
    if error.sqlstate is None:
        # Refused by psycopg itself: a NUL in a text.
        return isinstance(error, psycopg.DataError)
    return error.sqlstate.startswith(_MESSAGES_FAULTS)


def _words(error: psycopg.Error) -> str:
    """Why the database refused a row. Never its DETAIL, which quotes the row."""
    if isinstance(error, psycopg.errors.CheckViolation):
        return f"$: {error.diag.constraint_name}"
    if error.sqlstate is None or isinstance(error, psycopg.errors.UntranslatableCharacter):
        return "$: a NUL character (\\u0000) cannot be stored"
    return f"$: {error.diag.message_primary}"
