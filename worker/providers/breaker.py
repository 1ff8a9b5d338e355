"""A circuit breaker: after some failures in a row a provider is left alone for a while, then tried with one mail.

One for each provider of a process. The clock is a parameter, so that tests own it.
"""

import time
from collections.abc import Callable
from enum import StrEnum

import structlog

log = structlog.get_logger(__name__)


class BreakerState(StrEnum):
    """Closed lets everything through, open nothing, half-open one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


_LEVELS = (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)


class Breaker:
    """Opens after `failures` in a row (0: never), and lets a probe through `open_seconds` later."""

    def __init__(
        self,
        provider: str,
        failures: int,
        open_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._most_failures = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._wall_clock = wall_clock
        self._failures = 0
        self._opened_at = 0.0
        self._closed_until = float("-inf")
        self._state = BreakerState.CLOSED
        self._probe_is_out = False

    @property
    def state(self) -> BreakerState:
        """Where it stands."""
        if self._state is BreakerState.OPEN and self._clock() >= self._closed_until:
            self._state = BreakerState.HALF_OPEN
        return self._state

    @property
    def level(self) -> float:
        """The state as a number: 0 closed, 1 half-open, 2 open."""
        return float(_LEVELS.index(self.state))

    @property
    def seconds_left(self) -> float:
        """Until the next probe; a second at least, while one is out."""
        return max(1.0, self._closed_until - self._clock())

    @property
    def words(self) -> str:
        """Why nothing goes through, for a journal."""
        return f"breaker open since {time.strftime('%H:%M UTC', time.gmtime(self._opened_at))}"

    def allowance(self, mails: int) -> int:
        """How many of these may go. The one that a half-open breaker lets through is the probe."""
        if self.state is BreakerState.CLOSED:
            return mails
        if self.state is BreakerState.OPEN or self._probe_is_out or not mails:
            return 0
        self._probe_is_out = True
        return 1

    def succeeded(self, *, is_probe: bool = False) -> None:
        """The provider did its work."""
        self._failures = 0
        # An answer to what went out before it opened proves nothing.
        if is_probe and self.state is BreakerState.HALF_OPEN:
            self._state = BreakerState.CLOSED
            log.info("the provider works again", provider=self._provider)

    def failed(self, why: str, *, is_probe: bool = False) -> None:
        """The provider failed by its own fault, or was too slow."""
        self._failures += 1
        if is_probe or (self._state is BreakerState.CLOSED and self._failures >= self._most_failures):
            self._open(why, self._open_seconds)

    def is_out(self, why: str, seconds: float) -> None:
        """The provider said itself that it takes nothing: no need to count."""
        if self._state is not BreakerState.OPEN:
            self._open(why, max(self._open_seconds, seconds))

    def probe_ended(self) -> None:
        """The probe is back, with an answer or without: when it is time, the next one may go."""
        self._probe_is_out = False

    def _open(self, why: str, seconds: float) -> None:
        if not self._most_failures:
            return
        if self._state is BreakerState.CLOSED:
            self._opened_at = self._wall_clock()
        self._state = BreakerState.OPEN
        self._failures = 0
        self._closed_until = self._clock() + seconds
        log.warning("the provider is left alone", provider=self._provider, seconds=round(seconds), reason=why)
