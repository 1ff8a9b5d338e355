"""Whether this process lives and is ready: what `/healthz` and `/readyz` answer.

It lives while its main loop turns (of several, one of them), and while it claims when there is something to claim. It
is ready while Postgres answers. Redis, Kafka and the providers are not asked: without them it still works, or says so.
"""

import threading
import time
from collections.abc import Callable

# A loop that has not turned for so long hangs.
LOOP_SECONDS = 10.0
# With nothing claimed for so long, it is looked whether there is something to claim.
IDLE_SECONDS = 60.0


class VitalSigns:
    """Told by the process, asked by the server's thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, idle_seconds: float = IDLE_SECONDS) -> None:
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._turned_at = clock()
        self._worked_at = clock()
        self.checks: list[Callable[[], str | None]] = []
        """Each says why the process is not ready, in words; None when it sees no reason."""
        self.is_work_waiting: Callable[[], bool] = lambda: False
        """Whether jobs have been due for a while that nobody holds. Asked rarely; may take a moment."""

    def turned(self) -> None:
        """The main loop goes round."""
        self._turned_at = self._clock()

    def worked(self) -> None:
        """Something was claimed, or there is a reason why nothing may be: a limit, a pause."""
        self._worked_at = self._clock()

    def not_ready(self) -> str | None:
        """Why the process cannot do its work now; None if it can."""
        return next((words for check in self.checks if (words := check()) is not None), None)

    def trouble(self) -> str | None:
        """Why the process should be started again; None if it should not."""
        still = self._clock() - self._turned_at
        if still > LOOP_SECONDS:
            return f"the main loop has not turned for {still:.0f} s"
        with self._lock:
            idle = self._clock() - self._worked_at
            if idle > self._idle_seconds and self.is_work_waiting():
                return f"nothing was claimed for {idle:.0f} s, though jobs are due"
        return None
