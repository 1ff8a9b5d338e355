"""The list: messages are taken from its left end in batches, each into a list of the taker's own.

Producers append at the right end (RPUSH). A batch's own list is deleted when its jobs are committed. When a taker's
heartbeat is gone, another one renames its lists to its own, in one atomic step, and stores them.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import structlog

from redis_ingest.heartbeat import Heartbeat
from redis_ingest.perseverance import persevere
from redis_ingest.scripts import script
from redis_ingest.storing import Storing
from worker import metrics
from worker.intake import PORTION_BYTES, Received
from worker.redis_client import blocking_client
from worker.reports import Reports
from worker.settings import Settings
from worker.vital_signs import VitalSigns

if TYPE_CHECKING:
    from redis.client import Pipeline

# An empty list is waited at, not asked again and again.
WAIT_SECONDS = 2
LOOK_AROUND_SECONDS = 5.0

log = structlog.get_logger(__name__)


class Names(NamedTuple):
    """The keys around a list: the set of all takers' lists, and those of one taker."""

    jobs: str
    taker: str

    @property
    def taken(self) -> str:
        """The set of the lists that hold what was taken and is not committed."""
        return f"{self.jobs}:taken"

    def heartbeat(self, taker: str | None = None) -> str:
        """The key that lives while a taker does."""
        return f"{self.jobs}:taker:{taker or self.taker}"

    def batch(self, number: int) -> str:
        """The list of one batch."""
        return f"{self.jobs}:taken:{self.taker}:{number}"

    def owner(self, batch: str) -> str:
        """Who took a batch."""
        return batch.rpartition(":")[0].rpartition(":")[2]


class ListRoad:
    """One taker. `run` works until `stop` is set."""

    def __init__(self, settings: Settings, stop: threading.Event, signs: VitalSigns) -> None:
        self._settings = settings
        self._stop = stop
        self._signs = signs
        self._names = Names(settings.redis_list_email_jobs, uuid4().hex)
        self._client = blocking_client(settings, WAIT_SECONDS + 5.0)
        self._take = self._client.register_script(script("take"))
        self._take_over = self._client.register_script(script("take_over"))
        self._storing = Storing(settings, "redis", stop, signs)
        self._reports = Reports("redis", name=self._names.jobs)
        self._numbers = count(1)
        self._looked_around_at = float("-inf")

    def run(self) -> None:
        """Take and store until the stop event is set; what is in hand then is finished."""
        persevere(self._stop, self._signs, self._session, self._turn)
        self._reports.tell()
        self._storing.postgres.close()
        self._client.close()

    def hang_up(self) -> None:
        """Wait no longer for Postgres; for another thread."""
        self._storing.postgres.hang_up()

    @contextmanager
    def _session(self) -> Iterator[None]:
        # Before anything is taken.
        self._storing.wait_for_postgres()
        # What was in hand when the last one was lost is looked for first.
        self._looked_around_at = float("-inf")
        with Heartbeat(self._settings, self._names.heartbeat()):
            yield

    def _turn(self) -> None:
        if time.monotonic() - self._looked_around_at >= LOOK_AROUND_SECONDS:
            self._looked_around_at = time.monotonic()
            self._look_around()
        batch = self._names.batch(next(self._numbers))
        keys, most = [self._names.jobs, batch, self._names.taken], [self._settings.ingest_batch_size, PORTION_BYTES]
        taken = self._take(keys=keys, args=most)
        if not taken and self._waits_for_one():
            taken = self._take(keys=keys, args=most)
        if taken:
            self._store(batch)
        self._reports.tell_if_due()

    def _waits_for_one(self) -> bool:
        """Wait at the empty list; nothing moves: what comes is put back to where it stood, in the same step.

        Blocking commands move one message, and no script can block; a message that moved without the script's
        bookkeeping could be hidden by a death in between.
        """
        return self._client.blmove(self._names.jobs, self._names.jobs, WAIT_SECONDS, "LEFT", "LEFT") is not None

    def _store(self, batch: str) -> None:
        taken: Any = self._client.lrange(batch, 0, -1)
        messages = [Received(self._names.jobs, raw) for raw in taken]
        stored = self._storing.store(messages)

        def forget(together: "Pipeline") -> None:
            together.delete(batch)
            together.srem(self._names.taken, batch)

        self._storing.finish(self._client, stored, forget)
        self._reports.count(stored.counts)

    def _look_around(self) -> None:
        """Store what takers left that live no more, and what this one left when Redis was away."""
        metrics.INGEST_LAG.labels("redis").set(self._client.llen(self._names.jobs))
        held: Any = self._client.smembers(self._names.taken)
        for name in held:
            batch = name.decode()
            owner = self._names.owner(batch)
            if owner == self._names.taker:
                self._store(batch)
                continue
            mine = self._names.batch(next(self._numbers))
            keys = [batch, self._names.heartbeat(owner), mine, self._names.taken]
            if count_taken := self._take_over(keys=keys):
                log.warning("a taker died; storing what it had taken", messages=count_taken)
                self._store(mine)
