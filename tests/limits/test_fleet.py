"""Eight worker processes under one limit: kept and used, with Redis, without, and while Redis comes and goes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lab.redis import RedisServer
from lab.sink_process import Sink
from tests.integration.rows import Connection, insert_jobs, value
from tests.limits.fleet import assert_within
from tests.limits.test_limited_workers import times
from tests.support import Database, eventually, running_worker
from worker.buckets import Limit

WORKERS = 8
RATE = 14
LIMIT = Limit("provider smtp", 1 / RATE, 1)
# Eight processes on few cores: what may lie between a token and the server.
LATE = 0.5


@contextmanager
def fleet(database: Database, sink: Sink, **settings: object) -> Iterator[None]:
    """Eight workers with a burst of 1, all of which have started."""
    environment = {"SMTP_PORT": sink.port, "EMAIL_RATE_SMTP": f"{RATE}/s burst 1", "WORKER_CONCURRENCY": 3}
    with ExitStack() as stack:
        workers = [
            stack.enter_context(running_worker(database.environment(**environment, **settings))) for _ in range(WORKERS)
        ]
        for worker in workers:
            eventually(lambda worker=worker: "started" in worker.log_text(), "it has started", seconds=60)  # type: ignore[misc]
        yield


def keeper(db: Connection) -> str:
    """Who keeps the buckets, once its epoch has begun."""
    return str(value(db, "SELECT CASE WHEN begins_at < clock_timestamp() THEN keeper END FROM email_bucket_keeper"))


def test_a_minute_of_eight_workers(
    database: Database, db: Connection, tmp_path: Path, limits_redis: RedisServer
) -> None:
    """By Redis: never more than the limit with a burst of 1, and most of it used."""
    with Sink(ledger=tmp_path / "ledger") as sink, fleet(database, sink, **limits_redis.environment()):
        insert_jobs(db, 70 * RATE)
        eventually(lambda: keeper(db) == "redis", "Redis keeps the buckets")
        begins = time.time()
        time.sleep(60)
        went = [moment - begins for moment in times(sink) if 0 <= moment - begins <= 60]
    assert_within(went, LIMIT, LATE)
    # The scripted clock shows 95 %; here eight processes share the machine with whatever else runs on it.
    assert len(went) >= 0.8 * 60 * RATE


def test_the_limit_holds_while_redis_goes_and_comes_back(
    database: Database, db: Connection, tmp_path: Path, frail_redis: RedisServer
) -> None:
    """Workers go on by Postgres, and return to Redis: a change costs some seconds, and no token is given twice."""
    with Sink(ledger=tmp_path / "ledger") as sink, fleet(database, sink, **frail_redis.environment()):
        insert_jobs(db, 70 * RATE)
        eventually(lambda: keeper(db) == "redis", "Redis keeps the buckets")
        began = time.monotonic()
        time.sleep(5)
        frail_redis.embedded.stop()
        eventually(lambda: keeper(db) == "postgres", "Postgres keeps the buckets")
        taken = len(times(sink))
        eventually(lambda: len(times(sink)) > taken + 3 * RATE, "they go on")
        frail_redis.embedded.start()
        eventually(lambda: keeper(db) == "redis", "Redis keeps them again")
        time.sleep(5)
        took = time.monotonic() - began
        went = times(sink)
    assert_within(went, LIMIT, LATE)
    # Each change costs its pause, and what it takes until the first one sees that there is something to change.
    assert len(went) >= 0.8 * (took - 2 * 4) * RATE
