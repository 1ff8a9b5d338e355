"""A provider that answers by plan, and can be stopped at any stage of a hand-over.

It keeps the contract of `worker.providers.base`: intents first, `may_go` before content, one answer a mail. What it is
given goes through the `Gate`, where the oracle looks at each mail at the moment at which its content would leave.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, repeat

from worker.job import TOO_LATE, Accepted, Failed, Mail, NotSent, Outcome, Refused, Unavailable, Unknown
from worker.providers.base import HandOver

# Mails admitted at once: fewer than a batch holds, so that a batch can be stopped between two commits of the journal.
CHUNK = 3


class Answer(StrEnum):
    """What the provider does with one mail."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED_RECIPIENT = "failed by the recipient's fault"
    FAILED_PROVIDER = "failed by the provider's fault"
    UNKNOWN_TAKEN = "no answer, but it was taken"
    UNKNOWN_LOST = "no answer, and it was not taken"
    TAKEN_BACK = "journaled, then not handed over"
    OUT = "the provider is out"
    UNREACHABLE = "no connection to the provider"


# These end before the intent is journaled.
_NEVER_ADMITTED: dict[Answer, Outcome] = {
    Answer.OUT: Unavailable("the provider is out", 30.0),
    Answer.UNREACHABLE: Failed("no connection", is_providers_fault=True),
}


class Stage(StrEnum):
    """Where a batch can be stopped."""

    CLAIMED = "claimed and rendered, nothing journaled"
    JOURNALED = "some intents are journaled"
    HANDED_OVER = "the provider has the content of a mail"
    ANSWERED = "its answer is known to the process alone"
    FLUSHED = "its answer is in the journal"


@dataclass
class Plan:
    """What happens to one batch: an answer for each mail in turn, and where it is stopped, if it is."""

    answers: Sequence[Answer]
    stop_at: Stage | None = None
    # How many times it passes that stage before it is stopped there.
    passes: int = 0
    is_stopped: asyncio.Event = field(default_factory=asyncio.Event)
    may_resume: asyncio.Event = field(default_factory=asyncio.Event)
    hand_over: HandOver | None = None
    _next: Iterator[Answer] = field(init=False)

    def __post_init__(self) -> None:
        self._next = chain(self.answers, repeat(Answer.ACCEPTED))

    def answer(self) -> Answer:
        """The next mail's answer."""
        return next(self._next)

    async def reached(self, stage: Stage) -> None:
        """Stop here, if that is the plan, until `may_resume`."""
        if stage is not self.stop_at:
            return
        if self.passes > 0:
            self.passes -= 1
            return
        self.stop_at = None
        self.is_stopped.set()
        await self.may_resume.wait()


# The plan of the batch that runs in the present task.
PLAN: ContextVar[Plan] = ContextVar("PLAN")

# (mail, whether the provider takes it): looks at a mail whose content leaves now.
Gate = Callable[[Mail, bool], None]
# Called with what the process was told of a mail.
Told = Callable[[Mail, Outcome], None]


class PlannedProvider:
    """See the module."""

    def __init__(self, name: str, gate: Gate, told: Told, flush: Callable[[], Awaitable[None]]) -> None:
        self.name = name
        self._gate = gate
        self._told = told
        self._flush = flush

    async def send(self, mails: Sequence[Mail], hand_over: HandOver) -> None:
        """Send these by the plan of the present batch."""
        plan = PLAN.get()
        plan.hand_over = hand_over
        await plan.reached(Stage.CLAIMED)
        waiting = deque(mails)
        while waiting and hand_over.may_go():
            chunk = [waiting.popleft() for _ in range(min(CHUNK, len(waiting)))]
            await self._send_some(chunk, hand_over, plan)
        for mail in waiting:
            hand_over.answer(mail, NotSent(TOO_LATE))

    async def _send_some(self, mails: Sequence[Mail], hand_over: HandOver, plan: Plan) -> None:
        answers = {mail.job.seq: plan.answer() for mail in mails}
        ready = []
        for mail in mails:
            early = _NEVER_ADMITTED.get(answers[mail.job.seq])
            if early is None:
                ready.append(mail)
            else:
                hand_over.answer(mail, early)
        admitted = await hand_over.admit(ready)
        await plan.reached(Stage.JOURNALED)
        for mail in admitted:
            if answers[mail.job.seq] is Answer.TAKEN_BACK or not hand_over.may_go():
                hand_over.answer(mail, NotSent(TOO_LATE))
            else:
                await self._send_one(mail, answers[mail.job.seq], hand_over, plan)

    async def _send_one(self, mail: Mail, answer: Answer, hand_over: HandOver, plan: Plan) -> None:
        self._gate(mail, answer in (Answer.ACCEPTED, Answer.UNKNOWN_TAKEN))
        await plan.reached(Stage.HANDED_OVER)
        outcome = _outcome(mail, answer)
        self._told(mail, outcome)
        hand_over.answer(mail, outcome)
        await plan.reached(Stage.ANSWERED)
        if plan.stop_at is Stage.FLUSHED:
            await self._flush()
            await plan.reached(Stage.FLUSHED)

    async def close(self) -> None:
        """Nothing to let go of."""


def _outcome(mail: Mail, answer: Answer) -> Outcome:
    match answer:
        case Answer.ACCEPTED:
            return Accepted(f"<{mail.job.id}@example.org>", "250 ok")
        case Answer.REFUSED:
            return Refused("550 no such mailbox")
        case Answer.FAILED_RECIPIENT:
            return Failed("451 greylisted", is_providers_fault=False)
        case Answer.FAILED_PROVIDER:
            return Failed("421 going down", is_providers_fault=True)
        case _:
            return Unknown("no answer to the content")
