"""Token buckets: the limit in any window, turns, classes, and what throttled-py says to the same questions."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from throttled import MemoryStore, RateLimiterType, Throttled, per_sec, utils

from tests.limits.fleet import AskAt, assert_within, drain
from worker.buckets import NOT_TODAY, SLOWEST, Ask, Grant, Kind, Limit, Moment, State, answer, distinct_limits

NOW = 1_800_000_000.0
OLD = 1e9


class Buckets:
    """Buckets in memory, by a clock of the test's."""

    def __init__(self, share: float = 0.0, age: float = OLD) -> None:
        self.states: dict[str, State] = {}
        self.share = share
        self.began = NOW - age

    def ask(self, asks: Sequence[Ask], now: float) -> list[Grant]:
        for limit in distinct_limits(asks):
            self.states.setdefault(limit.bucket, State())
        return answer(asks, self.states, Moment(now, now - self.began, self.share))

    async def ask_at(self, asks: Sequence[Ask], now: float) -> list[Grant]:
        return self.ask(asks, now)

    def take(self, limit: Limit, now: float, count: int = 1, *, is_bulk: bool = False) -> Grant:
        return self.ask([Ask(Kind.TAKE, [limit], count, is_bulk)], now)[0]

    def mail(self, limits: Sequence[Limit], now: float, *, is_bulk: bool = False, has_turn: bool = False) -> Grant:
        return self.ask([Ask(Kind.MAIL, limits, 1, is_bulk, has_turn)], now)[0]


@given(
    st.integers(1, 50),
    st.integers(1, 30),
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 10)), min_size=1, max_size=60),
)
def test_it_is_gcra_as_another_library_has_it(rate: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """The same yes and no as throttled-py's, at any times and costs."""
    clock = [NOW]
    original, utils.now_mono_f = utils.now_mono_f, lambda: clock[0]
    try:
        quota = per_sec(rate, burst=burst)
        oracle = Throttled(key="k", using=RateLimiterType.GCRA.value, quota=quota, store=MemoryStore())
        ours, limit = Buckets(), Limit("b", 1 / rate, burst)
        for milliseconds, cost in steps:
            # Off the grid on which a comparison of floats decides.
            clock[0] += milliseconds / 1000 + 0.000_013
            if cost > burst:
                continue
            theirs = oracle.limit(cost=cost)
            grant = ours.ask([Ask(Kind.MAIL, [limit], cost)], clock[0])[0]
            assert bool(grant.tokens) == (not theirs.limited)
            if not grant.tokens:
                # They keep no line; so neither may we, for this comparison.
                ours.states["b"].transactional_line = 0.0
                assert grant.wait_seconds == pytest.approx(theirs.state.retry_after, abs=1e-6)
    finally:
        utils.now_mono_f = original


@pytest.mark.parametrize("burst", [1, 14])
async def test_eight_workers_use_the_limit_and_never_exceed_it(burst: int) -> None:
    """Ten minutes by a scripted clock: the limit in any window, and at least 95 % of it used."""
    limit = Limit("provider ses", 1 / 14, burst)
    went = await drain(Buckets().ask_at, limit, workers=8, batch=50, begins=NOW, seconds=600)
    assert_within(went, limit)
    assert len(went) >= 0.95 * 600 * 14


@given(st.data())
def test_no_order_of_questions_exceeds_a_limit(data: st.DataObject) -> None:
    """Takes, mails, turns taken early and late, of both classes, and tokens that come back at once."""
    limit = Limit("b", data.draw(st.sampled_from([0.02, 0.5, 3.0])), data.draw(st.integers(1, 20)))
    buckets = Buckets(share=data.draw(st.sampled_from([0.0, 0.2, 0.9])))
    now = NOW
    went: list[float] = []
    turns: list[float] = []
    for _ in range(data.draw(st.integers(1, 60))):
        now += data.draw(st.sampled_from([0.0, 0.001, 0.01, 0.3, 2.0, 20.0]))
        is_bulk = data.draw(st.booleans())
        if data.draw(st.booleans()):
            grant = buckets.take(limit, now, data.draw(st.integers(1, 30)), is_bulk=is_bulk)
            kept = data.draw(st.integers(0, grant.tokens))
            if kept < grant.tokens:
                buckets.ask([Ask(Kind.GIVE, [limit], grant.tokens - kept, is_bulk)], now)
            went += [now] * kept
            continue
        due = [turn for turn in turns if turn <= now]
        takes_turn: bool = data.draw(st.booleans())
        if due and takes_turn:
            turns.remove(due[0])
        grant = buckets.mail([limit], now, is_bulk=is_bulk, has_turn=bool(due) and takes_turn)
        went += [now] * grant.tokens
        if not grant.tokens:
            turns.append(now + grant.wait_seconds)
    assert_within(went, limit)


def test_each_that_waits_has_a_moment_of_its_own() -> None:
    """Ten mails at a limit of two a second wait half a second each behind one another, and all go when they come."""
    limit = Limit("domain example.com", 0.5, 1)
    buckets = Buckets()
    grants = [buckets.mail([limit], NOW) for _ in range(10)]
    assert [grant.wait_seconds for grant in grants] == pytest.approx([n * 0.5 for n in range(10)])
    for grant in grants[1:]:
        assert buckets.mail([limit], NOW + grant.wait_seconds + 0.0001, has_turn=True).tokens in (0, 1)


def test_who_waited_goes_before_who_comes_new() -> None:
    """A fresh mail at the very moment of another's turn gets the last place."""
    limit = Limit("b", 1.0, 1)
    buckets = Buckets()
    buckets.mail([limit], NOW)
    waits = buckets.mail([limit], NOW).wait_seconds
    assert buckets.mail([limit], NOW + waits).wait_seconds == pytest.approx(1.0)
    assert buckets.mail([limit], NOW + waits, has_turn=True).tokens == 1


def test_those_who_missed_their_turns_come_one_after_the_other() -> None:
    """After an hour in which no worker ran, the hundred that waited do not go all at once, nor behind who comes new."""
    limit = Limit("b", 1.0, 1)
    buckets = Buckets()
    for _ in range(100):
        buckets.mail([limit], NOW)
    later = NOW + 3600
    grants = [buckets.mail([limit], later, has_turn=True) for _ in range(99)]
    assert [grant.wait_seconds for grant in grants] == pytest.approx([float(n) for n in range(99)])
    assert buckets.mail([limit], later).wait_seconds == pytest.approx(99.0)
    assert buckets.mail([limit], later + 1, has_turn=True).tokens == 1


def test_turns_taken_late_again_and_again_starve_nobody() -> None:
    """Claims that always come more than a second late: a hundred mails at five a second need their twenty seconds."""
    limit = Limit("domain example.com", 0.2, 1)
    buckets = Buckets()
    waiting = [(NOW, False)] * 100
    went: list[float] = []
    snoozes = 0
    while waiting:
        moment, has_turn = waiting.pop(0)
        now = moment + 1.1
        grant = buckets.mail([limit], now, has_turn=has_turn)
        if grant.tokens:
            went.append(now)
        else:
            snoozes += 1
            waiting = sorted([*waiting, (now + grant.wait_seconds, True)])
    assert_within(went, limit)
    assert max(went) - NOW < 30
    assert snoozes < 300


def test_a_line_in_which_nobody_stands_is_forgotten() -> None:
    """Forty that waited were cancelled: whoever comes later does not wait for them."""
    limit = Limit("domain example.com", 2.0, 1)
    buckets = Buckets()
    for _ in range(40):
        buckets.mail([limit], NOW)
    assert buckets.mail([limit], NOW + 6).tokens == 1


def test_what_comes_back_late_is_not_there_twice() -> None:
    """Ten taken, and given back when the bucket has filled up meanwhile: no more than a burst goes."""
    limit = Limit("b", 1.0, 10)
    buckets = Buckets()
    assert buckets.take(limit, NOW, 10).tokens == 10
    assert buckets.take(limit, NOW + 10.001, 10).tokens == 10
    buckets.ask([Ask(Kind.GIVE, [limit], 10, ago=10.001)], NOW + 10.001)
    assert buckets.take(limit, NOW + 10.001, 10).tokens == 0


def test_bulk_leaves_a_share_that_transactional_mail_finds() -> None:
    """A campaign takes what there is but a fifth of the burst; alone it has the whole rate all the same."""
    limit = Limit("b", 0.1, 10)
    buckets = Buckets(share=0.2)
    assert buckets.take(limit, NOW, 50, is_bulk=True).tokens == 8
    assert buckets.take(limit, NOW, 50, is_bulk=True).wait_seconds == pytest.approx(0.1)
    assert buckets.take(limit, NOW, 50).tokens == 2
    went = asyncio.run(drain(_as_bulk(Buckets(share=0.2)), limit, 4, 50, NOW, 100))
    assert len(went) >= 0.95 * 1000
    assert_within(went, limit)


def _as_bulk(buckets: Buckets) -> AskAt:
    async def ask(asks: Sequence[Ask], now: float) -> list[Grant]:
        return buckets.ask([Ask(ask.kind, ask.limits, ask.count, True) for ask in asks], now)

    return ask


def test_transactional_mail_does_not_wait_behind_a_campaign() -> None:
    """A thousand bulk mails stand in line for a domain; a password reset goes at once, and moves them back."""
    limit = Limit("domain example.com", 0.1, 10)
    buckets = Buckets(share=0.2)
    waits = [buckets.mail([limit], NOW, is_bulk=True).wait_seconds for _ in range(1000)]
    assert buckets.mail([limit], NOW).tokens == 1
    assert buckets.mail([limit], NOW, is_bulk=True).wait_seconds == pytest.approx(waits[-1] + 0.2)


def test_a_mail_waits_for_the_slowest_of_its_limits_and_stands_in_line_only_there() -> None:
    """The limits that would let it go are not charged for what does not go."""
    person, domain = Limit("recipient x", 180.0, 1), Limit("domain example.com", 0.1, 10)
    buckets = Buckets()
    assert buckets.mail([person, domain], NOW).tokens == 1
    used = buckets.states["domain example.com"].used
    assert buckets.mail([person, domain], NOW).wait_seconds == pytest.approx(180.0)
    assert buckets.states["domain example.com"].used == used


def test_a_ceiling_counts_and_then_is_closed() -> None:
    """Three today, and nothing is charged elsewhere for the fourth."""
    ceiling, rate = Limit("ceiling ses * 2030-01-01", 0, 3), Limit("provider ses", 0.01, 100)
    buckets = Buckets()
    assert [buckets.mail([ceiling, rate], NOW).tokens for _ in range(3)] == [1, 1, 1]
    used = buckets.states["provider ses"].used
    assert buckets.mail([ceiling, rate], NOW) == Grant(0, NOT_TODAY)
    assert buckets.states["provider ses"].used == used


def test_a_bucket_that_was_slowed_down_recovers_by_itself() -> None:
    """Half the pace at once, one tenth of it after more, a sixteenth at least; all of it again after some minutes."""
    limit = Limit("b", 0.1, 1)
    buckets = Buckets()

    def rate(now: float) -> float:
        went = asyncio.run(drain(buckets.ask_at, limit, 2, 5, now, 10))
        return len(went) / 10

    assert rate(NOW) == pytest.approx(10, rel=0.05)
    buckets.ask([Ask(Kind.SLOW, [limit])] * 50, NOW + 20)
    assert buckets.states["b"].slowness == pytest.approx(2.0)
    assert 4 < rate(NOW + 20) < 6.5
    for second in range(100, 120):
        buckets.ask([Ask(Kind.SLOW, [limit])], NOW + second)
    assert buckets.states["b"].slowness <= SLOWEST
    assert rate(NOW + 120) < 1.5
    assert rate(NOW + 600) == pytest.approx(10, rel=0.05)


def test_after_a_change_of_keeper_the_burst_is_held_back() -> None:
    """What the old keeper gave last is not known: the new one begins empty, but lets nobody wait long for that."""
    fast, slow = Limit("b", 0.1, 10), Limit("recipient x", 180.0, 5)
    buckets = Buckets(age=0.0)
    assert buckets.take(fast, NOW, 50).tokens == 0
    assert buckets.take(fast, NOW + 0.1001, 50).tokens == 1
    assert Buckets(age=0.0).mail([slow], NOW).tokens == 1


def test_more_than_a_burst_at_once_goes_when_the_bucket_is_full() -> None:
    """A mail with twenty copies under a burst of five: later than others, not never."""
    limit = Limit("b", 0.1, 5)
    buckets = Buckets()
    ask = Ask(Kind.MAIL, [limit], 20)
    assert buckets.ask([ask], NOW)[0].tokens == 20
    assert buckets.ask([ask], NOW)[0].wait_seconds == pytest.approx(2.0)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.integers(0, 3)), max_size=30))
def test_tokens_that_come_back_leave_nothing_behind(looks: list[tuple[bool, int, int]]) -> None:
    """Workers of both queues that take and find no job, in any order and at once: then the bucket is full again."""
    limit = Limit("b", 60.0, 10)
    buckets, held, now = Buckets(share=0.2), [], NOW
    for is_bulk, count, given_back in looks:
        now += 0.01
        grant = buckets.take(limit, now, count, is_bulk=is_bulk)
        held.append((grant.tokens, is_bulk))
        for _ in range(min(given_back, len(held))):
            tokens, was_bulk = held.pop(0)
            buckets.ask([Ask(Kind.GIVE, [limit], tokens, was_bulk)], now)
    for tokens, was_bulk in held:
        buckets.ask([Ask(Kind.GIVE, [limit], tokens, was_bulk)], now)
    assert buckets.take(limit, now + 1.0, 50).tokens == 10
