"""The bound on open intents: never exceeded, never lost, transactional mail first and bulk mail never last for good."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.window import BULK_TURN, WORTHWHILE_SHARE, Turns, Window


async def settle_tasks() -> None:
    """Let everything that can run on the loop run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


class Office:
    """A window with takers, whose grants are noted in their order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.window = Window(size)
        self.granted: list[tuple[str, int]] = []
        self.out = 0

    async def take(self, name: str, want: int, *, is_urgent: bool) -> None:
        """Take room and keep it."""
        got = await self.window.take(want, is_urgent=is_urgent)
        assert 1 <= got <= want
        self.out += got
        assert self.out <= self.size
        self.granted.append((name, got))

    async def queue(self, name: str, want: int, *, is_urgent: bool) -> asyncio.Task[None]:
        """A taker that has come so far that it waits, if it must."""
        task = asyncio.create_task(self.take(name, want, is_urgent=is_urgent))
        await settle_tasks()
        return task

    async def give(self, room: int) -> None:
        """Give room back, and let whoever gets it note that."""
        self.out -= room
        self.window.give(room)
        await settle_tasks()


async def test_room_is_granted_as_far_as_it_goes() -> None:
    """One gets what one wants or what there is, at once while nobody waits."""
    window = Window(10)
    assert await window.take(4, is_urgent=False) == 4
    assert await window.take(99, is_urgent=True) == 6


async def test_a_full_window_waits_for_a_worthwhile_room() -> None:
    """A taker waits until a quarter is free, or all that it wants: a commit for less is not worth its price."""
    office = Office(12)
    await office.take("all", 12, is_urgent=True)
    task = await office.queue("much", 12, is_urgent=True)
    for _ in range(12 // WORTHWHILE_SHARE - 1):
        await office.give(1)
        assert not task.done()
    await office.give(1)
    assert office.granted[1:] == [("much", 3)]
    small = await office.queue("little", 1, is_urgent=True)
    assert not small.done()
    await office.give(1)
    assert office.granted[2:] == [("little", 1)]


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_the_smallest_windows_work(size: int) -> None:
    """A quarter of next to nothing is still one."""
    office = Office(size)
    await office.take("all", size, is_urgent=True)
    task = await office.queue("next", 5, is_urgent=False)
    await office.give(1)
    assert task.done()
    assert office.out == size


async def test_urgent_ones_are_first() -> None:
    """Who comes later overtakes bulk when urgent, but nobody of its own kind."""
    office = Office(1)
    await office.take("holder", 1, is_urgent=False)
    for name, is_urgent in (("b1", False), ("b2", False), ("u1", True), ("u2", True)):
        await office.queue(name, 1, is_urgent=is_urgent)
    for _ in range(4):
        await office.give(1)
    assert [name for name, _ in office.granted[1:]] == ["u1", "u2", "b1", "b2"]


async def test_bulk_gets_every_fourth_turn() -> None:
    """While both wait, three urgent ones go for each of bulk; alone, each kind goes on by itself."""
    office = Office(1)
    await office.take("holder", 1, is_urgent=False)
    for number in range(12):
        await office.queue(f"u{number}", 1, is_urgent=True)
    for number in range(6):
        await office.queue(f"b{number}", 1, is_urgent=False)
    for _ in range(18):
        await office.give(1)
    kinds = "".join(name[0] for name, _ in office.granted[1:])
    assert kinds == "uuub" * 4 + "bb"


async def test_nobody_overtakes_those_who_wait() -> None:
    """Room that is too little for the first in the queue is not given to a newcomer of its kind."""
    office = Office(8)
    await office.take("all", 8, is_urgent=True)
    first = await office.queue("first", 8, is_urgent=True)
    await office.give(1)
    second = await office.queue("second", 1, is_urgent=True)
    assert not first.done()
    assert not second.done()
    await office.give(1)
    assert [name for name, _ in office.granted[1:]] == ["first"]


async def test_a_cancelled_waiter_is_forgotten() -> None:
    """Who gives up waiting takes no room, and does not stop those behind."""
    office = Office(1)
    await office.take("holder", 1, is_urgent=True)
    leaves = [await office.queue("u", 1, is_urgent=True), await office.queue("b", 1, is_urgent=False)]
    stays = await office.queue("last", 1, is_urgent=False)
    for task in leaves:
        task.cancel()
    await settle_tasks()
    await office.give(1)
    assert stays.done()
    assert [name for name, _ in office.granted] == ["holder", "last"]


async def test_room_granted_to_a_cancelled_taker_comes_back() -> None:
    """Cancelled between the grant and its notice, the room goes to the next, or is free again."""
    window = Window(2)
    assert await window.take(2, is_urgent=True) == 2
    first = asyncio.create_task(window.take(2, is_urgent=True))
    second = asyncio.create_task(window.take(2, is_urgent=False))
    await settle_tasks()
    window.give(2)
    first.cancel()
    await settle_tasks()
    assert first.cancelled()
    assert second.result() == 2
    window.give(2)
    assert await window.take(2, is_urgent=False) == 2


_moves = st.lists(
    st.tuples(st.sampled_from(["take", "give", "cancel"]), st.integers(1, 20), st.booleans()), min_size=1, max_size=60
)


@given(size=st.integers(1, 20), moves=_moves)
def test_the_bound_holds_and_no_room_is_lost(size: int, moves: list[tuple[str, int, bool]]) -> None:
    """In any order of taking, giving and cancelling: never more out than the window has, and in the end all is back."""

    async def play() -> None:
        office, waiting = Office(size), list[asyncio.Task[None]]()
        for what, number, is_urgent in moves:
            if what == "take":
                waiting.append(asyncio.create_task(office.take("x", number, is_urgent=is_urgent)))
            elif what == "give" and office.out:
                # Without a turn of the loop: a cancel may meet a grant that nobody has seen yet.
                room = min(number, office.out)
                office.out -= room
                office.window.give(room)
            elif what == "cancel" and waiting:
                waiting[number % len(waiting)].cancel()
            if number % 3:
                await settle_tasks()
        while any(not task.done() for task in waiting):
            await settle_tasks()
            await office.give(office.out)
        await asyncio.gather(*waiting, return_exceptions=True)
        await office.give(office.out)
        assert await office.window.take(size, is_urgent=False) == size

    asyncio.run(play())


@given(waits=st.lists(st.tuples(st.booleans(), st.booleans()).filter(any), max_size=60))
def test_a_turn_goes_to_somebody_who_waits(waits: list[tuple[bool, bool]]) -> None:
    """Whoever waits alone gets the turn, and bulk never waits longer than three turns beside urgent ones."""
    turns, passed_over = Turns(), 0
    for urgent_waits, bulk_waits in waits:
        is_urgents = turns.is_urgents(urgent_waits=urgent_waits, bulk_waits=bulk_waits)
        assert urgent_waits if is_urgents else bulk_waits
        passed_over = passed_over + 1 if is_urgents and bulk_waits else 0
        assert passed_over < BULK_TURN


def test_turns_of_a_long_flood_are_shared_three_to_one() -> None:
    """While both wait, one turn in four is bulk's."""
    turns = Turns()
    counts = Counter(turns.is_urgents(urgent_waits=True, bulk_waits=True) for _ in range(400))
    assert counts == {True: 300, False: 100}
