"""Workers by a scripted clock: who asks whom when, and what may have gone in any window of time."""

import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence

from worker.buckets import Ask, Grant, Kind, Limit

# Asks at a moment of the scripted clock.
AskAt = Callable[[Sequence[Ask], float], Awaitable[list[Grant]]]

# What microseconds kept in a text can be wrong by, and a clock's float.
ROUNDING = 1e-4


def assert_within(moments: Iterable[float], limit: Limit, late: float = 0.0) -> None:
    """In any window of T seconds at most T / interval + burst: the worst window, found in one pass.

    `late` is by how many seconds some may have been seen later than others after they were let go.
    """
    worst = float("-inf")
    for number, moment in enumerate(sorted(moments)):
        ahead = moment / limit.interval - number
        worst = max(worst, ahead)
        assert ahead >= worst + 1 - limit.burst - late / limit.interval - ROUNDING, (number, moment)


async def drain(ask: AskAt, limit: Limit, workers: int, batch: int, begins: float, seconds: float) -> list[float]:
    """Workers that take all they get, before each claim, and come again when they are told; returns when mails went."""
    went: list[float] = []
    calendar = [(begins + number * 0.001, number) for number in range(workers)]
    while calendar[0][0] < begins + seconds:
        now, number = heapq.heappop(calendar)
        grant = (await ask([Ask(Kind.TAKE, [limit], batch)], now))[0]
        went += [now] * grant.tokens
        # A batch takes its time; a worker that waits sleeps a little longer than it was told.
        heapq.heappush(calendar, (now + (0.004 if grant.tokens else grant.wait_seconds + 0.0005), number))
    return went
