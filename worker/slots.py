"""The delivery slots of a process, shared fairly by the two queues.

Bulk never holds the last one, so a password reset always finds a slot; transactional never holds all of them, so a
flood of confirmations does not stop a campaign for good.
"""

from collections import Counter

from worker.job import Queue


class Slots:
    """Counts who holds how many of `size` slots."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: Counter[Queue] = Counter()

    def has_room(self, queue: Queue) -> bool:
        """Whether the queue may take one more."""
        return self._held.total() < self._size and self._held[queue] < self._size - 1

    def held(self, queue: Queue) -> int:
        """How many the queue has now."""
        return self._held[queue]

    def take(self, queue: Queue) -> bool:
        """Take a slot for the queue, if it may have one."""
        if not self.has_room(queue):
            return False
        self._held[queue] += 1
        return True

    def give(self, queue: Queue) -> None:
        """Give a slot back."""
        self._held[queue] -= 1
