"""Who keeps the fleet's token buckets: Redis where there is one and it works, else Postgres; never both at once.

The row of email_bucket_keeper says who. Each process looks at it once a second, and a change begins later than that, so
nobody takes a token from the old keeper once the new one gives some. What the old one gave last is unknown to the new
one, which holds the burst of every bucket back at first.
"""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.bucket_stores import PostgresBuckets, RedisBuckets
from worker.buckets import Ask, Grant, Kind
from worker.db import query
from worker.errors import BucketsLost
from worker.settings import Settings

if TYPE_CHECKING:
    Pool = AsyncConnectionPool[AsyncConnection[Any]]

LOOK_SECONDS = 1.0
SWITCH_SECONDS = 1.5
# How long Postgres keeps the buckets before Redis is tried again.
TRY_REDIS_SECONDS = 10.0
# When nobody can be asked.
AWAY_SECONDS = 1.0
# When Redis was too slow once.
AGAIN_SECONDS = 0.05
# The age of an epoch from which on nothing is held back.
ALWAYS = 1e9

log = structlog.get_logger(__name__)


class _Epoch(NamedTuple):
    keeper: str
    number: int
    began: float


class BucketKeeper:
    """Asks whoever keeps the buckets now."""

    def __init__(self, settings: Settings, pool: "Pool") -> None:
        self._pool = pool
        self._share = settings.email_rate_transactional_share
        self._postgres = PostgresBuckets(pool)
        self._redis = RedisBuckets(settings) if settings.redis_host else None
        self._is_in_use = False
        self._epoch: _Epoch | None = None
        self._looked_at = float("-inf")
        self._tried_redis_at = float("-inf")
        self._change: asyncio.Task[None] | None = None

    async def ask(self, asks: Sequence[Ask]) -> list[Grant]:
        """An answer for each question. While nobody can answer, everything has to wait."""
        self._is_in_use = True
        try:
            return await self._ask(asks)
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("the rate limits cannot be asked", error=str(error).strip())
            return _wait(asks, AWAY_SECONDS)

    async def count(self, asks: Sequence[Ask]) -> list[Grant]:
        """Answers about ceilings, which are always kept in Postgres: a day's count must survive a change of keeper."""
        self._is_in_use = True
        try:
            return await self._postgres.ask(asks, ALWAYS, self._share)
        except (psycopg.Error, PoolTimeout) as error:
            log.warning("the ceilings cannot be asked", error=str(error).strip())
            return _wait(asks, AWAY_SECONDS)

    async def close(self) -> None:
        """Let go of Redis."""
        if self._change is not None:
            self._change.cancel()
            await asyncio.gather(self._change, return_exceptions=True)
        if self._redis is not None:
            await self._redis.close()

    async def tidy(self) -> None:
        """Forget the buckets in Postgres that say nothing any more."""
        if not self._is_in_use:
            return
        async with self._pool.connection() as connection:
            await connection.execute(query("drop_old_buckets"))

    async def _ask(self, asks: Sequence[Ask]) -> list[Grant]:
        epoch = await self._current_epoch()
        age = asyncio.get_running_loop().time() - epoch.began
        if age < 0:
            return await self._wait_for_epoch(asks, -age)
        if epoch.keeper == "postgres":
            self._try_redis(epoch)
            return self._in_time(epoch, asks, await self._postgres.ask(asks, age, self._share))
        if self._redis is None:
            await self._begin_epoch("postgres", epoch, "REDIS_HOST is not set for this worker")
            return await self._wait_for_epoch(asks, SWITCH_SECONDS)
        try:
            return self._in_time(epoch, asks, await self._redis.ask(asks, epoch.number, age, self._share))
        except BucketsLost as error:
            if await self._was_a_moment(self._redis, error):
                return _wait(asks, AGAIN_SECONDS)
            await self._begin_epoch("postgres", epoch, str(error))
            return await self._wait_for_epoch(asks, SWITCH_SECONDS)

    def _in_time(self, epoch: _Epoch, asks: Sequence[Ask], grants: list[Grant]) -> list[Grant]:
        """The answers, unless they took so long that somebody else may keep the buckets now."""
        now = self._epoch
        is_same = now is not None and now.number == epoch.number
        if is_same and asyncio.get_running_loop().time() - self._looked_at < SWITCH_SECONDS:
            return grants
        return _wait(asks, AGAIN_SECONDS)

    async def _wait_for_epoch(self, asks: Sequence[Ask], seconds: float) -> list[Grant]:
        """Claims come again later; mails that are claimed already wait here, for nobody could give them a turn."""
        if any(ask.kind is Kind.MAIL for ask in asks):
            await asyncio.sleep(seconds)
            return await self._ask(asks)
        return _wait(asks, seconds)

    async def _was_a_moment(self, redis: RedisBuckets, error: BucketsLost) -> bool:
        """Whether Redis is there after all: a worker that was busy, or stopped, must not move the whole fleet."""
        if error.has_forgotten:
            return False
        try:
            await redis.look()
        except BucketsLost:
            return False
        return True

    async def _current_epoch(self) -> _Epoch:
        now = asyncio.get_running_loop().time()
        if self._epoch is None or now - self._looked_at >= LOOK_SECONDS:
            async with self._pool.connection() as connection:
                cursor = await connection.execute(query("read_bucket_keeper"))
                row = await cursor.fetchone()
            assert row is not None
            # The younger it is taken for, the later it begins; the older the look, the sooner comes the next.
            self._epoch = _Epoch(row[0], row[1], asyncio.get_running_loop().time() - row[2])
            self._looked_at = now
        return self._epoch

    def _try_redis(self, epoch: _Epoch) -> None:
        now = asyncio.get_running_loop().time()
        if self._redis is None or now - self._tried_redis_at < TRY_REDIS_SECONDS:
            return
        is_first = self._tried_redis_at == float("-inf")
        self._tried_redis_at = now
        if is_first or now - epoch.began >= TRY_REDIS_SECONDS:
            self._change = asyncio.create_task(self._change_to_redis(self._redis, epoch), name="buckets to redis")

    async def _change_to_redis(self, redis: RedisBuckets, epoch: _Epoch) -> None:
        try:
            await redis.look()
            number = await self._begin_epoch("redis", epoch, "it answers")
            if number is not None:
                await redis.begin_epoch(number)
        except (BucketsLost, psycopg.Error, PoolTimeout) as error:
            log.warning("Postgres goes on keeping the rate limits", reason=str(error).strip())

    async def _begin_epoch(self, keeper: str, epoch: _Epoch, why: str) -> int | None:
        """Change the keeper, if nobody else did; returns the number of the new epoch."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                query("change_bucket_keeper"),
                {"keeper": keeper, "epoch": epoch.number, "begins_in": SWITCH_SECONDS},
            )
            row = await cursor.fetchone()
        self._epoch = None
        if row is None:
            return None
        log.warning("the rate limits are kept elsewhere now", keeper=keeper, reason=why)
        return int(row[0])


def _wait(asks: Sequence[Ask], seconds: float) -> list[Grant]:
    return [Grant(0, seconds)] * len(asks)
