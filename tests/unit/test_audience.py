"""Who may be written to outside production: allowed addresses, redirected ones, and copies."""

import pytest

from tests.unit.values import make_job
from worker.audience import Audience, suppressed_because
from worker.job import Options

QA = Audience(("*@qa.example.com", "me@example.org"))
REDIRECTED = Audience(("*@qa.example.com",), "test@example.org")


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("ann@qa.example.com", True),
        ("Ann@QA.Example.com", True),
        ("me@example.org", True),
        ("you@example.org", False),
        ("ann@qa.example.com.evil.com", False),
        ("ann@notqa.example.com", False),
    ],
)
def test_patterns_name_whole_addresses(address: str, is_allowed: bool) -> None:
    """`*` is anything, and nothing before or behind the pattern counts."""
    assert QA.allows(address) is is_allowed


def test_nobody_limits_everybody_in_production() -> None:
    """Without settings nothing is looked at."""
    assert Audience().is_everybody
    assert not QA.is_everybody
    assert not Audience((), "x@example.org").is_everybody


def test_a_stranger_is_suppressed_or_redirected() -> None:
    """Where no redirection is set nobody gets the mail; else the tester does, and sees for whom it was."""
    job = make_job(recipient_email="ann@customer.com")
    assert QA.turned(job, Options()) is None
    turned = REDIRECTED.turned(job, Options(headers={"X-A": "b"}))
    assert turned is not None
    assert turned[0].recipient_email == "test@example.org"
    assert turned[1].headers == {"X-A": "b", "X-Original-To": "ann@customer.com"}


def test_copies_go_to_the_allowed_only() -> None:
    """A copy is a mail to a customer too."""
    job = make_job(recipient_email="ann@qa.example.com")
    options = Options(cc=("Bob <bob@customer.com>", "Cy <cy@QA.example.com>"), bcc=("dan@customer.com",))
    turned = REDIRECTED.turned(job, options)
    assert turned is not None
    assert turned[0] is job
    assert (turned[1].cc, turned[1].bcc) == (("Cy <cy@QA.example.com>",), ())


def test_the_first_entry_that_is_meant_is_the_reason() -> None:
    """Entries of other scopes are passed over."""
    entries = "booking manual,marketing unsubscribe,all unsubscribe"
    assert suppressed_because(entries, "marketing", can_opt_out=True) == "unsubscribe (marketing)"
    assert suppressed_because(entries, "payment", can_opt_out=False) is None
    assert suppressed_because(entries, "booking", can_opt_out=False) == "manual (booking)"
