"""Which provider gets a mail: the primary, and after a definite failure of its own the fallback, in the same claim.

Never after a refusal of the recipient, which another provider would repeat, and never from a doubt, which the fallback
could only double.
"""

from collections.abc import Callable, Sequence

from worker.job import Failed, Mail, Outcome, Unavailable
from worker.providers.base import HandOver, Provider

# a provider's name -> the batch's passage to it
OpenHandOver = Callable[[str], HandOver]


class Router:
    """The providers in the order in which they are tried."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)
        self._primary = f"primary {self._providers[0].name}"

    async def send(self, mails: Sequence[Mail], hand_over: OpenHandOver, outcomes: dict[int, Outcome]) -> None:
        """Send by the first provider that takes each mail. `outcomes`, by seq, is filled by the hand-overs."""
        for mail in mails:
            mail.reason = self._primary
        for provider in self._providers:
            await provider.send(mails, hand_over(provider.name))
            if provider is not self._providers[-1]:
                mails = [mail for mail in mails if _falls_back(mail, provider.name, outcomes)]
            if not mails:
                return

    async def close(self) -> None:
        """Close all providers."""
        for provider in self._providers:
            await provider.close()


def _falls_back(mail: Mail, failed: str, outcomes: dict[int, Outcome]) -> bool:
    """Whether the next provider may try; the mail is made ready for it then."""
    words = _providers_fault(outcomes.get(mail.job.seq))
    if words is None:
        return False
    del outcomes[mail.job.seq]
    mail.reason = f"fallback, after {failed}: {words}"
    # A hand-over that was journaled used its number up; one that failed before did not.
    mail.attempt += mail.is_journaled
    mail.is_journaled = False
    return True


def _providers_fault(outcome: Outcome | None) -> str | None:
    """What the provider said when it failed by its own fault; None for every other end."""
    match outcome:
        case Failed(answer, True, _):
            return answer
        case Unavailable(reason, _):
            return reason
        case _:
            return None
