"""How late the event loop is: the measure of whether one more batch would go faster or only make others wait.

A timer that should fire twenty times a second notes its lateness. It rises when the loop is full, and also when others
have the processor.
"""

import asyncio
from collections.abc import Callable

SAMPLE_SECONDS = 0.05
# Weight of the newest sample: about half a second of memory.
WEIGHT = 0.1
# A mail passes the loop six times or so: more than this each time is felt.
HIGH_SECONDS = 0.004


class LoopLag:
    """Running average of the loop's lateness, in seconds."""

    def __init__(self, turned: Callable[[], None] = lambda: None) -> None:
        """`turned` is called at each sample: the loop lives."""
        self.seconds = 0.0
        self._turned = turned
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_high(self) -> bool:
        """Whether the loop has all the work that it can do."""
        return self.seconds > HIGH_SECONDS

    def start(self) -> None:
        """Begin to sample on the running loop."""
        self._schedule(asyncio.get_running_loop())

    def stop(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + SAMPLE_SECONDS
        self._timer = loop.call_at(due, self._sample, loop, due)

    def _sample(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._turned()
        self.seconds += (loop.time() - due - self.seconds) * WEIGHT
        self._schedule(loop)
