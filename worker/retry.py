"""What an outcome means for a job: sent, retry, snooze, dead, in doubt. Pure: no clock, no database.

`settle_outcome` reads an answer that this process saw; `settle_doubt` reads what the journal kept of a process that
died. Both follow the job's guarantee, and both end: every repetition out of doubt costs a retry.
"""

import random
from collections.abc import Sequence
from itertools import pairwise
from typing import assert_never

import msgspec

from worker.job import (
    Accepted,
    AttemptState,
    Event,
    Failed,
    Guarantee,
    Job,
    JournalRow,
    NotSent,
    Outcome,
    Refused,
    Resend,
    Settlement,
    Status,
    Unavailable,
    Unknown,
)

# A tenth either way keeps retries of one outage from coming back as one wave.
JITTER = 0.1
# 60 s × 2^10 is 17 hours: beyond that, waiting longer helps nobody.
MAX_DOUBLINGS = 10
MAX_ERROR_LENGTH = 1000


class RetryPolicy(msgspec.Struct, frozen=True):
    """EMAIL_RETRY_DELAY_SECONDS, EMAIL_MAX_RETRIES and EMAIL_DOUBT_SECONDS, with the types' own retries."""

    delay_seconds: float
    max_retries: int
    doubt_seconds: float


def backoff_seconds(policy: RetryPolicy, retry_count: int, at_least: float = 0.0) -> float:
    """Seconds until the next try after a failure with `retry_count` retries used before it: 60, 120, 240 … or so."""
    delay = policy.delay_seconds * 2.0 ** min(retry_count, MAX_DOUBLINGS)
    return max(at_least, delay * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  Nobody gains by guessing it.


def settle_outcome(
    job: Job, attempt: int, provider: str, outcome: Outcome, policy: RetryPolicy, retries: int = 0
) -> Settlement:
    """What becomes of a job whose journaled attempt had this outcome.

    `retries` is what resending out of a doubt has cost already in this claim.
    """
    match outcome:
        case Accepted(message_id):
            return Settlement(job, Status.SENT, Event.SENT, attempt, retries, None, provider, message_id)
        case Refused(answer):
            return dead(job, attempt, answer, provider, retries)
        case Failed(answer, _, retry_after, _):
            return _retry_or_dead(job, attempt, provider, answer, policy, retries, retry_after)
        case Unknown(answer):
            return _settle_unknown(job, attempt, provider, answer, policy, retries)
        case NotSent(_):
            return Settlement(job, Status.PENDING, None, attempt, retries, has_turn=job.has_turn or None)
        case Unavailable(reason, retry_after, has_turn):
            delay = retry_after or backoff_seconds(policy, 0)
            return _snooze(job, attempt, delay, reason, provider, retries, has_turn or None)
        case _:
            assert_never(outcome)


def _settle_unknown(
    job: Job, attempt: int, provider: str, answer: str, policy: RetryPolicy, retries: int
) -> Settlement:
    if job.guarantee == Guarantee.EFFECTIVELY_ONCE:
        return _wait_for_evidence(job, policy.doubt_seconds, answer)
    if job.guarantee == Guarantee.AT_LEAST_ONCE and _has_retries_left(job, policy, retries):
        return _retry(job, attempt, provider, answer, policy, retries)
    return in_doubt(job, attempt, answer, provider, retries)


def settle_doubt(job: Job, rows: Sequence[JournalRow], policy: RetryPolicy) -> Settlement | Resend:
    """What becomes of a job that a worker died with: `rows` are its attempts above `job.attempt_no`, oldest first."""
    newest = rows[-1]
    taken = next((row for row in rows if row.state == AttemptState.ACCEPTED), None)
    if taken is not None:
        return Settlement(job, Status.SENT, Event.SENT, newest.attempt, 0, None, taken.provider, taken.message_id)
    questions = [row for row in rows if row.state in (AttemptState.SENDING, AttemptState.UNKNOWN)]
    if questions:
        # Every try but the first is one that no settle has charged yet; the fallback's, after a failure, is free.
        tries = sum(row.state != AttemptState.NOT_SENT for row in rows)
        fallbacks = sum(
            row.state == AttemptState.FAILED and row.provider != following.provider for row, following in pairwise(rows)
        )
        spent = tries - fallbacks - 1
        return _settle_questions(job, newest, questions[-1], policy, spent)
    answer = newest.answer or newest.state
    if newest.state == AttemptState.REFUSED:
        return dead(job, newest.attempt, answer, newest.provider)
    if newest.state == AttemptState.FAILED:
        return _retry_or_dead(job, newest.attempt, newest.provider, answer, policy)
    return Resend(newest.attempt + 1, 0)


def _settle_questions(
    job: Job, newest: JournalRow, last: JournalRow, policy: RetryPolicy, spent: int
) -> Settlement | Resend:
    what = last.answer or f"a worker died with attempt {last.attempt} in the hands of {last.provider}"
    if job.guarantee == Guarantee.EFFECTIVELY_ONCE and last.age_seconds < policy.doubt_seconds:
        return _wait_for_evidence(job, policy.doubt_seconds - last.age_seconds, what)
    if job.guarantee == Guarantee.AT_MOST_ONCE or not _has_retries_left(job, policy, spent):
        return in_doubt(job, newest.attempt, what, last.provider, spent)
    if job.guarantee == Guarantee.AT_LEAST_ONCE and last.state == AttemptState.UNKNOWN:
        return _retry(job, newest.attempt, last.provider, what, policy, spent)
    return Resend(newest.attempt + 1, spent + 1)


def _wait_for_evidence(job: Job, seconds: float, what: str) -> Settlement:
    """Keeps attempt_no, so that the next claim finds the doubt, and the price of its resends, again."""
    return _snooze(job, job.attempt_no, seconds, f"waits for evidence: {what}")


def wait_for_turn(job: Job, seconds: float, why: str) -> Settlement:
    """Held up by a rate limit before anything was done about it; what a dead worker left of it waits too."""
    return _snooze(job, job.attempt_no, seconds, why, has_turn=True)


def _snooze(
    job: Job,
    attempt: int,
    seconds: float,
    why: str,
    provider: str | None = None,
    retries: int = 0,
    has_turn: bool | None = None,
) -> Settlement:
    return Settlement(
        job, Status.PENDING, Event.SNOOZED, attempt, retries, seconds, provider, None, clip(why), has_turn
    )


def _has_retries_left(job: Job, policy: RetryPolicy, retries: int) -> bool:
    allowed = policy.max_retries if job.max_retries is None else job.max_retries
    return job.retry_count + retries < allowed


def _retry_or_dead(
    job: Job,
    attempt: int,
    provider: str | None,
    answer: str,
    policy: RetryPolicy,
    retries: int = 0,
    at_least: float = 0.0,
) -> Settlement:
    if _has_retries_left(job, policy, retries):
        return _retry(job, attempt, provider, answer, policy, retries, at_least)
    return dead(job, attempt, answer, provider, retries)


def _retry(
    job: Job,
    attempt: int,
    provider: str | None,
    answer: str,
    policy: RetryPolicy,
    retries: int = 0,
    at_least: float = 0.0,
) -> Settlement:
    delay = backoff_seconds(policy, job.retry_count + retries, at_least)
    return Settlement(
        job, Status.PENDING, Event.RETRY_SCHEDULED, attempt, retries + 1, delay, provider, None, clip(answer)
    )


def dead(job: Job, attempt: int, error: str, provider: str | None = None, retries: int = 0) -> Settlement:
    """Given up, with the reason."""
    return Settlement(job, Status.DEAD, Event.DEAD, attempt, retries, None, provider, None, clip(error))


def in_doubt(job: Job, attempt: int, error: str, provider: str | None = None, retries: int = 0) -> Settlement:
    """May have been sent; a person or late evidence decides."""
    return Settlement(job, Status.IN_DOUBT, Event.IN_DOUBT, attempt, retries, None, provider, None, clip(error))


def unsent(job: Job, attempt: int, status: Status, error: str, retries: int = 0) -> Settlement:
    """An end without a hand-over, as dead, expired or suppressed. The event has the status's name."""
    return Settlement(job, status, Event(status), attempt, retries, error=clip(error))


def clip(text: str) -> str:
    """A text of a size for a table, without what Postgres text cannot hold: NUL and halves of surrogate pairs."""
    text = text[:MAX_ERROR_LENGTH].replace("\x00", "\\0")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
