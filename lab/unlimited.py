"""Rate limits that limit nothing, for those who run a delivery or a router without a worker around it."""

from collections.abc import Sequence

from worker.allowance import Allowance
from worker.buckets import Ask, Grant
from worker.job import Queue
from worker.rate_limits import RateLimits
from worker.settings import Settings


class _Nobody:
    async def ask(self, asks: Sequence[Ask]) -> list[Grant]:
        raise AssertionError(f"nothing is limited, and {len(asks)} questions were asked")

    async def count(self, asks: Sequence[Ask]) -> list[Grant]:
        raise AssertionError(f"there is no ceiling, and {len(asks)} questions were asked")


def unlimited() -> RateLimits:
    """No limit at all."""
    return RateLimits(Settings(), _Nobody())


def free_way() -> Allowance:
    """The allowance of a claim where nothing is limited."""
    return Allowance(unlimited(), Queue.TRANSACTIONAL, tokens=1_000_000)
