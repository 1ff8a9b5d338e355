"""A log handler that never waits: whoever reads our standard error may stall, and delivery must not stall with them.

A thread writes the lines. When a thousand of them wait, further ones are dropped and counted, and the count is told
when there is room again.
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import TextIO

MOST_WAITING = 1000
# At the end of a process, and before it is ended by force.
FLUSH_SECONDS = 1.0


class PatientHandler(logging.Handler):
    """Formats in the thread that logs, and writes in its own."""

    def __init__(self, stream: TextIO | None, mask: Callable[[str], str]) -> None:
        """`mask` is for the whole line, tracebacks included."""
        super().__init__()
        self._stream = stream
        self._mask = mask
        self._lines: queue.Queue[str] = queue.Queue(MOST_WAITING)
        self._dropped = 0
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line to the writer, or drop it."""
        try:
            line = self._mask(self.format(record))
        except Exception:  # noqa: BLE001  Whatever a value's repr does: logging breaks nothing.
            return
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def flush(self) -> None:
        """Wait for the writer, but not long. Called by `logging` when the process ends."""
        with self._lines.all_tasks_done:
            self._lines.all_tasks_done.wait_for(lambda: not self._lines.unfinished_tasks, FLUSH_SECONDS)

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            dropped, self._dropped = self._dropped, 0
            self._try(line + "\n" + (f"({dropped} lines of the log were dropped here)\n" if dropped else ""))
            self._lines.task_done()

    def _try(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            # Closed, or full: there is nobody to tell.
            return


def flush_logs() -> None:
    """Write what waits to be written, before a process is ended by force."""
    for handler in logging.getLogger().handlers:
        handler.flush()
