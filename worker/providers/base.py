"""The contract between the delivery and a provider.

A provider gets the mails of one batch and must bring about exactly one answer for each that it was allowed to send.
Before any byte of a mail goes out it awaits `admit`, which journals the intent; before the content goes out it asks
`may_go`. What the world does is an `Outcome`; a provider never raises for a mail's sake, and translates every
exception of its library at its own border.

Answers are called, not yielded: a provider's socket callback answers directly, where a generator would wake the
batch's task for every few mails.

What the conformance suite (`tests/providers`) asks of every provider besides:
- A cancelled `send` answers for all its mails before it raises: Unknown where content is out, NotSent elsewhere.
- `close` during a `send` leaves no mail without an answer, and opens no new connection.
- `admit` may answer for all its mails itself and return none; then nothing of them goes out.
- Failed is the recipient's matter (4xx at RCPT or after the content) or the provider's own fault (connecting, TLS,
  AUTH, 421, MAIL, DATA): the fallback is tried after the second only.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from worker.job import Mail, Outcome


class HandOver(Protocol):
    """One batch's passage to one provider."""

    deadline: float
    """Loop time at which the batch ends: what is unanswered by then is Unknown, or NotSent."""

    is_urgent: bool
    """Transactional mail goes before bulk where both wait for the same thing."""

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """Journal the intent to hand these over now; returns those that may go. The rest are no longer ours."""

    def may_go(self) -> bool:
        """Whether content may still be handed over: in time, not stopping, the claim not lost. Never waits."""

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """What became of a mail. Once for each mail given to `Provider.send` that `admit` did not keep."""


class Provider(Protocol):
    """A way out."""

    name: str

    async def send(self, mails: Sequence[Mail], hand_over: HandOver) -> None:
        """Send these, and return when each has its answer, at the deadline at the latest."""

    async def close(self) -> None:
        """Let go of all connections, politely and soon."""


class Quota(msgspec.Struct, frozen=True):
    """What a provider's account allows; None: no limit."""

    most_per_second: float | None
    most_per_day: float | None
    sent_last_day: float
