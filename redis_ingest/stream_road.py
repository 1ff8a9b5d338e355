"""The stream: read by a consumer group, acknowledged when the jobs are committed.

What a consumer took and never acknowledged is claimed by another one after a while. An entry's message is the field
`message`, or the only field that it has. Entries stay in the stream: its producers trim it.
"""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import redis
import structlog

from redis_ingest.perseverance import persevere
from redis_ingest.scripts import script
from redis_ingest.storing import Storing
from worker import metrics
from worker.intake import PORTION_BYTES, Received
from worker.redis_client import STREAM_GROUP, blocking_client
from worker.reports import Reports
from worker.settings import Settings
from worker.vital_signs import VitalSigns

FIELD = b"message"
WAIT_SECONDS = 2.0
# Longer than any batch takes while Postgres is there; sooner would only repeat work.
ABANDONED_SECONDS = 30.0
LOOK_AROUND_SECONDS = 5.0

log = structlog.get_logger(__name__)

Entry = tuple[bytes, dict[bytes, bytes] | None]


class StreamRoad:
    """One consumer of the group. `run` works until `stop` is set."""

    def __init__(self, settings: Settings, stop: threading.Event, signs: VitalSigns) -> None:
        self._settings = settings
        self._stop = stop
        self._signs = signs
        self._stream = settings.redis_stream_email_jobs
        self._consumer = uuid4().hex
        self._client = blocking_client(settings, WAIT_SECONDS + 5.0)
        self._storing = Storing(settings, "redis-stream", stop, signs)
        self._read = self._client.register_script(script("read"))
        self._claim = self._client.register_script(script("claim"))
        self._forget = self._client.register_script(script("forget"))
        self._reports = Reports("redis-stream", name=self._stream)
        self._looked_around_at = float("-inf")

    def run(self) -> None:
        """Read and store until the stop event is set."""
        persevere(self._stop, self._signs, self._membership, self._turn)
        self._leave()

    def hang_up(self) -> None:
        """Wait no longer for Postgres; for another thread."""
        self._storing.postgres.hang_up()

    @contextmanager
    def _membership(self) -> Iterator[None]:
        self._storing.wait_for_postgres()
        try:
            self._client.xgroup_create(self._stream, STREAM_GROUP, id="0", mkstream=True)
        except redis.OutOfMemoryError:
            # A full Redis can still be read from, if the group is there.
            log.warning("Redis is full")
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        yield

    def _turn(self) -> None:
        if time.monotonic() - self._looked_around_at >= LOOK_AROUND_SECONDS:
            self._looked_around_at = time.monotonic()
            self._claim_abandoned()
            self._tell_lag()
        if entries := self._entries() or self._waited_for():
            self._store(entries)
        self._reports.tell_if_due()

    def _entries(self) -> list[Entry]:
        """What is there, as much as a batch may have."""
        most = [self._settings.ingest_batch_size, PORTION_BYTES]
        found: Any = self._read(keys=[self._stream], args=[STREAM_GROUP, self._consumer, *most])
        return [_entry(*one) for one in found]

    def _waited_for(self) -> list[Entry]:
        """The next one; no script can block."""
        found: Any = self._client.xreadgroup(
            STREAM_GROUP, self._consumer, {self._stream: ">"}, count=1, block=int(WAIT_SECONDS * 1000)
        )
        return [entry for _, entries in found or [] for entry in entries]

    def _tell_lag(self) -> None:
        """Entries that no consumer of the group has read yet; Redis may not know (Redis 7: entries were deleted)."""
        groups: Any = self._client.xinfo_groups(self._stream)
        lags = [group.get("lag") for group in groups if group["name"] == STREAM_GROUP.encode()]
        if lags and lags[0] is not None:
            metrics.INGEST_LAG.labels("redis-stream").set(lags[0])

    def _claim_abandoned(self) -> None:
        start: Any = b"0-0"
        idle, most = int(ABANDONED_SECONDS * 1000), [self._settings.ingest_batch_size, PORTION_BYTES]
        while True:
            found: Any = self._claim(keys=[self._stream], args=[STREAM_GROUP, self._consumer, idle, start, *most])
            start, entries = found[0], [_entry(*one) for one in found[1]]
            if entries:
                log.warning("a consumer died; storing what it had read", messages=len(entries))
                self._store(entries)
            if start == b"0-0":
                break
        # Each death leaves a name behind.
        self._forget(keys=[self._stream], args=[STREAM_GROUP, int(ABANDONED_SECONDS * 1000)])

    def _store(self, entries: Sequence[Entry]) -> None:
        # An entry that was deleted meanwhile comes without fields: there is nothing left to store.
        messages = [
            Received(f"{self._stream}/{identity.decode()}", _message(fields)) for identity, fields in entries if fields
        ]
        stored = self._storing.store(messages)
        identities = [identity for identity, _ in entries]
        self._storing.finish(
            self._client, stored, lambda together: together.xack(self._stream, STREAM_GROUP, *identities)
        )
        self._reports.count(stored.counts)

    def _leave(self) -> None:
        try:
            pending: Any = self._client.xpending_range(
                self._stream, STREAM_GROUP, "-", "+", 1, consumername=self._consumer
            )
            if not pending:
                # A consumer without open entries is only a name in the group's list.
                self._client.xgroup_delconsumer(self._stream, STREAM_GROUP, self._consumer)
        except redis.RedisError:
            log.debug("the group keeps this consumer's name")
        self._reports.tell()
        self._storing.postgres.close()
        self._client.close()


def _entry(identity: bytes, fields: Sequence[bytes] | None) -> Entry:
    return identity, dict(zip(fields[::2], fields[1::2], strict=True)) if fields else None


def _message(fields: dict[bytes, bytes]) -> bytes:
    if FIELD in fields:
        return fields[FIELD]
    if len(fields) == 1:
        return next(iter(fields.values()))
    # Several fields, and none of them says that it is the message: kept as they are, for the reject.
    texts = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in fields.items()}
    return json.dumps(texts).encode()
