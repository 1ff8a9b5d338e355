"""Where token buckets can be kept: in Redis, by one script a batch, or in Postgres, by one short transaction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from worker.buckets import Ask, Grant, Moment, State, answer, distinct_limits
from worker.db import array_literal, query
from worker.errors import BucketsLost
from worker.redis_client import async_client
from worker.settings import Settings

if TYPE_CHECKING:
    Pool = AsyncConnectionPool[AsyncConnection[Any]]

# Every batch waits for it: a Redis that takes longer is as good as away.
REDIS_SECONDS = 0.5

_SCRIPT = (Path(__file__).parent / "buckets.lua").read_text()


class PostgresBuckets:
    """Buckets as rows of email_buckets, locked while they are counted with."""

    def __init__(self, pool: "Pool") -> None:
        self._pool = pool

    async def ask(self, asks: Sequence[Ask], age: float, share: float, now: float | None = None) -> list[Grant]:
        """Answers by Postgres's clock, unless `now` is given. Raises psycopg.Error and PoolTimeout."""
        names = [limit.bucket for limit in distinct_limits(asks)]
        async with self._pool.connection() as connection, connection.transaction():
            rows = await _hold(connection, names)
            clock = max(row[-1] for row in rows) if now is None else now
            states = {name: State(*numbers) for name, *numbers, _ in rows}
            before = {name: msgspec.structs.astuple(state) for name, state in states.items()}
            grants = answer(asks, states, Moment(clock, age, share))
            changed = {name: state for name, state in states.items() if msgspec.structs.astuple(state) != before[name]}
            if changed:
                await connection.execute(query("put_buckets"), _columns(changed))
        return grants


async def _hold(connection: AsyncConnection[Any], names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of these buckets, locked; those that are not there yet are made."""
    parameters = {"buckets": array_literal(names)}
    rows = await (await connection.execute(query("hold_buckets"), parameters)).fetchall()
    if len(rows) < len(names):
        await connection.execute(query("make_buckets"), parameters)
        rows = await (await connection.execute(query("hold_buckets"), parameters)).fetchall()
    return rows


def _columns(states: dict[str, State]) -> dict[str, object]:
    return {
        "buckets": array_literal(states),
        "used": array_literal(state.used for state in states.values()),
        "transactional_lines": array_literal(state.transactional_line for state in states.values()),
        "bulk_lines": array_literal(state.bulk_line for state in states.values()),
        "transactional_turns": array_literal(state.transactional_turns for state in states.values()),
        "bulk_turns": array_literal(state.bulk_turns for state in states.values()),
        "slownesses": array_literal(state.slowness for state in states.values()),
        "slowed_ats": array_literal(state.slowed_at for state in states.values()),
    }


class RedisBuckets:
    """Buckets as hashes, and the number of the epoch: a Redis that does not know it has lost what it kept."""

    def __init__(self, settings: Settings) -> None:
        self._client = async_client(settings, REDIS_SECONDS)
        self._script = self._client.register_script(_SCRIPT)
        # One slot of a cluster, and apart from whoever else uses this Redis for another database.
        self._prefix = f"email:{{limits:{settings.db_name}}}:"

    async def ask(
        self, asks: Sequence[Ask], epoch: int, age: float, share: float, now: float | None = None
    ) -> list[Grant]:
        """Answers by Redis's clock, unless `now` is given. Raises BucketsLost when Redis is away, or has forgotten."""
        from redis import RedisError

        limits = distinct_limits(asks)
        places = {limit.bucket: number for number, limit in enumerate(limits, 2)}
        keys = [self._prefix + "epoch", *(self._prefix + limit.bucket for limit in limits)]
        arguments: list[Any] = [epoch, age, share, "" if now is None else repr(now)]
        for limit in limits:
            arguments += (repr(limit.interval), limit.burst)
        for ask in asks:
            arguments += (ask.kind, ask.count, int(ask.is_bulk), int(ask.has_turn), repr(ask.ago), len(ask.limits))
            arguments += (places[limit.bucket] for limit in ask.limits)
        try:
            found = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise BucketsLost(f"Redis: {error}", has_forgotten="EPOCH" in str(error)) from None
        return [Grant(tokens, float(seconds)) for tokens, seconds in zip(found[::2], found[1::2], strict=True)]

    async def look(self) -> None:
        """Raises BucketsLost when Redis does not answer, or takes nothing: one that is full still answers a ping."""
        from redis import RedisError

        try:
            await self._client.set(self._prefix + "look", 1, ex=60)
        except (RedisError, OSError) as error:
            raise BucketsLost(f"Redis: {error}") from None

    async def begin_epoch(self, epoch: int) -> None:
        """From now on this Redis keeps that epoch. Raises BucketsLost."""
        from redis import RedisError

        try:
            await self._client.set(self._prefix + "epoch", epoch)
        except (RedisError, OSError) as error:
            raise BucketsLost(f"Redis: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
