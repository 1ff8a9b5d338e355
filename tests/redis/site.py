"""What these tests share: a database and a Redis with names of their own, takers, and what became of the messages."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.redis import RedisServer
from redis_ingest.list_road import ListRoad
from redis_ingest.stream_road import StreamRoad
from tests.integration.office import ROOT, inherited
from tests.integration.rows import Connection, column, rows
from tests.support import Database, Worker
from worker.vital_signs import VitalSigns

_IN_HAND = """
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    for _, message in ipairs(redis.call('LRANGE', name, 0, -1)) do
        table.insert(found, message)
    end
end
return found
"""


def message(job_id: str, **fields: object) -> str:
    """A job message of that name; further fields as given."""
    return json.dumps({"id": job_id, "type": "newsletter", "recipient": {"email": "ann@example.com"}} | fields)


@dataclass
class Site:
    """One test's database and its part of a Redis."""

    database: Database
    server: RedisServer

    @cached_property
    def redis(self) -> Any:
        """A client; what it answers depends on the command, which no type tells."""
        return self.server.client()

    @cached_property
    def raw_redis(self) -> Any:
        """A client that speaks bytes."""
        import redis

        return redis.Redis(host=self.server.host, port=self.server.port, db=5)

    @property
    def jobs(self) -> str:
        """The list's name."""
        return self.server.jobs_list

    @property
    def taken(self) -> str:
        """The name of the set of the takers' lists."""
        return f"{self.jobs}:taken"

    def environment(self, **overrides: object) -> dict[str, str]:
        """A taker's settings."""
        return self.database.environment(**(self.server.environment() | overrides))

    @contextmanager
    def taker(self, **overrides: object) -> Iterator[Worker]:
        """`python -m redis_ingest`, killed at the end if it still runs."""
        with tempfile.TemporaryDirectory(prefix="taker-log-") as folder:
            log = Path(folder) / "log"
            with log.open("wb") as stream:
                process = subprocess.Popen(
                    [sys.executable, "-m", "redis_ingest"],
                    env={**inherited(), **self.environment(**overrides)},
                    cwd=ROOT,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                )
            taker = Worker(process, log)
            try:
                yield taker
            except BaseException:
                print(f"a taker's log:\n{taker.log_text()[-5000:]}")
                raise
            finally:
                if process.poll() is None:
                    process.kill()
                process.wait()

    def list_road(self, **overrides: object) -> ListRoad:
        """A taker in this process, for tests that take its steps one by one."""
        return ListRoad(self.database.settings(**self.environment(**overrides)), threading.Event(), VitalSigns())

    def stream_road(self, **overrides: object) -> StreamRoad:
        """A stream's consumer in this process."""
        named = {"REDIS_STREAM_EMAIL_JOBS": self.server.jobs_stream} | overrides
        return StreamRoad(self.database.settings(**self.environment(**named)), threading.Event(), VitalSigns())

    def push(self, *messages: str | bytes) -> None:
        """As producers do."""
        self.redis.rpush(self.jobs, *messages)

    def backlog(self) -> int:
        """As operators see it."""
        return int(self.redis.llen(self.jobs))

    def batches(self) -> list[str]:
        """The lists of what was taken and is not stored."""
        return sorted(self.redis.smembers(self.taken))

    def in_hand(self) -> list[str]:
        """What stands in those lists, in one step: they may change their names meanwhile."""
        found: list[str] = self.redis.eval(_IN_HAND, 1, self.taken)
        return found

    def hidden(self) -> list[str]:
        """Lists of messages that no taker will ever look for."""
        names = self.redis.scan_iter(f"{self.taken}:*", count=1000)
        return [name for name in names if not self.redis.sismember(self.taken, name) and self.redis.exists(name)]

    def heartbeats(self) -> list[str]:
        """The keys by which takers say that they live."""
        return sorted(self.redis.scan_iter(f"{self.jobs}:taker:*", count=1000))

    def keys(self) -> list[str]:
        """Everything around the list."""
        return sorted(self.redis.scan_iter(f"{self.jobs}*", count=1000))

    def dead_letters(self) -> list[dict[str, Any]]:
        """The entries of the dead letter list, oldest first."""
        return [json.loads(entry) for entry in self.redis.lrange(self.server.dead_letters, 0, -1)]


@contextmanager
def jobs_locked(site: Site) -> Iterator[None]:
    """Whoever wants to store a job waits meanwhile."""
    with site.database.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE email_jobs")
        yield


def job_ids(db: Connection) -> list[str]:
    """All jobs, in the order in which they were stored."""
    return column(db, "SELECT job_id FROM email_jobs ORDER BY seq")


def rejects(db: Connection) -> list[tuple[Any, ...]]:
    """Source, position, bytes and reason of all rejects."""
    return rows(db, "SELECT source, position, raw, error FROM email_rejects ORDER BY id")
