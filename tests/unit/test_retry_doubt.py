"""What the journal of a dead worker means for its jobs: the design's rule for conflicts, and that every doubt ends."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.unit.values import make_job
from worker.job import (
    AttemptState,
    Event,
    Failed,
    Guarantee,
    JournalRow,
    Outcome,
    Resend,
    Settlement,
    Status,
    Unknown,
)
from worker.retry import RetryPolicy, settle_doubt, settle_outcome

POLICY = RetryPolicy(delay_seconds=60.0, max_retries=3, doubt_seconds=120.0)
A, F, R, S, U, N = (
    AttemptState.ACCEPTED,
    AttemptState.FAILED,
    AttemptState.REFUSED,
    AttemptState.SENDING,
    AttemptState.UNKNOWN,
    AttemptState.NOT_SENT,
)
ONCE, TWICE, EFFECTIVELY = Guarantee.AT_MOST_ONCE, Guarantee.AT_LEAST_ONCE, Guarantee.EFFECTIVELY_ONCE


def journal(*states: AttemptState, age_seconds: float = 0.0, first: int = 1) -> list[JournalRow]:
    """Attempts of one job in these states, numbered from `first`."""
    return [
        JournalRow(1, number, state, f"provider-{number}", None, f"<{number}>", age_seconds)
        for number, state in enumerate(states, first)
    ]


# A restatement of the design's rule for conflicts, in other words than the code's.
def expected(
    guarantee: Guarantee, states: list[AttemptState], ages: list[float], retries_left: int
) -> tuple[str, int | None]:
    """(what is to be done, its price where the rule names one)."""
    if A in states:
        return "sent", 0
    doubtful = [place for place, state in enumerate(states) if state in (S, U)]
    if not doubtful:
        by_newest = {R: ("dead", 0), F: ("retry", 1) if retries_left > 0 else ("dead", 0), N: ("send", 0)}
        return by_newest[states[-1]]
    tries_before = len([state for state in states if state != N]) - 1
    newest = doubtful[-1]
    if guarantee == EFFECTIVELY and ages[newest] < POLICY.doubt_seconds:
        return "wait", 0
    if guarantee == ONCE or tries_before >= retries_left:
        return "in doubt", None
    return ("retry" if guarantee == TWICE and states[newest] == U else "send"), tries_before + 1


def in_words(verdict: Settlement | Resend) -> str:
    """The same words for what the code decided."""
    if isinstance(verdict, Resend):
        return "send"
    pending = {Event.RETRY_SCHEDULED: "retry", Event.SNOOZED: "wait"}
    ends = {Status.SENT: "sent", Status.DEAD: "dead", Status.IN_DOUBT: "in doubt"}
    return ends.get(verdict.status) or pending[verdict.event]  # type: ignore[index]


_attempts = st.lists(st.tuples(st.sampled_from(AttemptState), st.floats(0, 300)), min_size=1, max_size=6)


@given(
    guarantee=st.sampled_from(Guarantee),
    attempts=_attempts,
    attempt_no=st.integers(0, 5),
    retry_count=st.integers(0, 3),
    max_retries=st.none() | st.integers(0, 6),
)
@example(EFFECTIVELY, [(S, 119.9)], 0, 0, None)
@example(EFFECTIVELY, [(S, 120.0)], 0, 0, None)
@example(TWICE, [(U, 1.0), (N, 0.5)], 2, 0, None)
def test_a_conflict_is_decided_by_the_rule(
    guarantee: Guarantee,
    attempts: list[tuple[AttemptState, float]],
    attempt_no: int,
    retry_count: int,
    max_retries: int | None,
) -> None:
    """Any accepted: sent; any sending or unknown: doubt; else the newest decides; a new send is the highest + 1."""
    job = make_job(guarantee=guarantee, attempt_no=attempt_no, retry_count=retry_count, max_retries=max_retries)
    states, ages = [state for state, _ in attempts], [age for _, age in attempts]
    # A failure before another attempt is the fallback's cause: the price of that has a test of its own.
    assume(F not in states[:-1] or not {S, U} & set(states))
    rows = [
        JournalRow(1, attempt_no + number, state, f"provider-{number}", None, f"<{number}>", age)
        for number, (state, age) in enumerate(attempts, 1)
    ]
    left = (POLICY.max_retries if max_retries is None else max_retries) - retry_count
    found = settle_doubt(job, rows, POLICY)
    what, price = expected(guarantee, states, ages, left)
    assert in_words(found) == what
    assert price is None or found.retries == price
    highest = attempt_no + len(rows)
    if isinstance(found, Resend):
        assert found.attempt == highest + 1
    else:
        assert found.attempt_no == (attempt_no if what == "wait" else highest)
    if isinstance(found, Settlement) and what == "sent":
        first = states.index(A) + 1
        assert (found.provider, found.message_id) == (f"provider-{first}", f"<{first}>")
    if isinstance(found, Settlement) and what == "wait":
        newest = max(place for place, state in enumerate(states) if state in (S, U))
        assert found.delay_seconds == pytest.approx(POLICY.doubt_seconds - ages[newest])


@given(guarantee=st.sampled_from(Guarantee), max_retries=st.integers(0, 8), used=st.integers(0, 8))
def test_a_sequence_of_crashes_ends_in_doubt(guarantee: Guarantee, max_retries: int, used: int) -> None:
    """A mail that kills its worker each time is sent once and once per retry left, never more, then rests in doubt."""
    job = make_job(guarantee=guarantee, max_retries=max_retries, retry_count=used)
    allowed = 0 if guarantee == ONCE else max(0, max_retries - used)
    states = [S]
    while isinstance(verdict := settle_doubt(job, journal(*states, age_seconds=999.0), POLICY), Resend):
        assert verdict == Resend(len(states) + 1, len(states))
        states.append(S)
        assert len(states) <= 1 + allowed
    assert len(states) == 1 + allowed
    assert (verdict.status, verdict.attempt_no, verdict.retries) == (Status.IN_DOUBT, len(states), allowed)


@given(
    guarantee=st.sampled_from([TWICE, EFFECTIVELY]),
    max_retries=st.integers(0, 5),
    steps=st.lists(st.sampled_from(["crash", "unknown", "failed"]), min_size=20, max_size=20),
)
def test_crashes_and_unknown_answers_in_any_order_end(guarantee: Guarantee, max_retries: int, steps: list[str]) -> None:
    """However crashes, unknown answers and failures follow each other, a job is sent at most 1 + max_retries times."""
    attempt_no = retry_count = sends = 0
    rows: list[AttemptState] = []
    for step in steps:
        job = make_job(guarantee=guarantee, max_retries=max_retries, attempt_no=attempt_no, retry_count=retry_count)
        attempt, spent = attempt_no + 1, 0
        if rows:
            verdict = settle_doubt(job, journal(*rows, age_seconds=999.0, first=attempt_no + 1), POLICY)
            if isinstance(verdict, Settlement):
                attempt_no, retry_count, rows = verdict.attempt_no, retry_count + verdict.retries, []
                if verdict.status != Status.PENDING:
                    break
                continue
            attempt, spent = verdict.attempt, verdict.retries
        sends += 1
        rows.append(S)
        if step == "crash":
            continue
        outcome: Outcome = Unknown("?") if step == "unknown" else Failed("451", is_providers_fault=False)
        rows[-1] = U if step == "unknown" else F
        settled = settle_outcome(job, attempt, "smtp", outcome, POLICY, spent)
        retry_count += settled.retries
        if settled.status != Status.PENDING:
            break
        if settled.attempt_no == attempt:
            rows = []
        attempt_no = settled.attempt_no
    else:
        raise AssertionError("it never ended")
    assert sends <= 1 + max_retries
    assert retry_count <= max_retries


def test_a_doubt_says_who_had_the_mail() -> None:
    """The person who has to decide learns which attempt was in the hands of which provider."""
    found = settle_doubt(make_job(guarantee=ONCE), journal(N, S), POLICY)
    assert isinstance(found, Settlement)
    assert found.error == "a worker died with attempt 2 in the hands of provider-2"
    assert found.provider == "provider-2"


@pytest.mark.parametrize("guarantee", [TWICE, EFFECTIVELY])
def test_going_to_the_fallback_costs_no_retry(guarantee: Guarantee) -> None:
    """The fallback gets a mail in the same claim for nothing: when the worker dies then, the doubt costs one retry."""
    job = make_job(guarantee=guarantee, max_retries=1)
    assert settle_doubt(job, journal(F, S, age_seconds=999.0), POLICY) == Resend(3, 1)
