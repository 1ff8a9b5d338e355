"""Erasure: what is known of one person goes at once, from Postgres (`sql/api/erasure.sql`) and from Redis.

What Redis holds is JSON, often JSON in JSON, where an address may be written in several ways: entries are decoded, and
their texts compared.
"""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg

from worker.db import query
from worker.errors import EmailWorkerError
from worker.redis_client import STREAM_GROUP, blocking_client
from worker.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

# Of a list or a stream, read at a time: messages may be large.
PAGE = 20
# A dead letter holds a message, which may hold JSON of its own.
DEPTH = 3


class Erased(NamedTuple):
    """What was found of a person, and how much of it; `is_left`: it is still there, until it is run again."""

    what: str
    number: int
    is_left: bool = False


def erase(connection: psycopg.Connection[Any], settings: Settings, address: str) -> list[Erased]:
    """Erase one person from Redis, where there is one, and from Postgres; returns what was found.

    Redis first: its statuses are found by the job_ids that Postgres still knows. Raises EmailWorkerError without Redis.
    """
    job_ids = [job_id for (job_id,) in connection.execute(query("jobs_of_address"), {"address": address})]
    found = _erase_from_redis(settings, address, job_ids) if settings.redis_host else []
    found += [Erased(*row) for row in connection.execute(query("erase_address"), {"address": address}).fetchall()]
    return found


def _erase_from_redis(settings: Settings, address: str, job_ids: list[str]) -> list[Erased]:
    from redis import RedisError

    client: Any = blocking_client(settings)
    mentioned = _mention_of(address)
    letters, waiting_list = settings.email_dead_letter_queue, settings.redis_list_email_jobs
    try:
        removed = sum(client.lrem(letters, 0, entry) for entry in set(_in_list(client, letters, mentioned)))
        statuses = client.delete(*(f"email:job:{job_id}" for job_id in job_ids)) if job_ids else 0
        lists = [waiting_list, *map(bytes.decode, client.smembers(f"{waiting_list}:taken"))]
        waiting = sum(1 for name in lists for _ in _in_list(client, name, mentioned))
        streamed = _erase_from_stream(client, settings.redis_stream_email_jobs, mentioned)
    except (RedisError, OSError) as error:
        raise EmailWorkerError(
            f"Redis is away ({error}). Nothing was erased in Postgres, and perhaps not all in Redis: run it again"
        ) from None
    finally:
        client.close()
    return [
        Erased(f"entries of Redis's list {letters}", removed),
        Erased("statuses in Redis", statuses),
        Erased(
            f"messages that wait in Redis's list {waiting_list}, or in a taker's; run it again later",
            waiting,
            is_left=True,
        ),
        *streamed,
    ]


def _erase_from_stream(client: "Redis", stream: str, mentioned: re.Pattern[str]) -> list[Erased]:
    """Entries that are jobs by now are deleted; those that are not yet must become jobs first."""
    if not stream or not client.exists(stream):
        return []
    groups: Any = client.xinfo_groups(stream)
    ours = next((group for group in groups if group["name"] == STREAM_GROUP.encode()), None)
    removed = waiting = 0
    for identity in _in_stream(client, stream, mentioned):
        is_read = ours is not None and _order(identity) <= _order(ours["last-delivered-id"])
        if is_read and not client.xpending_range(stream, STREAM_GROUP, identity, identity, 1):
            removed += int(client.xdel(stream, identity))
        else:
            waiting += 1
    return [
        Erased(f"entries of Redis's stream {stream}", removed),
        Erased(f"messages that wait in Redis's stream {stream}; run it again later", waiting, is_left=True),
    ]


def _order(identity: bytes) -> tuple[int, int]:
    at, _, number = identity.partition(b"-")
    return int(at), int(number)


def _in_list(client: Any, name: str, mentioned: re.Pattern[str]) -> Iterator[bytes]:
    """The entries that mention the address."""
    start = 0
    while page := client.lrange(name, start, start + PAGE - 1):
        yield from (entry for entry in page if any(map(mentioned.search, _texts(entry))))
        start += PAGE


def _in_stream(client: Any, name: str, mentioned: re.Pattern[str]) -> Iterator[bytes]:
    """The names of the entries that mention it."""
    start = b"-"
    while page := client.xrange(name, start, "+", PAGE):
        for identity, fields in page:
            if any(mentioned.search(text) for value in fields.values() for text in _texts(value)):
                yield identity
        start = b"(" + page[-1][0]


def _mention_of(address: str) -> re.Pattern[str]:
    """The address as a whole word."""
    return re.compile(
        r"((?<![A-Za-z0-9._%+-])|(?<=\\[bfnrt]))" + re.escape(address) + r"(?![A-Za-z0-9-]|\.[A-Za-z0-9])",
        re.IGNORECASE,
    )


def _texts(raw: bytes, depth: int = DEPTH) -> Iterator[str]:
    """An entry as it is, and every text in it that JSON or Base64 wraps up."""
    yield raw.decode(errors="replace")
    if depth == 0:
        return
    try:
        wrapped = [json.loads(raw)]
    except (ValueError, RecursionError):
        return
    while wrapped:
        match wrapped.pop():
            case dict() as fields:
                wrapped += [*fields.values(), *fields.keys()]
                if isinstance(encoded := fields.get("message_base64"), str):
                    # What is no Base64 has been looked at as it is.
                    with suppress(ValueError):
                        yield from _texts(b64decode(encoded), depth - 1)
            case list() as items:
                wrapped += items
            case str() as text:
                yield from _texts(text.encode(errors="replace"), depth - 1)
