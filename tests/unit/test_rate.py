"""Rates as people write them."""

import pytest

from worker.errors import SettingsError
from worker.rate import Rate, parse_domain_rates, parse_rate
from worker.settings_loading import load_settings


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("14/s", Rate(1 / 14, 14)),
        ("1/s", Rate(1.0, 1)),
        ("500/m", Rate(0.12, 8)),
        ("20/h", Rate(180.0, 1)),
        ("20/h burst 5", Rate(180.0, 5)),
        ("50000/d", Rate(1.728, 1)),
        (" 14/s burst 1 ", Rate(1 / 14, 1)),
    ],
)
def test_a_rate_has_an_interval_and_a_burst(text: str, rate: Rate) -> None:
    """Without a burst it is what one second brings, and never less than one."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "14", "0/s", "14/x", "1.5/s", "-1/s", "14/s burst 0", "14/s burst", "14 / s", "x"]
)
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    """The words name what was given and how it is written."""
    with pytest.raises(SettingsError, match="write it like 14/s"):
        parse_rate(text)


def test_domains_may_have_rates_of_their_own() -> None:
    """The first may name no domain: then it is for all others."""
    assert parse_domain_rates("") == {}
    assert parse_domain_rates("20/s, Example.COM=50/s burst 100") == {
        "": Rate(0.05, 20),
        "example.com": Rate(0.02, 100),
    }
    assert parse_domain_rates("example.com=1/s") == {"example.com": Rate(1.0, 1)}
    with pytest.raises(SettingsError, match=r"example\.com is there twice"):
        parse_domain_rates("example.com=1/s,example.com=2/s")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("EMAIL_RATE_SES", "fast"),
        ("EMAIL_RATE_DOMAIN", "20/s,30/s"),
        ("EMAIL_RATE_DOMAIN", "a.example=1/s,a.example=2/s"),
        ("EMAIL_RATE_RECIPIENT", "0/h"),
        ("EMAIL_RATE_TRANSACTIONAL_SHARE", "1"),
    ],
)
def test_a_wrong_setting_is_named(variable: str, text: str) -> None:
    """A worker does not start with it."""
    with pytest.raises(SettingsError, match=f"{variable}='?{text}'? is not allowed"):
        load_settings({variable: text})
