"""What a template may use: seconds, memory, output. Guards the process against a template or data gone wild.

Jinja's sandbox keeps a template from reaching out; nothing in it keeps `{% for %}` in `{% for %}` from running for a
year, or `x ~ x` from doubling to the end of memory. A timer interrupts the render that has run too long, and the
kernel refuses memory beyond a margin while a batch is rendered. Both cost a few system calls per batch.
"""

import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RENDER_SECONDS = 2.0
RENDER_MEMORY_BYTES = 256 * 1024 * 1024
PART_CHARACTERS = 2_000_000

_TICK_SECONDS = 0.25


class RenderTooLong(BaseException):
    """Raised in the middle of a render that exceeds RENDER_SECONDS. No `except Exception` of a library may keep it."""


class RenderClock:
    """Knows since when the current render runs; `start` and `stop` are all that a mail costs."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since = 0.0

    def start(self) -> None:
        """A render begins."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """The render ended; a late tick finds nothing to interrupt."""
        self._since = 0.0

    def tick(self, _signal: int, _frame: FrameType | None) -> None:
        """The timer's signal handler."""
        if self._since and time.monotonic() - self._since > RENDER_SECONDS:
            raise RenderTooLong


@contextmanager
def render_limits(clock: RenderClock) -> Iterator[None]:
    """Hold the limits while a batch is rendered. Time is only limited in the main thread, where signals arrive."""
    with _memory_margin(), _timer(clock):
        yield


@contextmanager
def _timer(clock: RenderClock) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, clock.tick)
    signal.setitimer(signal.ITIMER_REAL, _TICK_SECONDS, _TICK_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _memory_margin() -> Iterator[None]:
    if sys.platform != "linux":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + RENDER_MEMORY_BYTES
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    """The private memory that this process has mapped now (see proc(5), statm)."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[5]) * resource.getpagesize()
