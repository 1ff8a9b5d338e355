"""The two scripts by which messages change hands inside Redis, one by one."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest

from tests.redis.site import Site
from worker.intake import PORTION_BYTES


def _script(name: str) -> str:
    return files("redis_ingest").joinpath("lua", f"{name}.lua").read_text()


@pytest.fixture
def take(site: Site) -> Callable[[str, int], int]:
    """Take so many messages into a list."""
    run: Any = site.redis.register_script(_script("take"))
    return lambda batch, most: int(run(keys=[site.jobs, batch, site.taken], args=[most, PORTION_BYTES]))


@pytest.fixture
def take_over(site: Site) -> Callable[[str, str, str], int]:
    """Take over a list whose owner has that heartbeat."""
    run: Any = site.redis.register_script(_script("take_over"))
    return lambda batch, heartbeat, mine: int(run(keys=[batch, heartbeat, mine, site.taken]))


def test_take_moves_the_oldest_messages_in_their_order(site: Site, take: Callable[[str, int], int]) -> None:
    """The left end goes into the taker's list, which is known from then on; the rest stays."""
    site.push("a", "b", "c", "d")
    mine = f"{site.taken}:me:1"
    assert take(mine, 3) == 3
    assert site.redis.lrange(mine, 0, -1) == ["a", "b", "c"]
    assert site.redis.lrange(site.jobs, 0, -1) == ["d"]
    assert site.batches() == [mine]


def test_take_appends_to_what_is_in_the_batch(site: Site, take: Callable[[str, int], int]) -> None:
    """What came while the taker waited stands before what is taken with it."""
    mine = f"{site.taken}:me:1"
    site.redis.rpush(mine, "came")
    site.push("a", "b")
    assert take(mine, 5) == 2
    assert site.redis.lrange(mine, 0, -1) == ["came", "a", "b"]


def test_take_of_an_empty_list_leaves_nothing_behind(site: Site, take: Callable[[str, int], int]) -> None:
    """No messages, no list, no entry in the set."""
    assert take(f"{site.taken}:me:1", 3) == 0
    assert site.keys() == []


@pytest.mark.parametrize("count", [999, 1000, 1001, 5000])
def test_take_moves_as_many_as_a_batch_may_have(site: Site, take: Callable[[str, int], int], count: int) -> None:
    """Up to the largest batch size, all messages and their order survive, whatever Lua's limit on arguments."""
    messages = [f"m-{number}" for number in range(count + 1)]
    site.push(*messages)
    mine = f"{site.taken}:me:1"
    assert take(mine, count) == count
    assert site.redis.lrange(mine, 0, -1) == messages[:count]
    assert site.redis.lrange(site.jobs, 0, -1) == messages[count:]


def test_take_keeps_every_byte(site: Site, take: Callable[[str, int], int]) -> None:
    """Messages pass through Lua as bytes: NUL, line ends and what is not UTF-8 are as they were."""
    raw = [bytes(range(256)), b"", b"\r\n", b"\xff\x00\xfe"]
    site.raw_redis.rpush(site.jobs, *raw)
    mine = f"{site.taken}:me:1"
    assert take(mine, 10) == len(raw)
    assert site.raw_redis.lrange(mine, 0, -1) == raw


def test_the_living_keep_what_they_took(site: Site, take_over: Callable[[str, str, str], int]) -> None:
    """While the owner's heartbeat is there, nothing is taken over."""
    theirs, mine = f"{site.taken}:other:1", f"{site.taken}:me:1"
    site.redis.rpush(theirs, "a")
    site.redis.sadd(site.taken, theirs)
    site.redis.set(f"{site.jobs}:taker:other", "")
    assert take_over(theirs, f"{site.jobs}:taker:other", mine) == 0
    assert site.redis.lrange(theirs, 0, -1) == ["a"]
    assert site.batches() == [theirs]


def test_what_the_dead_took_is_renamed_in_one_step(site: Site, take_over: Callable[[str, str, str], int]) -> None:
    """Without a heartbeat the list gets the new owner's name, in the set too; a second time there is nothing."""
    theirs, mine = f"{site.taken}:other:1", f"{site.taken}:me:1"
    site.redis.rpush(theirs, "a", "b")
    site.redis.sadd(site.taken, theirs)
    assert take_over(theirs, f"{site.jobs}:taker:other", mine) == 2
    assert site.redis.lrange(mine, 0, -1) == ["a", "b"]
    assert not site.redis.exists(theirs)
    assert site.batches() == [mine]
    assert take_over(theirs, f"{site.jobs}:taker:other", f"{site.taken}:me:2") == 0
    assert site.batches() == [mine]


def test_a_name_without_a_list_is_forgotten(site: Site, take_over: Callable[[str, str, str], int]) -> None:
    """An owner that died while it waited has an entry and no list: only the entry goes."""
    theirs = f"{site.taken}:other:1"
    site.redis.sadd(site.taken, theirs)
    assert take_over(theirs, f"{site.jobs}:taker:other", f"{site.taken}:me:1") == 0
    assert site.keys() == []
