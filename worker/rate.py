"""Rates as people write them: `14/s`, `20/h burst 5`. Pure."""

import re

import msgspec

from worker.errors import SettingsError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_RATE = re.compile(r"([1-9]\d{0,6})/([smhd])(?: burst ([1-9]\d{0,6}))?")


class Rate(msgspec.Struct, frozen=True):
    """One mail each `interval` seconds, and `burst` at once after a pause."""

    interval: float
    burst: int


def parse_rate(text: str) -> Rate:
    """A rate from its text; without a burst, that of one second. Raises SettingsError."""
    found = _RATE.fullmatch(text.strip())
    if found is None:
        raise SettingsError(f"{text!r} is no rate: write it like 14/s, 500/m, 20/h or 20/h burst 5.")
    interval = _SECONDS[found[2]] / int(found[1])
    return Rate(interval, int(found[3]) if found[3] else max(1, round(1 / interval)))


def parse_domain_rates(text: str) -> dict[str, Rate]:
    """`20/s,example.com=50/s burst 100`: the rate of each domain, under "" that of all others. Raises SettingsError."""
    rates: dict[str, Rate] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        domain, _, rate = part.rpartition("=")
        domain = domain.strip().lower()
        if domain in rates:
            raise SettingsError(f"{domain or 'the rate of all domains'} is there twice.")
        rates[domain] = parse_rate(rate)
    return rates
