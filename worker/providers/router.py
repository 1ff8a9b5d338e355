"""Which provider gets a mail: the primary, and after a definite failure of its own the fallback, in the same claim.

Never after a refusal of the recipient, which another provider would repeat, and never from a doubt, which the fallback
could only double.
"""

from collections.abc import Callable, Sequence

from worker.job import Failed, Mail, Outcome, Unavailable
from worker.providers.base import HandOver, Provider

# (provider's name, why it goes there) -> the passage
OpenHandOver = Callable[[str, str], HandOver]


class Router:
    """The providers in the order in which they are tried."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = tuple(providers)

    async def send(self, mails: Sequence[Mail], hand_over: OpenHandOver, outcomes: dict[int, Outcome]) -> None:
        """Send by the first provider that takes each mail. `outcomes`, by seq, is filled by the hand-overs."""
        reason = f"primary {self._providers[0].name}"
        for provider in self._providers:
            await provider.send(mails, hand_over(provider.name, reason))
            failures = [
                (mail, outcome) for mail in mails if (outcome := outcomes.get(mail.job.seq)) and _falls_back(outcome)
            ]
            if not failures or provider is self._providers[-1]:
                return
            reason = f"fallback, after {provider.name}: {_words(failures[0][1])}"
            mails = [mail for mail, _ in failures]
            for mail in mails:
                del outcomes[mail.job.seq]
                # A hand-over that was journaled used its number up; one that failed before did not.
                mail.attempt += mail.is_journaled
                mail.is_journaled = False

    async def close(self) -> None:
        """Close all providers."""
        for provider in self._providers:
            await provider.close()


def _falls_back(outcome: Outcome) -> bool:
    match outcome:
        case Failed(_, is_providers_fault, _):
            return is_providers_fault
        case Unavailable(_, _):
            return True
        case _:
            return False


def _words(outcome: Outcome) -> str:
    return outcome.answer if isinstance(outcome, Failed) else getattr(outcome, "reason", "")
