"""Storing what was taken: jobs and rejects in one transaction, tried until Postgres takes it."""

import json
import threading
from base64 import b64encode
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
import structlog
from psycopg import Connection

from worker.db import connect_once
from worker.errors import DatabaseUnreachable
from worker.intake import Received, Result, Verdict, portions, store
from worker.settings import Settings

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# A dead letter entry holds a message whole up to this size; the reject in Postgres holds it in any case.
LARGEST_ENTRY_BYTES = 900_000

log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The process stops, and the messages are not stored: they stay where they are."""


class Stored(NamedTuple):
    """How many messages had which end, and the entries for the dead letter list."""

    counts: dict[Result, int]
    dead_letters: list[bytes]


class Storing:
    """One connection to Postgres, and patience with it."""

    def __init__(self, settings: Settings, source: str, stop: threading.Event) -> None:
        self._settings = settings
        self._source = source
        self._stop = stop
        self._connection: Connection[Any] | None = None

    def store(self, messages: Sequence[Received]) -> Stored:
        """Store messages; returns when they are committed. Raises Stopped."""
        counts = dict.fromkeys(Result, 0)
        dead_letters: list[bytes] = []
        for portion in portions(messages):
            stored = self._store(portion)
            dead_letters += stored.dead_letters
            for result, number in stored.counts.items():
                counts[result] += number
        return Stored(counts, dead_letters)

    def _store(self, messages: Sequence[Received]) -> Stored:
        pause = FIRST_PAUSE_SECONDS
        while True:
            try:
                return _stored(self._source, messages, store(self._connected(), self._source, messages))
            except (psycopg.OperationalError, DatabaseUnreachable) as error:
                log.warning("Postgres is away; nothing is taken meanwhile", error=str(error).strip(), pause=pause)
                self.close()
            if self._stop.wait(pause):
                raise Stopped
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_once(self._settings, f"email-worker {self._source}")
        return self._connection


def _stored(source: str, messages: Sequence[Received], verdicts: Sequence[Verdict]) -> Stored:
    counts = dict.fromkeys(Result, 0)
    dead_letters = []
    for message, verdict in zip(messages, verdicts, strict=True):
        counts[verdict.result] += 1
        if verdict.result is Result.REJECTED:
            dead_letters.append(_entry(source, message, verdict.error))
    return Stored(counts, dead_letters)


def _entry(source: str, message: Received, error: str) -> bytes:
    entry: dict[str, object] = {
        "kind": "rejected",
        "source": source,
        "position": message.position,
        "error": error,
        "bytes": len(message.raw),
    }
    if len(message.raw) <= LARGEST_ENTRY_BYTES:
        try:
            entry["message"] = message.raw.decode()
        except UnicodeDecodeError:
            entry["message_base64"] = b64encode(message.raw).decode()
    return json.dumps(entry).encode()
