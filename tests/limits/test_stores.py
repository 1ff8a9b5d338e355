"""Buckets in Redis and in Postgres: the same answers as the rules in Python, and the limit under real contention."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from lab.redis import RedisServer
from tests.limits.fleet import assert_within, drain
from tests.support import Database
from worker.bucket_stores import PostgresBuckets, RedisBuckets
from worker.buckets import Ask, Grant, Kind, Limit, Moment, State, answer, distinct_limits
from worker.db import open_pool
from worker.errors import BucketsLost

NOW = 1_800_000_000.0
OLD = 1e9
EPOCH = 7

LIMITS = (
    Limit("provider smtp", 1 / 14, 14),
    Limit("domain example.com", 0.5, 1),
    Limit("recipient x", 180.0, 3),
    Limit("ceiling smtp * 2027-01-15", 0, 5),
)
_one = st.builds(
    Ask,
    st.sampled_from([Kind.TAKE, Kind.GIVE, Kind.SLOW]),
    st.sampled_from([[limit] for limit in LIMITS[:3]]),
    st.integers(1, 20),
    st.booleans(),
    st.just(False),
    st.sampled_from([0.0, 0.3, 20.0]),
)
_mail = st.builds(
    Ask,
    st.just(Kind.MAIL),
    st.lists(st.sampled_from(LIMITS), min_size=1, max_size=4, unique=True),
    st.integers(1, 4),
    st.booleans(),
    st.booleans(),
)
# Some questions at a time, with pauses between the times.
QUESTIONS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.017, 0.6, 3.3, 40.0]), st.lists(_one | _mail, min_size=1, max_size=6)),
    min_size=1,
    max_size=12,
)
many = hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@asynccontextmanager
async def redis_buckets(database: Database, server: RedisServer) -> AsyncIterator[RedisBuckets]:
    """Buckets in a Redis that knows nothing yet but the epoch."""
    client = server.client()
    for key in client.scan_iter(f"email:{{limits:{database.name}}}:*"):
        client.delete(key)
    client.close()
    buckets = RedisBuckets(database.settings(**server.environment()))
    try:
        await buckets.begin_epoch(EPOCH)
        yield buckets
    finally:
        await buckets.close()


@asynccontextmanager
async def postgres_buckets(database: Database) -> AsyncIterator[PostgresBuckets]:
    """Buckets in an empty table."""
    async with open_pool(database.settings(), "tests limits", most=1) as pool:
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE email_buckets")
        yield PostgresBuckets(pool)


class Rules:
    """The rules in Python, on states in memory."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}

    def ask(self, asks: Sequence[Ask], now: float, age: float) -> list[Grant]:
        for limit in distinct_limits(asks):
            self._states.setdefault(limit.bucket, State())
        return answer(asks, self._states, Moment(now, age, 0.2))


def same(found: Sequence[Grant], expected: Sequence[Grant]) -> bool:
    return [grant.tokens for grant in found] == [grant.tokens for grant in expected] and [
        grant.wait_seconds for grant in found
    ] == pytest.approx([grant.wait_seconds for grant in expected], abs=1e-4)


@many
@given(QUESTIONS, st.sampled_from([0.0, 2.0, OLD]))
def test_redis_answers_as_the_rules_do(
    limits_redis: RedisServer, database: Database, questions: list[tuple[float, list[Ask]]], age: float
) -> None:
    """Any questions at any times, from the first moment of an epoch on."""

    async def compare() -> None:
        async with redis_buckets(database, limits_redis) as buckets:
            # Off the grid on which a comparison of floats decides.
            now, rules = NOW, Rules()
            for pause, asks in questions:
                now += pause + 0.000_37
                found = await buckets.ask(asks, EPOCH, age + now - NOW, 0.2, now)
                assert same(found, rules.ask(asks, now, age + now - NOW)), (asks, now)

    asyncio.run(compare())


@many
@given(QUESTIONS)
def test_postgres_keeps_what_the_rules_say(database: Database, questions: list[tuple[float, list[Ask]]]) -> None:
    """The rows hold the states from one question to the next."""

    async def compare() -> None:
        async with postgres_buckets(database) as buckets:
            now, rules = NOW, Rules()
            for pause, asks in questions:
                now += pause + 0.000_37
                assert same(await buckets.ask(asks, OLD, 0.2, now), rules.ask(asks, now, OLD)), (asks, now)

    asyncio.run(compare())


@pytest.mark.parametrize("burst", [1, 14])
@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_ten_minutes_of_eight_workers_by_a_scripted_clock(
    store: str, burst: int, limits_redis: RedisServer, database: Database
) -> None:
    """In any window no more than the limit, and at least 95 % of it used."""
    limit = Limit("provider ses", 1 / 14, burst)
    if store == "redis":
        async with redis_buckets(database, limits_redis) as redis:
            went = await drain(lambda asks, now: redis.ask(asks, EPOCH, OLD, 0.0, now), limit, 8, 50, NOW, 600)
    else:
        async with postgres_buckets(database) as rows:
            went = await drain(lambda asks, now: rows.ask(asks, OLD, 0.0, now), limit, 8, 50, NOW, 600)
    assert_within(went, limit)
    assert len(went) >= 0.95 * 600 * 14


@pytest.mark.parametrize("store", ["redis", "postgres"])
async def test_many_who_ask_at_once_get_no_more_than_there_is(
    store: str, limits_redis: RedisServer, database: Database
) -> None:
    """Twenty tasks on connections of their own, by the store's own clock: a burst of 50, and what time brings."""
    limit = Limit("b", 60.0, 50)
    asks: Any
    if store == "redis":
        async with redis_buckets(database, limits_redis) as redis:
            asks = [redis.ask([Ask(Kind.TAKE, [limit], 7)], EPOCH, OLD, 0.0) for _ in range(20)]
            grants = await asyncio.gather(*asks)
    else:
        async with open_pool(database.settings(), "tests limits", most=8) as pool:
            rows = PostgresBuckets(pool)
            grants = await asyncio.gather(*(rows.ask([Ask(Kind.TAKE, [limit], 7)], OLD, 0.0) for _ in range(20)))
    assert sum(grant[0].tokens for grant in grants) == 50


async def test_batches_that_name_the_same_buckets_in_any_order_do_not_lock_each_other(database: Database) -> None:
    """A hundred transactions over the same five rows, forwards and backwards: no deadlock."""
    limits = [Limit(f"domain {n}.example", 0.001, 1000) for n in range(5)]
    async with open_pool(database.settings(), "tests limits", most=8) as pool:
        rows = PostgresBuckets(pool)
        orders = [limits, limits[::-1]] * 50
        grants = await asyncio.gather(
            *(rows.ask([Ask(Kind.MAIL, [limit]) for limit in order], OLD, 0.0) for order in orders)
        )
    assert all(grant.tokens == 1 for found in grants for grant in found)


async def test_a_redis_that_has_forgotten_says_so(limits_redis: RedisServer, database: Database) -> None:
    """After FLUSHALL, or with another epoch, nobody gets a token."""
    limit = Limit("b", 1.0, 1)
    async with redis_buckets(database, limits_redis) as buckets:
        with pytest.raises(BucketsLost):
            await buckets.ask([Ask(Kind.TAKE, [limit])], EPOCH + 1, OLD, 0.0)
        client = limits_redis.client()
        for key in client.scan_iter(f"email:{{limits:{database.name}}}:*"):
            client.delete(key)
        client.close()
        with pytest.raises(BucketsLost):
            await buckets.ask([Ask(Kind.TAKE, [limit])], EPOCH, OLD, 0.0)


async def test_redis_forgets_buckets_that_are_full_again(limits_redis: RedisServer, database: Database) -> None:
    """Every key has a life time of about as long as it can matter, and what changes nothing writes nothing."""
    person, ceiling = Limit("recipient x", 180.0, 3), Limit("ceiling smtp * 2027-01-15", 0, 5)
    client = limits_redis.client()
    prefix = f"email:{{limits:{database.name}}}:"
    async with redis_buckets(database, limits_redis) as buckets:
        await buckets.ask([Ask(Kind.MAIL, [person, ceiling])], EPOCH, OLD, 0.0)
        await buckets.ask([Ask(Kind.MAIL, [Limit("never", 0, 0)])], EPOCH, OLD, 0.0)
    assert 170 <= client.ttl(prefix + "recipient x") <= 182
    assert 86_400 < client.ttl(prefix + "ceiling smtp * 2027-01-15") <= 172_800
    assert not client.exists(prefix + "never")
    client.close()
