"""The bound on a provider's open intents: what a kill can leave in doubt, and who is served first where it is short.

Transactional batches come first, but never alone: while both wait, every fourth turn is bulk's.
"""

import asyncio
from collections import deque

# A commit of the journal is worth making for a quarter of the room.
WORTHWHILE_SHARE = 4
# While both wait, one turn in so many goes to bulk.
BULK_TURN = 4


class Turns:
    """Whose turn it is, where both kinds of mail wait for the same thing."""

    __slots__ = ("_urgent_in_a_row",)

    def __init__(self) -> None:
        self._urgent_in_a_row = 0

    def is_urgents(self, *, urgent_waits: bool, bulk_waits: bool) -> bool:
        """Whether the next turn is a transactional one's. Counts the turn as taken."""
        chosen = urgent_waits and (not bulk_waits or self._urgent_in_a_row < BULK_TURN - 1)
        self._urgent_in_a_row = self._urgent_in_a_row + 1 if chosen else 0
        return chosen


class _Waiter:
    """A batch that waits for room."""

    __slots__ = ("granted", "want")

    def __init__(self, want: int) -> None:
        self.want = want
        self.granted: asyncio.Future[int] = asyncio.get_running_loop().create_future()


class Window:
    """The open intents that a provider still allows."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._worthwhile = max(1, size // WORTHWHILE_SHARE)
        self._urgent: deque[_Waiter] = deque()
        self._bulk: deque[_Waiter] = deque()
        self._turns = Turns()

    async def take(self, want: int, *, is_urgent: bool) -> int:
        """Wait for room; returns how much was taken, 1 to `want`."""
        if self._is_worthwhile(want) and not self._urgent and not self._bulk:
            return self._grant(want)
        waiter = _Waiter(want)
        (self._urgent if is_urgent else self._bulk).append(waiter)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give(waiter.granted.result())
            raise

    def give(self, room: int) -> None:
        """Room came back."""
        self._free += room
        self._forget_cancelled()
        while (self._urgent or self._bulk) and self._is_worthwhile(self._least_wanted()):
            is_urgents = self._turns.is_urgents(urgent_waits=bool(self._urgent), bulk_waits=bool(self._bulk))
            waiter = (self._urgent if is_urgents else self._bulk).popleft()
            waiter.granted.set_result(self._grant(waiter.want))
            self._forget_cancelled()

    def _least_wanted(self) -> int:
        return min(queue[0].want for queue in (self._urgent, self._bulk) if queue)

    def _is_worthwhile(self, want: int) -> bool:
        return self._free >= min(want, self._worthwhile)

    def _forget_cancelled(self) -> None:
        for queue in (self._urgent, self._bulk):
            while queue and queue[0].granted.done():
                queue.popleft()

    def _grant(self, want: int) -> int:
        granted = min(want, self._free)
        self._free -= granted
        return granted
