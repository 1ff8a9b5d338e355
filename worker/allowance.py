"""What one claim may send: its tokens of the default provider, and its way past the other limits.

A mail that a limit holds up waits for a moment of its own, at no cost. It pays the default provider once in a claim,
and what it was charged for its recipient and for ceilings is given back if nobody can have got it.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from worker import metrics
from worker.buckets import NOT_TODAY, Ask, Grant, Kind, Limit
from worker.job import Job, Mail, Queue
from worker.pauses import Pauses
from worker.rate_limits import Ceilings, RateLimits, ceiling_limits, now_utc

# What waits for the next day comes in the course of this time, not all at midnight.
MORNING_SECONDS = 600.0
# A mail that a paused provider alone may have comes again after so long.
PAUSED_SECONDS = 30.0
# How long a batch waits for those of its mails whose turn has come, when others took theirs a little late.
PATIENCE_SECONDS = 0.3


class Held(NamedTuple):
    """A mail that a limit holds up: why, for how long, and whether another provider may take it meanwhile.

    0 seconds: the next claim may have it at once.
    """

    seconds: float
    reason: str
    may_go_elsewhere: bool = False


@asynccontextmanager
async def open_allowance(limits: RateLimits, queue: Queue, most: int) -> "AsyncIterator[Allowance]":
    """Tokens of the default provider for a claim of so many; those that are not used go back at the end."""
    limit = limits.provider_limit(limits.default)
    if limit is None:
        allowance = Allowance(limits, queue, most)
    else:
        grant = (await limits.ask([Ask(Kind.TAKE, [limit], most, queue is Queue.BULK)]))[0]
        allowance = Allowance(limits, queue, grant.tokens, grant.wait_seconds, limit)
    try:
        yield allowance
    finally:
        await allowance.end()


class Allowance:
    """What one claim may send: its tokens of the default provider, and its way past the other limits.

    Remembers what each mail was charged for its recipient and for ceilings, until it is known whether anybody has it.
    """

    def __init__(
        self, limits: RateLimits, queue: Queue, tokens: int, wait_seconds: float = 0.0, limit: Limit | None = None
    ) -> None:
        self.queue = queue
        self.tokens = tokens
        self.wait_seconds = wait_seconds
        self._limits = limits
        self._is_bulk = queue is Queue.BULK
        self._limit = limit
        self._taken_at = time.monotonic()
        self._prepaid: set[int] = set()
        self.reached: Collection[int] = ()
        """The mails, by seq, that somebody may have: filled in when the batch ends."""
        self._charged: dict[int, list[Limit]] = {}
        self._ceilings: Ceilings = {}
        self._paused: Collection[str] = ()

    def follow(self, ceilings: Ceilings, paused: Collection[str]) -> None:
        """The ceilings, and the providers not to be used, that were true when the jobs were claimed."""
        self._ceilings = ceilings
        self._paused = paused

    def is_paused(self, pauses: Pauses, kind: str) -> bool:
        """Whether nothing of this type may be sent now."""
        return kind in pauses.types or pauses.shut(self.queue, self._limits.all_providers)

    async def keep(self, needed: int) -> None:
        """Give back the tokens beyond those that are needed."""
        surplus = self.tokens - needed
        if self._limit is None or surplus <= 0:
            return
        self.tokens = needed
        await self._limits.ask([self._give(self._limit, surplus)])

    async def end(self) -> None:
        """Give back what is left, or take what is owed; and the charges of mails that reached nobody."""
        back = [limit for seq, limits in self._charged.items() if seq not in self.reached for limit in limits]
        self._charged.clear()
        await self._limits.count([self._give(limit, 1) for limit in back if not limit.interval])
        asks = [self._give(limit, 1) for limit in back if limit.interval]
        if self._limit is not None and self.tokens:
            asks.append(self._give(self._limit, self.tokens))
            self.tokens = 0
        await self._limits.ask(asks)

    def _give(self, limit: Limit, count: int) -> Ask:
        return Ask(Kind.GIVE, [limit], count, self._is_bulk, ago=time.monotonic() - self._taken_at)

    async def hold_up(self, jobs: Sequence[Job]) -> dict[int, Held]:
        """Which of these jobs, by seq, must wait for the sake of their recipients."""
        asks: dict[int, Ask] = {}
        for job in jobs:
            found = (self._limits.recipient_limit(job), self._limits.domain_limit(job.recipient_email))
            limits = [limit for limit in found if limit is not None]
            if limits:
                asks[job.seq] = Ask(Kind.MAIL, limits, 1, self._is_bulk, job.has_turn)
        held: dict[int, Held] = {}
        for seq, grant in (await self._ask(asks)).items():
            if grant.tokens:
                self._charge(seq, asks[seq].limits)
            else:
                held[seq] = Held(grant.wait_seconds, f"rate limit: {_names(asks[seq])}")
        _count(asks[seq] for seq in held)
        return held

    def _charge(self, seq: int, limits: Sequence[Limit]) -> None:
        self._charged.setdefault(seq, []).extend(limits)

    async def admit(self, provider: str, mails: Sequence[Mail]) -> dict[int, Held]:
        """Which of these mails, by seq, this provider may not be given now."""
        if provider in self._paused:
            paused = Held(PAUSED_SECONDS, f"{provider} is paused", may_go_elsewhere=True)
            return {mail.job.seq: paused for mail in mails}
        held = await self._admit_by_ceiling(provider, mails)
        left = [mail for mail in mails if mail.job.seq not in held]
        if self._limit is not None and provider == self._limits.default:
            return held | self._admit_prepaid(left)
        limit = self._limits.provider_limit(provider)
        if limit is None:
            return held
        asks = {mail.job.seq: Ask(Kind.MAIL, [limit], cost_of(mail), self._is_bulk, mail.job.has_turn) for mail in left}
        for seq, grant in (await self._ask(asks)).items():
            if not grant.tokens:
                held[seq] = Held(grant.wait_seconds, f"rate limit: {limit.bucket}")
                _count([asks[seq]])
        return held

    async def _admit_by_ceiling(self, provider: str, mails: Sequence[Mail]) -> dict[int, Held]:
        """Which of these are more than the provider may get today."""
        asks: dict[int, Ask] = {}
        for mail in mails:
            if limits := ceiling_limits(self._ceilings, provider, mail.job.recipient_email):
                asks[mail.job.seq] = Ask(Kind.MAIL, limits)
        if not asks:
            return {}
        held: dict[int, Held] = {}
        for (seq, ask), grant in zip(asks.items(), await self._limits.count(list(asks.values())), strict=True):
            if grant.tokens:
                self._charge(seq, ask.limits)
                continue
            reason = f"{provider} has reached its ceiling of today"
            seconds = _until_morning() if grant.wait_seconds == NOT_TODAY else grant.wait_seconds
            held[seq] = Held(seconds, reason, may_go_elsewhere=True)
            _count([ask])
        return held

    def _admit_prepaid(self, mails: Sequence[Mail]) -> dict[int, Held]:
        """Which of these the claim's tokens are not enough for. The last one may cost more: then the rest is owed."""
        held: dict[int, Held] = {}
        for mail in mails:
            seq = mail.job.seq
            if seq in self._prepaid:
                continue
            if self.tokens <= 0:
                held[seq] = Held(0.0, "its copies used up the claim's tokens")
                continue
            self.tokens -= cost_of(mail)
            self._prepaid.add(seq)
        return held

    async def _ask(self, asks: Mapping[int, Ask]) -> dict[int, Grant]:
        """The answers by seq. Those whose turn has come wait here for the last moment of it, not in the table again."""
        if not asks:
            return {}
        clock = asyncio.get_running_loop().time
        began = clock()
        found = dict(zip(asks, await self._limits.ask(list(asks.values())), strict=True))
        while soon := [
            seq
            for seq, grant in found.items()
            if asks[seq].has_turn and 0 < grant.wait_seconds < PATIENCE_SECONDS - (clock() - began)
        ]:
            await asyncio.sleep(min(found[seq].wait_seconds for seq in soon))
            found |= zip(soon, await self._limits.ask([asks[seq] for seq in soon]), strict=True)
        return found

    async def slow_down(self, provider: str, addresses: Sequence[str]) -> None:
        """The provider, or the domains of these addresses where they have buckets, asked for a slower pace."""
        slower: dict[str, Limit] = {}
        of_provider = self._limits.provider_limit(provider)
        for limit in [self._limits.domain_limit(address) for address in addresses] or [None]:
            limit = limit or of_provider
            if limit is not None:
                slower[limit.bucket] = limit
        await self._limits.ask([Ask(Kind.SLOW, [limit]) for limit in slower.values()])


def cost_of(mail: Mail) -> int:
    """Tokens of a provider for a mail: one for each of its recipients."""
    return 1 + len(mail.options.cc) + len(mail.options.bcc)


def _count(held_up: Iterable[Ask]) -> None:
    """Measure what waits; of several limits of a mail, each."""
    for kind, mails in Counter(name for ask in held_up for name in _kinds(ask)).items():
        metrics.limited(kind, mails)


def _names(ask: Ask) -> str:
    """The limits by their kinds, which is all that a journal may say of a person."""
    return ", ".join(_kinds(ask))


def _kinds(ask: Ask) -> list[str]:
    return [limit.bucket if limit.bucket.startswith("provider") else limit.bucket.split()[0] for limit in ask.limits]


def _until_morning() -> float:
    now = now_utc()
    midnight = datetime.combine(now.date() + timedelta(days=1), datetime.min.time(), UTC)
    return (midnight - now).total_seconds() + random.uniform(0, MORNING_SECONDS)  # noqa: S311  To spread them.
