"""What an answer means for a job: sent, retry, snooze, dead or in doubt, and when it is tried again."""

from typing import NamedTuple, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.values import make_job
from worker.job import (
    Accepted,
    Event,
    Failed,
    Guarantee,
    NotSent,
    Outcome,
    Refused,
    Status,
    Unavailable,
    Unknown,
)
from worker.retry import (
    MAX_ERROR_LENGTH,
    RetryPolicy,
    backoff_seconds,
    dead,
    in_doubt,
    settle_outcome,
    unsent,
)

POLICY = RetryPolicy(delay_seconds=60.0, max_retries=3, doubt_seconds=120.0)
ONCE, TWICE, EFFECTIVELY = Guarantee.AT_MOST_ONCE, Guarantee.AT_LEAST_ONCE, Guarantee.EFFECTIVELY_ONCE


class End(NamedTuple):
    """A settlement in short: status, event, and what it costs in retries."""

    status: Status
    event: Event | None
    retries: int


SENT = End(Status.SENT, Event.SENT, 0)
DEAD = End(Status.DEAD, Event.DEAD, 0)
DOUBT = End(Status.IN_DOUBT, Event.IN_DOUBT, 0)
RETRY = End(Status.PENDING, Event.RETRY_SCHEDULED, 1)
SNOOZE = End(Status.PENDING, Event.SNOOZED, 0)
RELEASE = End(Status.PENDING, None, 0)

# (outcome, guarantee) -> the end with retries left, the end with none.
OUTCOMES: list[tuple[Outcome, dict[Guarantee, tuple[End, End]]]] = [
    (Accepted("<id>"), dict.fromkeys(Guarantee, (SENT, SENT))),
    (Refused("550 no"), dict.fromkeys(Guarantee, (DEAD, DEAD))),
    (Failed("451 later", is_providers_fault=False), dict.fromkeys(Guarantee, (RETRY, DEAD))),
    (Failed("421 later", is_providers_fault=True), dict.fromkeys(Guarantee, (RETRY, DEAD))),
    (Unknown("no answer"), {TWICE: (RETRY, DOUBT), ONCE: (DOUBT, DOUBT), EFFECTIVELY: (SNOOZE, SNOOZE)}),
    (NotSent("stopping"), dict.fromkeys(Guarantee, (RELEASE, RELEASE))),
    (Unavailable("circuit open"), dict.fromkeys(Guarantee, (SNOOZE, SNOOZE))),
]
CASES = [
    (outcome, guarantee, retry_count, ends[retry_count == POLICY.max_retries])
    for outcome, by_guarantee in OUTCOMES
    for guarantee, ends in by_guarantee.items()
    for retry_count in (0, POLICY.max_retries - 1, POLICY.max_retries)
]


def test_the_table_knows_every_outcome() -> None:
    """A new kind of outcome must be given a line in the table above."""
    assert {type(outcome) for outcome, _ in OUTCOMES} == set(get_args(Outcome))
    assert all(set(ends) == set(Guarantee) for _, ends in OUTCOMES)


@pytest.mark.parametrize(("outcome", "guarantee", "retry_count", "end"), CASES)
def test_an_outcome_has_one_end(outcome: Outcome, guarantee: Guarantee, retry_count: int, end: End) -> None:
    """Each outcome under each guarantee ends as the design says, with retries left and with none."""
    job = make_job(guarantee=guarantee, retry_count=retry_count)
    found = settle_outcome(job, 1, "smtp", outcome, POLICY)
    assert (found.status, found.event, found.retries) == end
    assert found.job is job
    waits_for_evidence = guarantee == EFFECTIVELY and isinstance(outcome, Unknown)
    assert found.attempt_no == (0 if waits_for_evidence else 1)
    assert (found.delay_seconds is not None) == (found.event in (Event.RETRY_SCHEDULED, Event.SNOOZED))
    assert (found.message_id == "<id>") == (found.status == Status.SENT)
    if found.event not in (None, Event.SENT):
        assert next(iter(text for text in vars_of(outcome) if isinstance(text, str))) in str(found.error)


def vars_of(outcome: Outcome) -> list[object]:
    """The values that an outcome holds."""
    return [getattr(outcome, name) for name in outcome.__struct_fields__]


@pytest.mark.parametrize("outcome", [Failed("451", is_providers_fault=False), Unknown("no answer")])
@pytest.mark.parametrize(
    ("job_max", "policy_max", "used", "has_one_left"),
    [(None, 1, 0, True), (None, 0, 0, False), (5, 0, 4, True), (0, 5, 0, False), (5, 9, 5, False)],
)
def test_the_jobs_own_retries_win(
    outcome: Outcome, job_max: int | None, policy_max: int, used: int, has_one_left: bool
) -> None:
    """max_retries of the job decides where it is given, 0 included, and EMAIL_MAX_RETRIES elsewhere."""
    job = make_job(guarantee=TWICE, max_retries=job_max, retry_count=used)
    found = settle_outcome(job, 1, "smtp", outcome, RetryPolicy(60.0, policy_max, 120.0))
    assert (found.event == Event.RETRY_SCHEDULED) is has_one_left


@given(outcome=st.sampled_from([outcome for outcome, _ in OUTCOMES]), spent=st.integers(1, 5))
def test_what_a_resend_has_cost_is_charged_with_any_outcome(outcome: Outcome, spent: int) -> None:
    """Retries spent on resending out of a doubt count against the limit and are added whatever comes then."""
    found = settle_outcome(make_job(guarantee=TWICE), 4, "smtp", outcome, POLICY, retries=spent)
    more = found.event == Event.RETRY_SCHEDULED
    assert found.retries == spent + more
    assert not (more and spent >= POLICY.max_retries)


@pytest.mark.parametrize(("retry_count", "seconds"), [(0, 60), (1, 120), (2, 240), (3, 480), (10, 61440), (99, 61440)])
def test_the_backoff_doubles_within_a_tenth(retry_count: int, seconds: float) -> None:
    """60, 120, 240 s and so on, up to 17 hours, spread over a tenth either way so that no wave comes back."""
    found = [backoff_seconds(POLICY, retry_count) for _ in range(200)]
    assert all(seconds * 0.9 <= delay <= seconds * 1.1 for delay in found)
    assert min(found) < seconds * 0.97
    assert max(found) > seconds * 1.03


@given(retry_count=st.integers(0, 2), retry_after=st.floats(0, 10_000))
def test_a_failure_is_not_retried_before_its_retry_after(retry_count: int, retry_after: float) -> None:
    """The provider's Retry-After is the least; a shorter one leaves the backoff as it is."""
    job = make_job(retry_count=retry_count)
    found = settle_outcome(
        job, 1, "ses", Failed("429", is_providers_fault=True, retry_after_seconds=retry_after), POLICY
    )
    backoff = 60.0 * 2**retry_count
    assert found.delay_seconds is not None
    assert max(retry_after, backoff * 0.9) <= found.delay_seconds <= max(retry_after, backoff * 1.1)


@given(retry_after=st.floats(0, 10_000), retry_count=st.integers(0, 9))
def test_an_unavailable_provider_costs_time_only(retry_after: float, retry_count: int) -> None:
    """A snooze lasts as long as the provider said, else one first backoff, however many retries are used up."""
    found = settle_outcome(make_job(retry_count=retry_count), 1, "smtp", Unavailable("down", retry_after), POLICY)
    assert found.delay_seconds is not None
    assert found.delay_seconds == retry_after if retry_after else 54.0 <= found.delay_seconds <= 66.0
    assert found.retries == 0


def test_an_unknown_answer_waits_for_evidence() -> None:
    """effectively_once waits EMAIL_DOUBT_SECONDS exactly, and keeps attempt_no so that the doubt is found again."""
    job = make_job(guarantee=EFFECTIVELY, attempt_no=4, retry_count=1)
    found = settle_outcome(job, 5, "smtp", Unknown("no answer"), POLICY)
    assert (found.attempt_no, found.delay_seconds, found.retries) == (4, POLICY.doubt_seconds, 0)


@given(text=st.text(st.characters(codec=None, categories=("L", "Cs", "Cc")), max_size=30), times=st.integers(1, 100))
@example("x", 5000)
@example("a\x00b", 1)
@example("\ud800", 1)
def test_an_error_fits_the_table(text: str, times: int) -> None:
    """Errors are cut to a length and hold nothing that Postgres text cannot: no NUL, no half of a surrogate pair."""
    found = dead(make_job(), 1, text * times).error
    assert found == in_doubt(make_job(), 1, text * times).error
    assert found is not None
    assert "\x00" not in found
    found.encode("utf-8")
    assert len(found.replace("\\0", "0")) <= MAX_ERROR_LENGTH
    assert text not in ("x", "a\x00b") or found.replace("\\0", "\x00") == (text * times)[:MAX_ERROR_LENGTH]


def test_expired_names_its_reason() -> None:
    """An expired job is its own status, costs no retry and counts its attempt."""
    found = unsent(make_job(), 3, Status.EXPIRED, "expired before it could be sent")
    assert (found.status, found.event, found.attempt_no, found.retries) == (Status.EXPIRED, Event.EXPIRED, 3, 0)
    assert found.error
