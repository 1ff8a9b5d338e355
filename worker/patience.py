"""Patience with Postgres: one connection of an ingestor, and work that is tried until it works or the process stops.

Whoever uses it must not mind that a piece of work is done twice: a connection may be lost behind a commit.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import structlog
from psycopg import Connection

from worker.db import connect_once
from worker.errors import DatabaseUnreachable
from worker.schema import check_schema_now
from worker.settings import Settings
from worker.vital_signs import VitalSigns

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
# How long a process that stops waits for an answer of Postgres before it hangs up, and one that goes on.
STOP_SECONDS = 5.0
ANSWER_SECONDS = 60.0
LOOK_SECONDS = 1.0
# With no answer for so long the process is not ready.
SILENT_SECONDS = 10.0
# Who is frozen in a transaction must not keep an offset's row from others, and who waits for one tells so.
SESSION = {"idle_in_transaction_session_timeout": "10000", "lock_timeout": "10000"}

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Stopped(Exception):
    """The process stops, and the work may not be done: what it was about stays where it is, and is read again."""


class PatientConnection:
    """Used by one thread; `hang_up` is for another. The first connection must find this version's schema."""

    def __init__(self, settings: Settings, application: str, stop: threading.Event, signs: VitalSigns) -> None:
        self._settings = settings
        self._application = application
        self._stop = stop
        self._signs = signs
        self._trouble: str | None = None
        self._asked_at: float | None = None
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._hang_up_in_time, name="patience", daemon=True)
        signs.checks.append(self._silence)
        self._connection: Connection[Any] | None = None
        self._is_ours = False

    def until_it_works(self, work: Callable[[Connection[Any]], T]) -> T:
        """What `work` returns, once Postgres lets it. Raises Stopped, SchemaMismatch, and whatever else is wrong."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._signs.turned()
            try:
                return self._ask(work)
            except (psycopg.OperationalError, DatabaseUnreachable) as error:
                is_locked = isinstance(error, psycopg.errors.LockNotAvailable)
                what = "somebody holds rows that are to be written" if is_locked else "Postgres is away"
                self._trouble = f"{what}: {str(error).strip()}"
                log.warning(f"{what}; nothing is read meanwhile", error=str(error).strip(), pause=pause)
                self._drop()
            if self._stop.wait(pause):
                raise Stopped
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _ask(self, work: Callable[[Connection[Any]], T]) -> T:
        """One try, which ends within ANSWER_SECONDS: a server that is frozen keeps its connections."""
        if not self._watch.is_alive():
            self._watch.start()
        self._asked_at = time.monotonic()
        try:
            result = work(self._connected())
        finally:
            self._asked_at = None
        self._trouble = None
        return result

    def _hang_up_in_time(self) -> None:
        """Look after every answer, in a thread for all: one for each would cost a batch milliseconds of the GIL."""
        while not self._ended.wait(LOOK_SECONDS):
            asked_at = self._asked_at
            if asked_at is not None and time.monotonic() - asked_at > ANSWER_SECONDS:
                self.hang_up()

    def _silence(self) -> str | None:
        """Why nothing is written, for `/readyz`."""
        asked_at = self._asked_at
        silent = 0.0 if asked_at is None else time.monotonic() - asked_at
        return f"Postgres has not answered for {silent:.0f} s" if silent > SILENT_SECONDS else self._trouble

    def hang_up(self) -> None:
        """End the wait for a server that is frozen: nothing else would."""
        connection = self._connection
        if connection is None or connection.closed:
            return
        log.warning("Postgres does not answer; hanging up")
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Disconnect for good."""
        self._ended.set()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = connect_once(self._settings, self._application, SESSION)
        if not self._is_ours:
            # Only at the start, as a worker does: who runs already may finish beside a newer version.
            check_schema_now(self._connection)
            self._is_ours = True
        return self._connection
