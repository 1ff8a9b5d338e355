"""Storing what was taken: jobs and rejects committed, and entries for the dead letter list."""

import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import redis
import structlog

from worker.intake import (
    LARGEST_COPY_BYTES,
    Received,
    Rejected,
    Verdict,
    count_results,
    portions,
    rejects_of,
    size_of,
    store,
)
from worker.patience import PatientConnection
from worker.settings import Settings
from worker.vital_signs import VitalSigns

if TYPE_CHECKING:
    from redis.client import Pipeline


log = structlog.get_logger(__name__)


class Stored(NamedTuple):
    """How many messages had which end, and those that could not become jobs."""

    counts: Counter[str]
    rejected: list[Rejected]


class Storing:
    """Stores the messages of one road."""

    def __init__(self, settings: Settings, source: str, stop: threading.Event, signs: VitalSigns) -> None:
        self._source = source
        self._list = settings.email_dead_letter_queue
        self._kept = settings.redis_dead_letters_kept
        self.postgres = PatientConnection(settings, f"email-worker {source}", stop, signs)

    def wait_for_postgres(self) -> None:
        """Return when it is there. Raises SchemaMismatch unless it has this version's schema, and Stopped."""
        self.postgres.until_it_works(lambda _: None)

    def store(self, messages: Sequence[Received]) -> Stored:
        """Store messages; returns when they are committed. Raises Stopped."""
        stored = Stored(Counter(), [])
        for portion in portions(messages, size_of):
            verdicts = self._store(portion)
            stored.counts.update(count_results(verdicts))
            stored.rejected.extend(rejects_of(portion, verdicts))
        return stored

    def _store(self, portion: Sequence[Received]) -> list[Verdict]:
        return self.postgres.until_it_works(lambda postgres: store(postgres, self._source, portion))

    def finish(self, client: redis.Redis, stored: Stored, forget: Callable[["Pipeline"], object]) -> None:
        """Forget in Redis what is stored, and put what was rejected to the end of the dead letter list, in one step."""
        try:
            with client.pipeline(transaction=True) as together:
                forget(together)
                if stored.rejected:
                    together.rpush(self._list, *(_entry(self._source, reject) for reject in stored.rejected))
                    together.ltrim(self._list, -self._kept, -1)
                together.execute()
        except redis.OutOfMemoryError:
            log.warning("Redis is full: rejects are in email_rejects alone", count=len(stored.rejected))
            with client.pipeline(transaction=True) as alone:
                forget(alone)
                alone.execute()


def _entry(source: str, reject: Rejected) -> bytes:
    entry: dict[str, object] = {
        "kind": "rejected",
        "source": source,
        "position": reject.position,
        "error": reject.error,
        "bytes": len(reject.raw),
    }
    if len(reject.raw) <= LARGEST_COPY_BYTES:
        try:
            entry["message"] = reject.raw.decode()
        except UnicodeDecodeError:
            entry["message_base64"] = b64encode(reject.raw).decode()
    return json.dumps(entry).encode()
