"""Who may be written to: suppressions found by the claim, and the limits of a system that is not production. Pure."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

import msgspec

from worker.job import Job, Options, SuppressionReason

EVERYTHING = "all"


def suppressed_because(suppressions: str, category: str, *, can_opt_out: bool) -> str | None:
    """Why an address with these entries (`scope reason,…`, as the claim finds them) gets no such mail; None if it may.

    An unsubscribe stops only what can be opted out of: it never stops a password reset.
    """
    for entry in suppressions.split(","):
        scope, _, reason = entry.partition(" ")
        is_meant = scope in (EVERYTHING, category)
        if is_meant and (can_opt_out or reason != SuppressionReason.UNSUBSCRIBE):
            return f"{reason} ({scope})"
    return None


class Audience(msgspec.Struct, frozen=True):
    """EMAIL_ALLOWED_RECIPIENTS, as patterns in small letters, and EMAIL_REDIRECT_TO."""

    allowed: tuple[str, ...] = ()
    redirect_to: str = ""

    @property
    def is_everybody(self) -> bool:
        """Whether nothing is limited."""
        return not self.allowed and not self.redirect_to

    def allows(self, address: str) -> bool:
        """Whether this address gets its own mail."""
        return any(fnmatchcase(address.lower(), pattern) for pattern in self.allowed)

    def turned(self, job: Job, options: Options) -> tuple[Job, Options] | None:
        """The job as it may be sent, copies to others left out; None when nobody may have it."""
        copies = {"cc": self._allowed_of(options.cc), "bcc": self._allowed_of(options.bcc)}
        options = msgspec.structs.replace(options, **copies)
        if self.allows(job.recipient_email):
            return job, options
        if not self.redirect_to:
            return None
        marked = options.headers | {"X-Original-To": job.recipient_email}
        return (
            msgspec.structs.replace(job, recipient_email=self.redirect_to),
            msgspec.structs.replace(options, headers=marked),
        )

    def _allowed_of(self, copies: Sequence[str]) -> tuple[str, ...]:
        return tuple(text for text in copies if self.allows(text.rpartition("<")[2].rstrip("> ")))
