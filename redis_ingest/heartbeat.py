"""The heartbeat: a key with a life time, by which others know that a consumer lives.

It beats in a thread of its own, so that a slow database does not look like a death.
"""

import threading

import redis
import structlog

from worker.redis_client import blocking_client
from worker.settings import Settings

LIFE_SECONDS = 15
BEAT_SECONDS = 3.0

log = structlog.get_logger(__name__)


class Heartbeat:
    """Keeps `key` alive while the context is open."""

    def __init__(self, settings: Settings, key: str) -> None:
        self._client = blocking_client(settings)
        self._key = key
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> None:
        self._beat()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        try:
            self._client.delete(self._key)
        except redis.RedisError:
            log.debug("the heartbeat ends by itself")
        self._client.close()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self._beat()
            except redis.RedisError as error:
                log.warning("no heartbeat: Redis is away", error=str(error))

    def _beat(self) -> None:
        try:
            self._client.set(self._key, b"", ex=LIFE_SECONDS)
        except redis.OutOfMemoryError:
            # Who takes does not make it fuller. Without a beat others store the same messages, which does no harm.
            log.warning("no heartbeat: Redis is full")
