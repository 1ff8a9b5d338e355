"""What a 4xx answer of an SMTP server says beside "later". Pure."""

import re

from worker.job import Failed

# RFC 3463 3.8: X.7.X is policy, with which servers say that somebody sends too fast.
_TOO_FAST = re.compile(r"4\d\d 4\.7\.")
# Under the same code some ask for time, and not for another pace.
_GREYLISTED = re.compile(r"gr[ea]y[- ]?list", re.IGNORECASE)


def failed(words: str, *, is_providers_fault: bool) -> Failed:
    """The outcome of an answer with these words, its code first."""
    is_throttled = _TOO_FAST.match(words) is not None and _GREYLISTED.search(words) is None
    return Failed(words, is_providers_fault, is_throttled=is_throttled)
