"""What a delivered batch is told as: the metrics, one line in the log, and a line for each mail at debug."""

from collections import Counter

import structlog

from worker import metrics
from worker.batch import Batch
from worker.job import Queue
from worker.prepare import Prepared

log = structlog.get_logger(__name__)


def measure(prepared: Prepared, batch: Batch, settle_seconds: float) -> None:
    """Raise the counters, once for the batch."""
    metrics.batch_rendered([mail.job.template for mail in prepared.mails], prepared.render_seconds)
    for provider, answers in batch.answers.items():
        metrics.batch_answered(provider, answers.outcomes, answers.seconds)
    metrics.batch_settled(batch.settlements, settle_seconds)


def log_batch(queue: Queue, claimed: int, batch: Batch, seconds: float, slow_seconds: float) -> None:
    """One line; at warning if it took longer than LOG_SLOW_SECONDS."""
    counts = Counter(str(settlement.event or "released") for settlement in batch.settlements)
    if claimed > len(batch.settlements):
        counts["untouched"] = claimed - len(batch.settlements)
    is_slow = 0 < slow_seconds < seconds
    tell, what = (log.warning, "a slow batch") if is_slow else (log.info, "batch")
    tell(what, queue=str(queue), claimed=claimed, milliseconds=round(seconds * 1000), **counts)


def log_mails(batch: Batch) -> None:
    """A line for each mail."""
    for s in batch.settlements:
        log.debug(
            "mail",
            job_id=s.job.job_id,
            attempt=s.attempt_no,
            outcome=str(s.event or "released"),
            provider=s.provider,
            reason=s.error,
            to=s.job.recipient_email,
        )
