"""What is measured, under the names that Prometheus knows it by. Counters are raised once a batch.

Labels come from closed lists (outcomes, providers) or from tables of the operator's (types, templates): no address and
no id is one, so there are never more series than somebody can look at.
"""

from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import Counter, Gauge, Histogram

from worker.job import (
    Accepted,
    Event,
    Failed,
    NotSent,
    Outcome,
    Refused,
    Settlement,
    Status,
    SuppressionReason,
    Unavailable,
    Unknown,
)

# From a server next door to one that takes the whole deadline.
_DELIVERY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# What Postgres and rendering take for a batch.
_BATCH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SIZE_BUCKETS = (1, 5, 10, 25, 50, 100, 250, 500, 1000)

PROCESSED = Counter("email_jobs_processed", "Jobs settled, by type and outcome.", ["type", "outcome"])
ATTEMPTS = Counter("email_delivery_attempts", "Answers of providers, by outcome.", ["provider", "outcome"])
DELIVERY = Histogram(
    "email_delivery_duration_seconds", "From the hand-over to the answer.", ["provider"], buckets=_DELIVERY_BUCKETS
)
RETRIES = Counter("email_retries", "Retries scheduled, by type.", ["type"])
RENDERS = Counter("email_template_renders", "Mails rendered, by template.", ["template"])
RENDER = Histogram("email_render_duration_seconds", "Rendering a batch.", buckets=_BATCH_BUCKETS)
CLAIM = Histogram("email_claim_duration_seconds", "Claiming a batch, if something was there.", buckets=_BATCH_BUCKETS)
SETTLE = Histogram("email_settle_duration_seconds", "Settling a batch.", buckets=_BATCH_BUCKETS)
BATCH_SIZE = Histogram("email_batch_size", "Jobs claimed in a batch.", buckets=_SIZE_BUCKETS)
BREAKER = Gauge("email_provider_breaker_state", "0 closed, 1 half-open, 2 open.", ["provider"])
LIMITED = Counter("email_rate_limited", "Mails that were held up, by the limits that they have to pass.", ["bucket"])
SUPPRESSED = Counter("email_suppressed", "Mails not sent for the recipient's sake, by reason.", ["reason"])
QUOTA_USED = Gauge("email_provider_quota_used_ratio", "Mails of the last day over the account's quota.", ["provider"])
INGESTED = Counter("email_ingest_messages", "Messages stored or rejected.", ["source", "result"])
INGEST_LAG = Gauge("email_ingest_lag", "Messages that wait at the source.", ["source"])
CERTIFICATE = Gauge("email_certificate_expires_timestamp_seconds", "The server's certificate ends.", ["provider"])
DKIM_KEY = Gauge("email_dkim_key_expires_timestamp_seconds", "DKIM_KEY_EXPIRES: the key is to be replaced by then.")
LOOP_LAG = Gauge("email_event_loop_lag_seconds", "How late the event loop is, averaged over half a second.")
BUILD = Gauge("email_build_info", "1, with the version as label.", ["version"])

# Not allowed outside production, or whatever else the list of reasons does not have.
OTHER_REASON = "not_allowed"
_OUTCOMES: dict[type[Outcome], str] = {
    Accepted: "accepted",
    Refused: "refused",
    Failed: "failed",
    Unknown: "unknown",
    NotSent: "not_sent",
    Unavailable: "unavailable",
}
_child = cache(lambda metric, *labels: metric.labels(*labels))


def batch_claimed(jobs: int, seconds: float) -> None:
    """A claim that found something."""
    CLAIM.observe(seconds)
    BATCH_SIZE.observe(jobs)


def batch_rendered(templates: Iterable[str], seconds: float) -> None:
    """A batch's mails, by the names of their templates."""
    RENDER.observe(seconds)
    for template, number in Count(templates).items():
        _child(RENDERS, template).inc(number)


def batch_answered(provider: str, outcomes: Mapping[type[Outcome], int], seconds: Sequence[float]) -> None:
    """One provider's answers, and how long those took that came."""
    for outcome, number in outcomes.items():
        _child(ATTEMPTS, provider, _OUTCOMES[outcome]).inc(number)
    observe = _child(DELIVERY, provider).observe
    for each in seconds:
        observe(each)


def batch_settled(settlements: Sequence[Settlement], seconds: float) -> None:
    """The ends that a batch has written."""
    SETTLE.observe(seconds)
    ends = Count((s.job.type, s.event) for s in settlements if s.event is not None)
    for (kind, event), number in ends.items():
        _child(PROCESSED, kind, str(event)).inc(number)
        if event is Event.RETRY_SCHEDULED:
            _child(RETRIES, kind).inc(number)
    for settlement in settlements:
        if settlement.status is Status.SUPPRESSED:
            _child(SUPPRESSED, _reason(settlement.error or "")).inc()


def _reason(error: str) -> str:
    word = error.partition(" ")[0]
    return word if word in set(SuppressionReason) else OTHER_REASON


def limited(bucket: str, mails: int) -> None:
    """Mails that a limit held up."""
    _child(LIMITED, bucket).inc(mails)


def ingested(source: str, results: Mapping[str, int]) -> None:
    """One batch of an ingestor."""
    for result, number in results.items():
        _child(INGESTED, source, str(result)).inc(number)


def watch_breaker(provider: str, state: Callable[[], float]) -> None:
    """Ask for a breaker's state whenever somebody asks us."""
    BREAKER.labels(provider).set_function(state)


def watch_loop(lag: Callable[[], float]) -> None:
    """Ask for the loop's lateness whenever somebody asks us."""
    LOOP_LAG.set_function(lag)


def dkim_key_expires(day: str) -> None:
    """The day of the setting, if there is one; from its beginning on, by UTC."""
    if day:
        DKIM_KEY.set(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())


def tell_version() -> None:
    """Which version runs."""
    try:
        number = version("email-worker")
    except PackageNotFoundError:
        number = "unknown"
    BUILD.labels(number).set(1)
