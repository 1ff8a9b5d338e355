"""A thread that decides whether Postgres is lost, and ends the process when it is.

It makes a round trip every second on a connection of its own. None within 8 s, whatever the reason (gone, frozen, or a
network that swallows packets), and the process exits at once with status 70, during a shutdown too: the locks of its
claims are gone or will be, the journal knows what was in a provider's hands, and a supervisor starts it again. It is a
thread, because an event loop that waits for a frozen server never gets to notice.
"""

import os
import select
import threading
import time
from typing import Any

import psycopg
import structlog

from worker.db import connection_parameters
from worker.log_handler import flush_logs
from worker.settings import Settings

LOST_AFTER_SECONDS = 8.0
ROUND_TRIP_EVERY_SECONDS = 1.0
# Longer than a round trip now and then takes.
SILENT_SECONDS = 3.0
EXIT_STATUS = 70
SILENCE = "the connection stands, and nothing comes"

log = structlog.get_logger(__name__)


class Watchdog:
    """Started and stopped with the worker."""

    def __init__(self, settings: Settings) -> None:
        self._parameters = connection_parameters(settings, "email-worker watchdog")
        self._stopped = threading.Event()
        self._last_answer = time.monotonic()
        self._is_connected = False
        self._trouble = SILENCE
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; from now on Postgres has 8 s to answer."""
        self._last_answer = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, after everything else has let go of Postgres."""
        self._stopped.set()

    def silence(self) -> str | None:
        """What is wrong when Postgres has not answered for a while; None when it has."""
        silent = time.monotonic() - self._last_answer
        if silent <= SILENT_SECONDS:
            return None
        return f"Postgres has not answered for {silent:.0f} s: {self._trouble}"

    def _watch(self) -> None:
        while not self._stopped.is_set():
            try:
                self._watch_connection()
            except (psycopg.Error, OSError) as error:
                self._trouble = str(error).strip()
                # A start that cannot connect tells so itself.
                if self._is_connected:
                    log.warning("watchdog lost its connection", error=self._trouble)
                self._is_connected = False
            self._give_up_when_lost()
            self._stopped.wait(0.2)

    def _watch_connection(self) -> None:
        with psycopg.connect(**self._parameters, autocommit=True) as connection:
            self._is_connected, self._trouble = True, SILENCE
            while not self._stopped.wait(ROUND_TRIP_EVERY_SECONDS):
                self._round_trip(connection)

    def _round_trip(self, connection: psycopg.Connection[Any]) -> None:
        """One answer from the server, or none: never blocks beyond the moment at which Postgres counts as lost."""
        server = connection.pgconn
        server.send_query(b"SELECT 1")
        server.flush()
        while server.is_busy():
            self._give_up_when_lost()
            readable, _, _ = select.select([server.socket], [], [], 0.5)
            if readable:
                server.consume_input()
        while server.get_result() is not None:
            pass
        self._last_answer = time.monotonic()

    def _give_up_when_lost(self) -> None:
        silent = time.monotonic() - self._last_answer
        if silent > LOST_AFTER_SECONDS and not self._stopped.is_set():
            log.error(
                "Postgres does not answer, exiting",
                silent_seconds=round(silent, 1),
                error=self._trouble,
                exit_status=EXIT_STATUS,
            )
            flush_logs()
            os._exit(EXIT_STATUS)
