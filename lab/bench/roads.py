"""Measurements of the roads in and out: Kafka and Redis to rows, from produce to accepted, events and status."""

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from lab.bench.meters import cpu_seconds
from lab.bench.scene import PROCRASTINATE, Run, Scene, drain, workers
from lab.kafka import Broker, broker
from lab.redis import RedisServer, redis_server

KAFKA = (sys.executable, "-m", "kafka_ingest")
REDIS = (sys.executable, "-m", "redis_ingest")
PARTITIONS = 8

# The sample message of the documents.
_MESSAGE: dict[str, Any] = {
    "type": "email",
    "template": "booking-confirmation",
    "recipient": {"email": "user@example.com", "name": "John Doe"},
    "data": {"bookingId": "b-1", "eventName": "Concert 2024", "ticketCount": 2, "totalAmount": 150.0},
    "priority": "high",
    "scheduledAt": "2024-01-01T10:00:00Z",
    "retryCount": 0,
    "maxRetries": 3,
}
# For the worker's template, which wants more.
_WHOLE = _MESSAGE["data"] | {"venue": "Main Hall", "date": "2024-01-01", "items": []}


class Ingested(NamedTuple):
    """Messages per second, and the ingestor's CPU for one."""

    rate: float
    cpu_microseconds: float


def _message(job_id: str, **other: Any) -> bytes:
    return json.dumps({"id": job_id} | _MESSAGE | other).encode()


def kafka_to_rows(where: Scene, messages: int, runs: int) -> list[Ingested]:
    """One ingestor reads a topic that is full."""
    figures = []
    for _ in range(runs):
        where.fresh_database()
        with broker() as kafka:
            kafka.create_topic(kafka.jobs_topic, PARTITIONS)
            producer = kafka.producer()
            for number in range(messages):
                producer.produce(kafka.jobs_topic, _message(f"job-{number}"), partition=number % PARTITIONS)
                if number % 1000 == 0:
                    producer.poll(0)
            producer.flush()
            figures.append(_ingest(where, KAFKA, kafka.environment(), messages))
    return figures


def redis_to_rows(where: Scene, messages: int, runs: int) -> list[Ingested]:
    """One taker empties a list that is full."""
    figures = []
    for _ in range(runs):
        where.fresh_database()
        with redis_server() as server:
            client = server.client()
            for first in range(0, messages, 1000):
                client.rpush(server.jobs_list, *(_message(f"job-{first + number}") for number in range(1000)))
            figures.append(_ingest(where, REDIS, server.environment(), messages))
    return figures


def _ingest(where: Scene, command: tuple[str, ...], environment: Mapping[str, str], messages: int) -> Ingested:
    """From the first rows to the last."""
    with _running(where, command, environment) as process, where.connect() as connection:

        def rows() -> int:
            # An identity's last value is a count that costs nothing.
            row = connection.execute("SELECT coalesce(last_value, 0) FROM email_jobs_seq_seq").fetchone()
            assert row is not None
            return int(row[0])

        _until(lambda: rows() > 1)
        began, first, cpu = time.monotonic(), rows(), cpu_seconds(process.pid)
        _until(lambda: rows() >= messages)
        seconds, done = time.monotonic() - began, rows() - first
        return Ingested(done / seconds, (cpu_seconds(process.pid) - cpu) / done * 1e6)


def produced_to_accepted(where: Scene, mails: int) -> list[float]:
    """Milliseconds from produce until the sink has the mail, one after the other on idle processes."""
    where.fresh_database()
    began: dict[str, float] = {}
    with broker() as kafka, workers(where, PROCRASTINATE), _running(where, KAFKA, kafka.environment()):
        kafka.create_topic(kafka.jobs_topic, 1)
        # A producer that waits for company adds its own time.
        producer = kafka.producer(**{"linger.ms": 0})
        already = where.sink.counts().accepted
        producer.produce(kafka.jobs_topic, _message("warm-up", data=_WHOLE))
        producer.flush()
        _until(lambda: where.sink.counts().accepted > already)
        for number in range(mails):
            began[f"road-{number}"] = time.time()
            producer.produce(kafka.jobs_topic, _message(f"road-{number}", data=_WHOLE))
            producer.flush()
            time.sleep(0.03)
        _until(lambda: where.sink.counts().accepted > already + mails)
    with where.connect() as connection:
        names = dict(connection.execute("SELECT id::text, job_id FROM email_jobs").fetchall())
    arrived = {names.get(entry.job_id): entry.time for entry in where.sink.ledger()}
    return [(arrived[job] - at) * 1000 for job, at in began.items()]


def relayed_per_second(where: Scene, events: int) -> float:
    """A worker with nothing else to do publishes events that wait."""
    where.fresh_database()
    where.fill_history(events, "sent")
    with where.connect() as connection:
        connection.execute(
            "INSERT INTO email_tracking (job_id, event_type, provider, message_id)"
            " SELECT id, 'sent', 'smtp', '<' || id || '@example.com>' FROM email_jobs"
        )
    where.settle_down()
    with broker() as kafka:
        kafka.create_topic(kafka.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], PARTITIONS)
        with workers(_with(where, kafka.environment()), PROCRASTINATE), where.connect() as connection:

            def relayed() -> int:
                row = connection.execute("SELECT seq FROM email_relay").fetchone()
                assert row is not None
                return int(row[0])

            _until(lambda: relayed() > 0)
            began, first = time.monotonic(), relayed()
            _until(lambda: relayed() >= events)
            return (events - first) / (time.monotonic() - began)


def with_and_without_news(where: Scene, jobs: int, runs: int) -> list[tuple[Run, Run]]:
    """Drains with Kafka events and Redis status, and without, in turn."""
    pairs = []
    with broker() as kafka, redis_server() as server:
        kafka.create_topic(kafka.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], PARTITIONS)
        for _ in range(runs):
            pairs.append((_drained(_with(where, _news(kafka, server)), jobs), _drained(where, jobs)))
    return pairs


def _news(kafka: Broker, server: RedisServer) -> dict[str, str]:
    return kafka.environment() | server.environment()


def _drained(where: Scene, jobs: int) -> Run:
    where.fresh_database()
    where.fill(jobs)
    where.settle_down()
    return drain(where, PROCRASTINATE)


def _with(where: Scene, environment: Mapping[str, str]) -> Scene:
    return dataclasses.replace(where, environment=where.environment | dict(environment))


@contextmanager
def _running(
    where: Scene, command: tuple[str, ...], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with workers(_with(where, environment), command) as (process,):
        yield process


def _until(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("it did not get there")
        time.sleep(0.01)
