"""An ingestor's connection: Postgres that does not answer is waited for, said to be silent, and left after a while."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest

from kafka_ingest import offsets
from kafka_ingest.offsets import Held, Log, Topic
from lab.postgres import PostgresServer
from tests.support import Database, eventually
from worker import patience
from worker.db import query
from worker.patience import PatientConnection
from worker.vital_signs import VitalSigns

TOPIC = Topic("email-jobs", "an-id")


@pytest.fixture
def signs() -> VitalSigns:
    """What the connection tells."""
    return VitalSigns()


@pytest.fixture
def patient(frail_database: Database, signs: VitalSigns) -> Iterator[PatientConnection]:
    """A connection to a Postgres that may be harmed."""
    stop = threading.Event()
    with closing(PatientConnection(frail_database.settings(), "tests patience", stop, signs)) as connection:
        yield connection


def test_a_frozen_postgres_is_told_and_left(
    patient: PatientConnection, signs: VitalSigns, frail_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing comes the process is not ready; the connection is given up, and the work done on another one."""
    monkeypatch.setattr(patience, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(patience, "SILENT_SECONDS", 0.5)
    assert patient.until_it_works(lambda connection: offsets.read(connection, TOPIC)) == {}
    backends: list[int] = []

    def work(connection: psycopg.Connection[Any]) -> dict[int, Held]:
        backends.append(connection.info.backend_pid)
        return offsets.read(connection, TOPIC)

    with ThreadPoolExecutor(1) as thread:
        frail_postgres.freeze()
        asked = thread.submit(patient.until_it_works, work)
        eventually(lambda: "has not answered" in (signs.not_ready() or ""), "it says that nothing comes")
        eventually(lambda: "away" in (signs.not_ready() or ""), "it has hung up")
        frail_postgres.thaw()
        assert asked.result(30) == {}
    assert len(set(backends)) == 2
    assert signs.not_ready() is None


def test_rows_that_somebody_holds_are_told_as_that(
    patient: PatientConnection, signs: VitalSigns, frail_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open transaction of a producer is no absence of Postgres: whoever is on call looks for another thing."""
    monkeypatch.setattr(patience, "SESSION", {**patience.SESSION, "lock_timeout": "100"})
    with frail_database.connect() as other, ThreadPoolExecutor(1) as thread:
        with other.transaction():
            other.execute("LOCK TABLE ingest_offsets")
            asked = thread.submit(patient.until_it_works, lambda c: offsets.place(c, TOPIC, 0, Log(0, 100), None))
            eventually(lambda: "somebody holds rows" in (signs.not_ready() or ""), "it says what it waits for")
        assert asked.result(30) == Held(0, 0)


def test_who_is_frozen_in_a_transaction_does_not_keep_its_rows(
    patient: PatientConnection, frail_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres ends its session, and whoever has the partition now goes on."""
    monkeypatch.setattr(patience, "SESSION", {**patience.SESSION, "idle_in_transaction_session_timeout": "500"})
    zombie = PatientConnection(frail_database.settings(), "tests zombie", threading.Event(), VitalSigns())

    def lock(connection: psycopg.Connection[Any]) -> None:
        offsets.place(connection, TOPIC, 0, Log(0, 100), None)
        connection.execute("BEGIN")
        connection.execute(query("lock_offsets"), {"topic": TOPIC.name, "topic_id": TOPIC.id, "partitions": [0]})

    zombie.until_it_works(lock)
    placed = patient.until_it_works(lambda connection: offsets.place(connection, TOPIC, 0, Log(0, 100), Held(0, 0)))
    assert placed == Held(0, 0)
    zombie.close()
