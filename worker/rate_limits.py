"""How fast mail may go: by provider, by recipient domain, to one person with one type of mail; and daily ceilings.

The tokens of the default provider are taken before the claim, so that what it cannot take is not claimed. All other
limits are asked once for a batch; a mail that one of them holds up waits for a moment of its own, at no cost.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Protocol

from worker.buckets import Ask, Grant, Limit
from worker.headers import domain_of
from worker.job import Job
from worker.rate import Rate, parse_domain_rates, parse_rate
from worker.settings import Settings, provider_names

# (provider, domain or *, day) -> mails, as in email_warmup
Ceilings = Mapping[tuple[str, str, date], int]

ALL_DOMAINS = "*"


class Keeper(Protocol):
    """What is asked for tokens; `worker.bucket_keeper` is it."""

    async def ask(self, asks: Sequence[Ask]) -> list[Grant]:
        """An answer for each question."""

    async def count(self, asks: Sequence[Ask]) -> list[Grant]:
        """The same for ceilings, which stay where they are when the keeper changes."""


class RateLimits:
    """The limits of the settings and of email_warmup, for all batches of a process."""

    def __init__(self, settings: Settings, keeper: Keeper) -> None:
        self._keeper = keeper
        self.default = settings.email_provider_primary
        rates = {name: getattr(settings, f"email_rate_{name}") for name in provider_names(settings)}
        self._providers: dict[str, Rate] = {name: parse_rate(rate) for name, rate in rates.items() if rate}
        self.all_providers = frozenset(rates)
        self._domains = parse_domain_rates(settings.email_rate_domain)
        self._recipient = parse_rate(settings.email_rate_recipient) if settings.email_rate_recipient else None
        self._accounts: dict[str, Rate] = {}

    def account_allows(self, provider: str, rate: Rate | None) -> None:
        """What the provider's own account allows, None for no limit; it counts where it is less than the setting."""
        if rate is None:
            self._accounts.pop(provider, None)
        else:
            self._accounts[provider] = rate

    async def ask(self, asks: Sequence[Ask]) -> list[Grant]:
        """Answers from whoever keeps the buckets."""
        return await self._keeper.ask(asks) if asks else []

    async def count(self, asks: Sequence[Ask]) -> list[Grant]:
        """Answers about ceilings."""
        return await self._keeper.count(asks) if asks else []

    def provider_limit(self, provider: str) -> Limit | None:
        """The bucket of a provider, if it has one: the stricter of the setting and the account, in both regards."""
        rates = [rates[provider] for rates in (self._providers, self._accounts) if provider in rates]
        if not rates:
            return None
        return Limit(f"provider {provider}", max(rate.interval for rate in rates), min(rate.burst for rate in rates))

    def domain_limit(self, address: str) -> Limit | None:
        """The bucket of the recipient's domain."""
        domain = domain_of(address) if self._domains else None
        if domain is None:
            return None
        rate = self._domains.get(domain) or self._domains.get("")
        return Limit(f"domain {domain}", rate.interval, rate.burst) if rate else None

    def recipient_limit(self, job: Job) -> Limit | None:
        """The bucket of this person and type. Its name tells nobody who it is."""
        if self._recipient is None:
            return None
        who = hashlib.blake2b(f"{job.type} {job.recipient_email.lower()}".encode(), digest_size=16).hexdigest()
        return Limit(f"recipient {who}", self._recipient.interval, self._recipient.burst)


def now_utc() -> datetime:
    """By the worker's clock: for a moment about midnight, some mails count for the day before or after."""
    return datetime.fromtimestamp(time.time(), UTC)


def ceiling_limits(ceilings: Ceilings, provider: str, address: str) -> list[Limit]:
    """The ceilings of today that a mail to this address counts for."""
    if not ceilings:
        return []
    today = now_utc().date()
    domains = (ALL_DOMAINS, domain_of(address) or ALL_DOMAINS)
    return [
        Limit(f"ceiling {provider} {domain} {today}", 0, ceilings[provider, domain, today])
        for domain in dict.fromkeys(domains)
        if (provider, domain, today) in ceilings
    ]
