"""Redis as the settings describe it. The library is imported only where a client is made."""

from typing import TYPE_CHECKING, Any

from worker.errors import SettingsError
from worker.settings import Settings

if TYPE_CHECKING:
    import redis
    import redis.asyncio

ANSWER_SECONDS = 5.0
# The consumer group of REDIS_STREAM_EMAIL_JOBS.
STREAM_GROUP = "email-worker"


def connection_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments for a client. Raises SettingsError when no Redis is named."""
    if not settings.redis_host:
        raise SettingsError("REDIS_HOST is not set: it must name the Redis server")
    return {
        "host": settings.redis_host,
        "port": settings.redis_port,
        "password": settings.redis_password.reveal() or None,
        "db": settings.redis_db,
        "ssl": settings.redis_ssl,
        "socket_connect_timeout": ANSWER_SECONDS,
        "socket_keepalive": True,
        "client_name": "email-worker",
    }


def blocking_client(settings: Settings, answer_seconds: float = ANSWER_SECONDS) -> "redis.Redis":
    """A client for threads. `answer_seconds` must exceed the longest blocking command.

    Never tries a command twice by itself: one whose answer was lost may have moved messages.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return redis.Redis(**connection_options(settings), socket_timeout=answer_seconds, retry=Retry(NoBackoff(), 0))


def async_client(settings: Settings, answer_seconds: float = ANSWER_SECONDS) -> "redis.asyncio.Redis":
    """A client for the event loop. Never tries a command twice: an answer that was lost may have done its work."""
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options = connection_options(settings) | {"socket_connect_timeout": answer_seconds}
    return redis.asyncio.Redis(**options, socket_timeout=answer_seconds, retry=Retry(NoBackoff(), 0))
