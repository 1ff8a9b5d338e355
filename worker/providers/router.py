"""Which provider gets a mail: the primary, and after a definite failure of its own the next, in the same claim.

Never after a refusal of the recipient, which another provider would repeat, and never from a doubt, which another could
only double. A provider whose breaker is open, or that has reached its ceiling of the day, is passed over; when all are,
the mail waits, at no cost. What a rate limit holds up waits for its turn.
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from worker.allowance import Allowance, Held
from worker.job import Accepted, Failed, Mail, NotSent, Outcome, Refused, Unavailable, Unknown
from worker.providers.base import HandOver, Provider
from worker.providers.breaker import Breaker, BreakerState

# a provider's name -> the batch's passage to it
OpenHandOver = Callable[[str], HandOver]
Chain = tuple[str, ...]


class Patience(msgspec.Struct, frozen=True):
    """EMAIL_BREAKER_FAILURES, EMAIL_BREAKER_SECONDS and EMAIL_SLOW_SECONDS."""

    failures: int
    open_seconds: float
    slow_seconds: float


class Router:
    """The providers by their names, each with its breaker, in the order in which they are tried."""

    def __init__(self, providers: Sequence[Provider], patience: Patience) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._chain: Chain = tuple(self._providers)
        self._breakers = {name: Breaker(name, patience.failures, patience.open_seconds) for name in self._chain}
        self._slow_seconds = patience.slow_seconds

    async def send(
        self, mails: Sequence[Mail], hand_over: OpenHandOver, outcomes: dict[int, Outcome], allowance: Allowance
    ) -> None:
        """Send by the first provider that takes each mail. `outcomes`, by seq, is filled by the hand-overs."""
        chains: dict[Chain, list[Mail]] = {}
        for mail in mails:
            mail.reason = ""
            chains.setdefault(self._chain_of(mail), []).append(mail)
        journey = _Journey(self, hand_over, outcomes, allowance)
        journeys = [journey.offer(chain, group) for chain, group in chains.items()]
        if len(journeys) == 1:
            await journeys[0]
            return
        async with asyncio.TaskGroup() as tasks:
            for offered in journeys:
                tasks.create_task(offered)

    def _chain_of(self, mail: Mail) -> Chain:
        """The providers for a mail, in turn: a retry begins with one that did not fail last."""
        chain = tuple(dict.fromkeys(name for name in mail.route if name in self._providers)) or self._chain
        failed_last = mail.job.provider
        if mail.job.retry_count and len(chain) > 1 and chain[0] == failed_last:
            return (*chain[1:], failed_last)
        return chain

    def breaker(self, name: str) -> Breaker:
        """The breaker of a provider."""
        return self._breakers[name]

    async def call(self, name: str, mails: Sequence[Mail], hand_over: HandOver, *, is_probe: bool) -> "Throttled":
        """Send by one provider, under the eyes of its breaker; returns what it found too fast."""
        guarded = _Guarded(hand_over, self._breakers[name], self._slow_seconds, is_probe=is_probe)
        if mails:
            await self._providers[name].send(mails, guarded)
        return guarded.throttled

    @property
    def providers(self) -> Sequence[Provider]:
        """All of them."""
        return list(self._providers.values())

    async def close(self) -> None:
        """Close all providers."""
        for provider in self._providers.values():
            await provider.close()


class _Journey:
    """One batch's mails on their way past the providers."""

    def __init__(
        self, router: Router, hand_over: OpenHandOver, outcomes: dict[int, Outcome], allowance: Allowance
    ) -> None:
        self._router = router
        self._allowance = allowance
        self._hand_over = hand_over
        self._outcomes = outcomes

    async def offer(self, chain: Chain, mails: list[Mail]) -> None:
        """Offer these to each provider in turn."""
        name, further = chain[0], chain[1:]
        breaker = self._router.breaker(name)
        is_probe = breaker.state is BreakerState.HALF_OPEN
        allowed = breaker.allowance(len(mails))
        going, held = mails[:allowed], mails[allowed:]
        if not held:
            await self._try(name, further, going, is_probe=is_probe)
        elif not going:
            await self._pass_over(name, further, held)
        elif further:
            # Nobody waits for the probe where another provider works.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._try(name, further, going, is_probe=is_probe))
                tasks.create_task(self._pass_over(name, further, held))
        else:
            await self._try(name, further, going, is_probe=is_probe)
            if breaker.state is BreakerState.CLOSED:
                await self._try(name, further, held)
            else:
                await self._pass_over(name, further, held)

    async def _try(self, name: str, further: Chain, mails: list[Mail], *, is_probe: bool = False) -> None:
        _note_way(mails, name)
        hand_over = self._hand_over(name)
        held = await self._allowance.admit(name, mails)
        going = [mail for mail in mails if mail.job.seq not in held] if held else mails
        try:
            throttled = await self._router.call(name, going, hand_over, is_probe=is_probe)
        finally:
            if is_probe:
                self._router.breaker(name).probe_ended()
        if throttled.is_any:
            await self._allowance.slow_down(name, throttled.addresses)
        if further and (left := [mail for mail in going if self._falls_back(mail)]):
            await self.offer(further, left)
        if held:
            waiting = [(mail, held[mail.job.seq]) for mail in mails if mail.job.seq in held]
            await self._hold(hand_over, further, waiting)

    async def _hold(self, hand_over: HandOver, further: Chain, held: list[tuple[Mail, Held]]) -> None:
        """Later, at its turn; or by the next provider, where this one takes no more today."""
        elsewhere = []
        for mail, why in held:
            mail.reason += f": {why.reason}"
            if why.may_go_elsewhere and further:
                elsewhere.append(mail)
            elif not why.seconds:
                hand_over.answer(mail, NotSent(mail.reason))
            else:
                hand_over.answer(mail, Unavailable(mail.reason, why.seconds, has_turn=not why.may_go_elsewhere))
        if elsewhere:
            await self.offer(further, elsewhere)

    async def _pass_over(self, name: str, further: Chain, mails: list[Mail]) -> None:
        """The breaker lets nothing through: the next provider, or later."""
        breaker = self._router.breaker(name)
        _note_way(mails, name)
        for mail in mails:
            mail.reason += f": {breaker.words}"
        if further:
            await self.offer(further, mails)
            return
        hand_over = self._hand_over(name)
        for mail in mails:
            hand_over.answer(mail, Unavailable(mail.reason, breaker.seconds_left))

    def _falls_back(self, mail: Mail) -> bool:
        """Whether the next provider may try; the mail is made ready for it then."""
        words = _providers_fault(self._outcomes.get(mail.job.seq))
        if words is None:
            return False
        del self._outcomes[mail.job.seq]
        mail.reason += f": {words}"
        # A hand-over that was journaled used its number up; one that failed before did not.
        mail.attempt += mail.is_journaled
        mail.is_journaled = False
        return True


def _note_way(mails: Sequence[Mail], name: str) -> None:
    """Add the next provider to the words of why a mail goes where it goes."""
    for mail in mails:
        mail.reason = f"{mail.reason}; fallback {name}" if mail.reason else f"primary {name}"


def _providers_fault(outcome: Outcome | None) -> str | None:
    """What the provider said when it failed by its own fault; None for every other end."""
    match outcome:
        case Failed(answer, True, _, _):
            return answer
        case Unavailable(reason, _, _):
            return reason
        case _:
            return None


class Throttled:
    """What a provider found too fast: itself, or for these recipients."""

    def __init__(self) -> None:
        self.is_any = False
        self.addresses: list[str] = []

    def note(self, mail: Mail, outcome: Failed) -> None:
        """One answer that says so."""
        self.is_any = True
        if not outcome.is_providers_fault:
            self.addresses.append(mail.job.recipient_email)


class _Guarded:
    """A passage under the eyes of a breaker: it learns of each answer, and shuts the way while it is open."""

    def __init__(self, passage: HandOver, breaker: Breaker, slow_seconds: float, *, is_probe: bool) -> None:
        self.deadline = passage.deadline
        self.is_urgent = passage.is_urgent
        self.may_go = passage.may_go
        self._passage = passage
        self._breaker = breaker
        self._slow_seconds = slow_seconds
        self._is_probe = is_probe
        self._time = asyncio.get_running_loop().time
        self._since: dict[int, float] = {}
        self.throttled = Throttled()

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """See `HandOver`; what an open breaker holds up is answered at once."""
        if self._breaker.state is BreakerState.OPEN:
            for mail in mails:
                self._passage.answer(mail, Unavailable(self._breaker.words, self._breaker.seconds_left))
            return []
        admitted = await self._passage.admit(mails)
        now = self._time()
        for mail in admitted:
            self._since[mail.job.seq] = now
        return admitted

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """See `HandOver`."""
        self._passage.answer(mail, outcome)
        if isinstance(outcome, Failed) and outcome.is_throttled:
            self.throttled.note(mail, outcome)
        match outcome:
            case Accepted():
                since = self._since.get(mail.job.seq)
                if since is not None and (took := self._time() - since) > self._slow_seconds:
                    self._breaker.failed(f"an answer took {took:.1f} s", is_probe=self._is_probe)
                else:
                    self._breaker.succeeded(is_probe=self._is_probe)
            case Refused() | Failed(_, False, _, _):
                # What was never admitted was refused by ourselves, and says nothing about the provider.
                if mail.job.seq in self._since:
                    self._breaker.succeeded(is_probe=self._is_probe)
            case Failed(words, True, _, _) | Unknown(words):
                self._breaker.failed(words, is_probe=self._is_probe)
            case Unavailable(reason, seconds, _):
                self._breaker.is_out(reason, seconds)
            case NotSent():
                pass
