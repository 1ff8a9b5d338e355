"""What the providers' accounts allow, read now and then: the limits follow where it is less than the settings say."""

import asyncio
from collections.abc import Sequence

import structlog

from worker import metrics
from worker.errors import AnswerLost, ProviderUnreachable
from worker.providers.base import Provider, Quota
from worker.providers.calls import CalledProvider
from worker.rate import Rate
from worker.rate_limits import RateLimits

READ_EVERY_SECONDS = 300.0
# Of the mails of a day.
NEARLY_ALL = 0.8

log = structlog.get_logger(__name__)


class AccountQuotas:
    """Reads the quotas of those providers that have any, from the start on."""

    def __init__(self, providers: Sequence[Provider], limits: RateLimits) -> None:
        self._providers = [provider for provider in providers if isinstance(provider, CalledProvider)]
        self._limits = limits
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        if self._providers:
            self._task = asyncio.create_task(self._run(), name="account quotas")

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for provider in self._providers:
                await self._read(provider)
            await asyncio.sleep(READ_EVERY_SECONDS)

    async def _read(self, provider: CalledProvider) -> None:
        try:
            quota = await provider.quota()
        except (ProviderUnreachable, AnswerLost) as error:
            log.warning("the quota of the account is not known", provider=provider.name, reason=str(error))
            return
        except Exception as error:  # noqa: BLE001  An SDK's surprise must not end the reading for good.
            log.warning("the quota of the account is not known", provider=provider.name, reason=type(error).__name__)
            return
        if quota is None:
            return
        rate = None if quota.most_per_second is None else _rate(quota.most_per_second)
        self._limits.account_allows(provider.name, rate)
        if quota.most_per_day:
            metrics.QUOTA_USED.labels(provider.name).set(quota.sent_last_day / quota.most_per_day)
        _warn_of_the_day(provider.name, quota)


def _rate(most_per_second: float) -> Rate:
    return Rate(1 / most_per_second, max(1, int(most_per_second)))


def _warn_of_the_day(provider: str, quota: Quota) -> None:
    if quota.most_per_day and quota.sent_last_day > NEARLY_ALL * quota.most_per_day:
        log.warning(
            "the account's mails of a day are nearly used up",
            provider=provider,
            sent=round(quota.sent_last_day),
            allowed=round(quota.most_per_day),
        )
