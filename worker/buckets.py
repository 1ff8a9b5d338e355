"""Token buckets: GCRA, with turns for those who wait. Pure; `buckets.lua` has the same rules for Redis.

GCRA (the generic cell rate algorithm, ITU-T I.371) keeps one moment per bucket, `used`: when it will be full again. A
mail goes if that is no farther away than the burst lasts, so in any T seconds at most rate × T + burst go. Mail that
must wait gets a place in line, one for transactional mail and one for bulk, and with it the moment of its turn. When it
comes again then, only `used` is asked: nobody who came later goes before it, and a turn that is taken late can break no
limit. If others were faster after all, it gets a place in a second line, of those who have had their turn, before the
first. All times are seconds since 1970.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

# A line in which nobody has moved for an interval and so much is one that nobody stands in any more.
IDLE_SECONDS = 1.0
# After a change of keeper nothing is known of a bucket, and its burst is held back; this long at most.
HELD_BACK_SECONDS = 5.0
# A bucket that was slowed down has half recovered after this time.
HALF_LIFE_SECONDS = 30.0
SLOWEST = 16.0
# What many mails are told by one overload slows it down once.
SLOW_AGAIN_SECONDS = 1.0
# The wait of what finds a daily ceiling reached.
NOT_TODAY = -1.0


class Kind(StrEnum):
    """What a bucket can be asked: tokens before a claim, a mail's way, tokens back (-3: 3 are owed), to be slower."""

    TAKE = "take"
    MAIL = "mail"
    GIVE = "give"
    SLOW = "slow"


class Limit(msgspec.Struct, frozen=True):
    """A bucket by its name. With an interval of 0 it is a daily ceiling: `burst` mails, then no more."""

    bucket: str
    interval: float
    burst: int


class Ask(msgspec.Struct, frozen=True):
    """One question. A mail asks all its limits at once; the other kinds ask one.

    `has_turn`: it has waited for its moment. `ago` is how many seconds ago tokens were taken that come back.
    """

    kind: Kind
    limits: Sequence[Limit]
    count: int = 1
    is_bulk: bool = False
    has_turn: bool = False
    ago: float = 0.0


class Grant(msgspec.Struct, frozen=True):
    """The answer: tokens, or after how many seconds to come again; NOT_TODAY for a ceiling."""

    tokens: int
    wait_seconds: float


class State(msgspec.Struct):
    """What is kept of a bucket: a row of email_buckets, or a hash in Redis."""

    used: float = 0.0
    transactional_line: float = 0.0
    bulk_line: float = 0.0
    transactional_turns: float = 0.0
    bulk_turns: float = 0.0
    slowness: float = 1.0
    slowed_at: float = 0.0


class Moment(msgspec.Struct, frozen=True):
    """When the buckets are asked: seconds since 1970, the age of the keeper's epoch, and the share that bulk leaves."""

    now: float
    age: float
    share: float


class Bucket:
    """One bucket at one moment."""

    def __init__(self, limit: Limit, state: State, moment: Moment) -> None:
        self.limit = limit
        self.state = state
        self._now = moment.now
        self._reserve = moment.share * limit.burst * limit.interval
        if self.is_ceiling:
            return
        held_back = min(limit.burst * limit.interval, HELD_BACK_SECONDS)
        state.used = max(state.used, moment.now - moment.age + held_back)
        self._pace()
        if state.used < moment.now - self._step - IDLE_SECONDS:
            # Whoever stood there was cancelled, or sent otherwise.
            state.transactional_line = state.bulk_line = state.transactional_turns = state.bulk_turns = 0.0

    @property
    def is_ceiling(self) -> bool:
        """Whether it counts the mails of a day."""
        return self.limit.interval == 0

    def _pace(self) -> None:
        recovered: float = 0.5 ** ((self._now - self.state.slowed_at) / HALF_LIFE_SECONDS)
        self._step = self.limit.interval * (1 + (self.state.slowness - 1) * recovered)

    def is_reached(self, count: int) -> bool:
        """Whether this ceiling has no room for so many more; more than the whole of it goes when it is untouched."""
        most = self.limit.burst
        return most == 0 or self.state.used + min(count, most) > most

    def wait(self, count: int, *, is_bulk: bool, has_turn: bool) -> float:
        """Seconds until so many may go; 0 or less: now."""
        place = self.state.used if has_turn else self._place(is_bulk=is_bulk)
        return place + self._others(count, is_bulk=is_bulk) - self._slack(is_bulk=is_bulk) - self._now

    def _others(self, count: int, *, is_bulk: bool) -> float:
        """What more than one needs beside; more than a full bucket holds would never go."""
        return min((count - 1) * self.limit.interval, self._slack(is_bulk=is_bulk))

    def room(self, most: int, *, is_bulk: bool) -> int:
        """How many may go now, once one may."""
        free = self._now + self._slack(is_bulk=is_bulk) - max(self._place(is_bulk=is_bulk), self._now)
        return min(most, 1 + max(0, int(free / self._step)))

    def _place(self, *, is_bulk: bool) -> float:
        """Behind those who wait: bulk behind transactional mail too."""
        state = self.state
        place = max(state.used, state.transactional_line, state.transactional_turns)
        return max(place, state.bulk_line, state.bulk_turns) if is_bulk else place

    def _slack(self, *, is_bulk: bool) -> float:
        """How much earlier than its place something may go: the burst, of which bulk leaves a share."""
        slack = (self.limit.burst - 1) * self.limit.interval
        return max(0.0, slack - self._reserve) if is_bulk else slack

    def take(self, count: int, *, is_bulk: bool, has_turn: bool) -> None:
        """So many go now."""
        if self.is_ceiling:
            self.state.used += count
            return
        seconds = count * self._step
        if not has_turn:
            self._move_lines(seconds, is_bulk=is_bulk)
        self.state.used = max(self.state.used, self._now) + seconds

    def wait_again(self, count: int, *, is_bulk: bool) -> float:
        """A place among those who have had their turn; returns how many seconds it is away."""
        state, seconds = self.state, count * self._step
        place = max(state.used, state.transactional_turns)
        if is_bulk:
            place = max(place, state.bulk_turns)
            state.bulk_turns = place + seconds
        else:
            state.transactional_turns = place + seconds
        return place + self._others(count, is_bulk=is_bulk) - self._slack(is_bulk=is_bulk) - self._now

    def stand_in_line(self, count: int, *, is_bulk: bool) -> None:
        """So many have the last place in line now; bulk that waits already moves back for transactional mail."""
        seconds = count * self._step
        end = max(self._place(is_bulk=is_bulk), self._now) + seconds
        if is_bulk:
            self.state.bulk_line = end
            return
        self.state.transactional_line = end
        if self.state.bulk_line > self._now:
            self.state.bulk_line += seconds

    def give(self, count: int, *, is_bulk: bool, ago: float) -> None:
        """So many were taken some time ago and not used; what time has filled up meanwhile is full already."""
        if self.is_ceiling:
            self.state.used -= count
            return
        seconds = count * self.limit.interval
        if seconds > 0:
            seconds = max(0.0, seconds - ago)
        state = self.state
        state.used -= seconds
        # Its place is free: whoever comes next need not stand behind it.
        nearest = max(state.used, self._now)
        if not is_bulk and state.transactional_line > nearest:
            state.transactional_line = max(nearest, state.transactional_line - seconds)
        if state.bulk_line > nearest:
            state.bulk_line = max(nearest, state.bulk_line - seconds)

    def _move_lines(self, seconds: float, *, is_bulk: bool) -> None:
        """Those who will stand in line come so much later. Where nobody waits there is no line to move."""
        state, taken = self.state, max(self.state.used, self._now)
        if not is_bulk and state.transactional_line > taken:
            state.transactional_line += seconds
        if state.bulk_line > (taken if is_bulk else self._now):
            state.bulk_line += seconds

    def slow_down(self) -> None:
        """The provider asked for it: half the pace, and nothing of a burst."""
        if self._now - self.state.slowed_at < SLOW_AGAIN_SECONDS:
            return
        self.state.slowness = min(2 * self._step / self.limit.interval, SLOWEST)
        self.state.slowed_at = self._now
        self._pace()
        self.state.used = max(self.state.used, self._now + self.limit.burst * self.limit.interval)


def answer(asks: Sequence[Ask], states: Mapping[str, State], moment: Moment) -> list[Grant]:
    """Answer one after the other, and bring the states up to date."""
    buckets: dict[str, Bucket] = {}
    for limit in distinct_limits(asks):
        buckets[limit.bucket] = Bucket(limit, states[limit.bucket], moment)
    return [_answer(ask, [buckets[limit.bucket] for limit in ask.limits]) for ask in asks]


def distinct_limits(asks: Sequence[Ask]) -> list[Limit]:
    """Each limit that is asked, once."""
    return list({limit.bucket: limit for ask in asks for limit in ask.limits}.values())


def _answer(ask: Ask, buckets: Sequence[Bucket]) -> Grant:
    match ask.kind:
        case Kind.MAIL:
            return _pass(ask, buckets)
        case Kind.TAKE:
            wait = buckets[0].wait(1, is_bulk=ask.is_bulk, has_turn=False)
            if wait > 0:
                return Grant(0, wait)
            tokens = buckets[0].room(ask.count, is_bulk=ask.is_bulk)
            buckets[0].take(tokens, is_bulk=ask.is_bulk, has_turn=False)
            return Grant(tokens, 0.0)
        case Kind.GIVE:
            buckets[0].give(ask.count, is_bulk=ask.is_bulk, ago=ask.ago)
        case Kind.SLOW:
            buckets[0].slow_down()
    return Grant(0, 0.0)


def _pass(ask: Ask, buckets: Sequence[Bucket]) -> Grant:
    """A mail goes if all its buckets let it; if not, it stands in line at those that do not."""
    if any(bucket.is_reached(ask.count) for bucket in buckets if bucket.is_ceiling):
        return Grant(0, NOT_TODAY)
    waits = [
        0.0 if bucket.is_ceiling else bucket.wait(ask.count, is_bulk=ask.is_bulk, has_turn=ask.has_turn)
        for bucket in buckets
    ]
    longest = max(waits)
    if longest <= 0:
        for bucket in buckets:
            bucket.take(ask.count, is_bulk=ask.is_bulk, has_turn=ask.has_turn)
        return Grant(ask.count, 0.0)
    for bucket, wait in zip(buckets, waits, strict=True):
        if wait > 0 and ask.has_turn:
            longest = max(longest, bucket.wait_again(ask.count, is_bulk=ask.is_bulk))
        elif wait > 0:
            bucket.stand_in_line(ask.count, is_bulk=ask.is_bulk)
    return Grant(0, longest)
