"""The slots of a process: bulk never holds the last one, transactional never all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.job import Queue
from worker.slots import Slots

_steps = st.lists(st.tuples(st.sampled_from(Queue), st.booleans()), max_size=80)


@given(size=st.integers(2, 12), steps=_steps)
def test_no_queue_ever_holds_all_slots(size: int, steps: list[tuple[Queue, bool]]) -> None:
    """In any order of taking and giving, neither queue holds all, both together hold no more than there are."""
    slots, held = Slots(size), dict.fromkeys(Queue, 0)
    for queue, wants in steps:
        if wants:
            room = slots.has_room(queue)
            assert room is (sum(held.values()) < size and held[queue] < size - 1)
            assert slots.take(queue) is room
            held[queue] += room
        elif held[queue]:
            slots.give(queue)
            held[queue] -= 1
        assert {each: slots.held(each) for each in Queue} == held
        assert max(held.values()) < size
        assert sum(held.values()) <= size


@pytest.mark.parametrize("greedy", Queue)
@given(size=st.integers(2, 100))
def test_a_greedy_queue_leaves_one_slot_to_the_other(greedy: Queue, size: int) -> None:
    """After a flood of one queue the other finds a slot at once, and the flood gets none more."""
    other = next(queue for queue in Queue if queue is not greedy)
    slots = Slots(size)
    assert [slots.take(greedy) for _ in range(size + 2)] == [True] * (size - 1) + [False] * 3
    assert slots.take(other) is True
    assert slots.take(other) is False
    slots.give(greedy)
    assert slots.has_room(other) is (size > 2)
    assert slots.has_room(greedy) is True


def test_asking_for_room_takes_none() -> None:
    """`has_room` only looks."""
    slots = Slots(2)
    assert all(slots.has_room(queue) for queue in Queue for _ in range(3))
    assert slots.held(Queue.BULK) == slots.held(Queue.TRANSACTIONAL) == 0
