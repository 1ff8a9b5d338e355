"""The bound on a provider's open intents: what a kill can leave in doubt, and who is served first where it is short."""

import asyncio
import heapq
from itertools import count

# A commit of the journal is worth making for a quarter of the room.
WORTHWHILE_SHARE = 4


class Window:
    """The open intents that a provider still allows. Transactional batches are served before bulk ones."""

    def __init__(self, size: int) -> None:
        self._free = size
        self._worthwhile = max(1, size // WORTHWHILE_SHARE)
        self._waiters: list[tuple[bool, int, int, asyncio.Future[int]]] = []
        self._numbers = count()

    async def take(self, want: int, *, is_urgent: bool) -> int:
        """Wait for room; returns how much was taken, 1 to `want`."""
        if self._free >= min(want, self._worthwhile) and not self._waiters:
            return self._grant(want)
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (not is_urgent, next(self._numbers), want, future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.give(future.result())
            raise

    def give(self, room: int) -> None:
        """Room came back."""
        self._free += room
        while self._waiters:
            _, _, want, future = self._waiters[0]
            if not future.done() and self._free < min(want, self._worthwhile):
                return
            heapq.heappop(self._waiters)
            if not future.done():
                future.set_result(self._grant(want))

    def _grant(self, want: int) -> int:
        granted = min(want, self._free)
        self._free -= granted
        return granted
