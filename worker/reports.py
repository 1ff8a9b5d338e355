"""What an ingestor tells of its work: one line every ten seconds in which there was some."""

import time
from collections import Counter
from collections.abc import Mapping

import structlog

from worker import metrics

REPORT_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Reports:
    """Counts until the next line."""

    def __init__(self, source: str, **about: str) -> None:
        self._source = source
        self._about = about
        self._counts: Counter[str] = Counter()
        self._told_at = time.monotonic()

    def count(self, counts: Mapping[str, int]) -> None:
        """One batch's ends."""
        self._counts.update(counts)
        metrics.ingested(self._source, counts)

    def tell_if_due(self) -> None:
        """Write the line if it is time."""
        if self._counts and time.monotonic() - self._told_at >= REPORT_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Write the line, if there is something to tell."""
        if self._counts.total():
            log.info(
                "ingested",
                source=self._source,
                **self._about,
                **{str(end): number for end, number in self._counts.items()},
            )
        self._counts.clear()
        self._told_at = time.monotonic()
