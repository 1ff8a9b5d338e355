"""Rejects: messages that could not become jobs, for a person to look at, mend and put back."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection

from worker.db import query
from worker.errors import NoSuchReject
from worker.intake import Received, Result, Verdict, store

GONE = "it was put back already, or never there"


class RejectLine(NamedTuple):
    """A reject in a list."""

    id: int
    source: str
    position: str
    error: str
    bytes: int
    received_at: datetime


class Reject(NamedTuple):
    """A reject, whole."""

    id: int
    source: str
    position: str
    error: str
    raw: bytes
    received_at: datetime


def list_rejects(connection: Connection[Any], most: int) -> list[RejectLine]:
    """The newest ones."""
    return [RejectLine(*row) for row in connection.execute(query("list_rejects"), {"most": most}).fetchall()]


def read_reject(connection: Connection[Any], number: int) -> Reject:
    """One of them. Raises NoSuchReject, in words."""
    row = connection.execute(query("read_reject"), {"id": number}).fetchone()
    if row is None:
        raise NoSuchReject(f"there is no reject {number}: {GONE}")
    return Reject(*row)


def all_numbers(connection: Connection[Any]) -> list[int]:
    """The numbers of all rejects, oldest first."""
    return [number for (number,) in connection.execute(query("reject_ids")).fetchall()]


def replay(
    connection: Connection[Any], numbers: list[int], mended: bytes | None = None
) -> Iterator[tuple[int, Verdict | None]]:
    """Put rejects back into the queue, `mended` instead of the original; one that is refused again stays as it was.

    Without a verdict: there is no reject of that number any more.
    """
    for number in numbers:
        verdict: Verdict | None = None
        with connection.transaction():
            row = connection.execute(query("take_reject"), {"id": number}).fetchone()
            if row is not None:
                source, position, raw = row
                (verdict,) = store(connection, source, [Received(position, raw if mended is None else mended)])
                if verdict.result is Result.REJECTED:
                    raise psycopg.Rollback
        yield number, verdict
