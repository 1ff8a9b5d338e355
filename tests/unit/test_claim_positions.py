"""Where the claim's scans resume: behind what was claimed, at what was found late, and now and then at the start."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.values import make_job
from worker import claim
from worker.claim import BEGINNING, FULL_SCAN_EVERY_SECONDS, FULL_SCAN_SHARE, TRAIL_ROWS, ClaimPositions, Scan
from worker.job import Job, Priority

START = datetime(2026, 6, 20, 12, tzinfo=UTC)


class Position(NamedTuple):
    """A place in a priority's order."""

    at: datetime
    seq: int


def place(number: int) -> Position:
    """The position of the job of this number: a second after the one before."""
    return Position(START + timedelta(seconds=number), number)


def jobs(numbers: range, priority: Priority = Priority.NORMAL) -> list[Job]:
    """The jobs of these numbers, as a claim returns them."""
    return [job(n, priority) for n in numbers]


@cache
def job(number: int, priority: Priority) -> Job:
    """The job of this number."""
    return make_job(seq=number, next_attempt_at=place(number).at, priority=str(priority))


def resumes(positions: ClaimPositions, priority: Priority = Priority.NORMAL, *, full: bool = False) -> Position | None:
    """Where the priority's next scan begins; None for the beginning."""
    parameters = positions.parameters(full=full)
    names, ats, seqs = (str(parameters[key])[1:-1].split(",") for key in ("priorities", "after_at", "after_seq"))
    assert [name.strip('"') for name in names] == list(Priority)
    found = list(Priority).index(priority)
    at, seq = ats[found].strip('"'), int(seqs[found])
    return None if (at, seq) == BEGINNING else Position(datetime.fromisoformat(at), seq)


def claim_all(positions: ClaimPositions, found: list[Job], paused: frozenset[str] = frozenset()) -> Scan:
    """A scan from its beginning to its end."""
    return positions.claimed(found, positions.begin_without(paused))


def test_scans_start_at_the_beginning() -> None:
    """A new process knows no position, and few claimed rows give none yet."""
    positions = ClaimPositions()
    assert resumes(positions) is None
    claim_all(positions, jobs(range(TRAIL_ROWS)))
    assert resumes(positions) is None


@pytest.mark.parametrize("batch", [1, 7, 50, 499, 500, 501, 1000])
def test_scans_resume_500_rows_behind(batch: int) -> None:
    """The next scan begins at least 500 claimed rows behind the newest, and at most one batch more than that."""
    positions = ClaimPositions()
    for start in range(0, 5000, batch):
        claim_all(positions, jobs(range(start, start + batch)))
        newest, resume = start + batch - 1, resumes(positions)
        behind = newest - (-1 if resume is None else resume.seq)
        assert behind >= min(TRAIL_ROWS, newest + 1)
        assert behind < TRAIL_ROWS + batch


@given(sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=40))
def test_scans_resume_at_the_end_of_a_batch(sizes: list[int]) -> None:
    """Whatever the sizes of batches: the position is the newest end of a batch that has 500 rows after it."""
    positions, ends, newest = ClaimPositions(), [-1], -1
    for size in sizes:
        claim_all(positions, jobs(range(newest + 1, newest + 1 + size)))
        newest += size
        ends.append(newest)
        expected = max(end for end in ends if newest - end >= TRAIL_ROWS or end == -1)
        assert resumes(positions) == (None if expected == -1 else place(expected))


def test_a_row_found_behind_moves_the_position_back() -> None:
    """A late commit's first row is where its neighbours are: the next scan begins right before it."""
    positions = ClaimPositions()
    claim_all(positions, jobs(range(2000)))
    claim_all(positions, jobs(range(2000, 2600)))
    assert resumes(positions) == place(1999)
    claim_all(positions, jobs(range(100, 150)))
    assert resumes(positions) == Position(place(100).at, 99)
    claim_all(positions, jobs(range(150, 200)))
    assert resumes(positions) == Position(place(100).at, 99)
    claim_all(positions, jobs(range(200, 700)))
    assert resumes(positions) == place(199)


def test_a_row_at_the_position_itself_moves_it_back() -> None:
    """A job that became due again with its old position would otherwise be passed by for ever."""
    positions = ClaimPositions()
    claim_all(positions, jobs(range(1000)))
    claim_all(positions, jobs(range(1000, 1500)))
    assert resumes(positions) == place(999)
    claim_all(positions, jobs(range(999, 1000)))
    found = resumes(positions)
    assert found is not None
    assert found < place(999)


@given(claims=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), max_size=20))
@settings(max_examples=60)
@example([(0, 1000), (1000, 600), (1000, 250), (1250, 250)])
def test_no_scan_resumes_beyond_what_was_just_claimed(claims: list[tuple[int, int]]) -> None:
    """Wherever a claim finds rows, a flood committed late beside them is found by the next scan, not a full one."""
    positions = ClaimPositions()
    for start, size in claims:
        claim_all(positions, jobs(range(start, start + size)))
        resume = resumes(positions)
        assert resume is None or resume <= place(start + size - 1)
        claim_all(positions, [])
        assert resumes(positions) == resume


def test_priorities_have_positions_of_their_own() -> None:
    """A flood of low ones does not move the scan for critical ones, even in the same claim."""
    positions = ClaimPositions()
    claim_all(positions, [*jobs(range(3), Priority.CRITICAL), *jobs(range(10, 900), Priority.LOW)])
    claim_all(positions, jobs(range(900, 1500), Priority.LOW))
    assert resumes(positions, Priority.LOW) == place(899)
    assert [resumes(positions, priority) for priority in list(Priority)[:3]] == [None] * 3


PAUSED = frozenset({"newsletter"})


def test_what_a_scan_has_passed_among_paused_jobs_need_not_be_passed_again() -> None:
    """Every priority's next scan begins where that one ended, and never before where it began already."""
    positions = ClaimPositions()
    claim_all(positions, jobs(range(1000)), PAUSED)
    scan = claim_all(positions, jobs(range(1000, 1500)), PAUSED)
    positions.passed(place(500).at, scan)
    assert resumes(positions) == place(999)
    assert resumes(positions, Priority.LOW) == Position(place(500).at, 0)
    positions.passed(place(2000).at, scan)
    assert resumes(positions) == Position(place(2000).at, 0)
    scan = claim_all(positions, jobs(range(700, 701)), PAUSED)
    assert resumes(positions) == Position(place(700).at, 699)
    positions.passed(place(3000).at, scan)
    assert resumes(positions) == Position(place(3000).at, 0)


def test_the_end_of_a_pause_shows_what_was_passed() -> None:
    """Scans begin at the beginning then; one for the old types, that ends after that, moves nothing any more."""
    positions = ClaimPositions()
    scan = positions.begin_without(PAUSED)
    positions.passed(place(500).at, scan)
    assert positions.begin_without(PAUSED) == scan
    assert resumes(positions) == Position(place(500).at, 0)
    positions.begin_without(frozenset())
    assert resumes(positions) is None
    positions.passed(place(600).at, scan)
    positions.claimed(jobs(range(5000)), scan)
    positions.claimed(jobs(range(5000, 6000)), scan)
    assert resumes(positions) is None


def test_a_scan_does_not_pass_what_another_has_found_behind_it() -> None:
    """Of many late rows a full scan claims fifty, while a resumed one beside it finds nothing: the rest is near."""
    positions = ClaimPositions()
    positions.passed(place(1000).at, positions.begin_without(PAUSED))
    resumed = positions.begin_without(PAUSED)
    claim_all(positions, jobs(range(100, 150)), PAUSED)
    positions.passed(place(2000).at, resumed)
    assert resumes(positions) == Position(place(100).at, 99)


def test_a_full_scan_begins_at_the_beginning() -> None:
    """It ignores the position and leaves it where it is."""
    positions = ClaimPositions()
    claim_all(positions, jobs(range(1000)))
    claim_all(positions, jobs(range(1000, 1500)))
    assert resumes(positions, full=True) is None
    assert resumes(positions) == place(999)


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the positions see."""
    found = Clock()
    monkeypatch.setattr(claim, "time", found)
    return found


def scan(positions: ClaimPositions, clock: Clock, seconds: float) -> None:
    """A full scan that takes so long."""
    began = positions.full_scan_begins()
    clock.now += seconds
    positions.full_scan_ended(began)


def due(positions: ClaimPositions) -> tuple[bool, bool]:
    """Whether a full scan is due, and whether it is after a scan that found nothing."""
    return positions.full_scan_is_due(found_nothing=False), positions.full_scan_is_due(found_nothing=True)


def test_the_first_scan_is_full(clock: Clock) -> None:
    """A new process looks at everything, once: the other slots of the process do not do it too."""
    positions = ClaimPositions()
    assert due(positions) == (True, True)
    positions.full_scan_begins()
    assert positions.full_scan_is_due(found_nothing=False) is False
    clock.now += FULL_SCAN_EVERY_SECONDS
    assert due(positions) == (True, True)


@pytest.mark.parametrize("duration", [0.001, 0.09, 0.2, 3.0])
def test_full_scans_take_a_twentieth_of_the_time(clock: Clock, duration: float) -> None:
    """One is due every 2 s; a slow one lets 20 times its duration pass, even when nothing else was found."""
    positions = ClaimPositions()
    scan(positions, clock, duration)
    began = clock.now - duration

    def due_after(seconds: float) -> tuple[bool, bool]:
        clock.now = began + seconds
        return due(positions)

    pause = FULL_SCAN_SHARE * duration
    check: Callable[[float], tuple[bool, bool]] = due_after
    assert check(pause * 0.99) == (False, False)
    assert check(max(pause, FULL_SCAN_EVERY_SECONDS) * 0.999) == (False, pause < FULL_SCAN_EVERY_SECONDS)
    assert check(pause * 1.01)[1] is True
    assert check(max(pause, FULL_SCAN_EVERY_SECONDS) * 1.01) == (True, True)


def test_a_fast_scan_makes_the_next_ones_frequent_again(clock: Clock) -> None:
    """Only the last duration counts: the old snapshot that made one slow is gone."""
    positions = ClaimPositions()
    scan(positions, clock, 5.0)
    clock.now += 200
    scan(positions, clock, 0.001)
    clock.now += FULL_SCAN_EVERY_SECONDS
    assert due(positions) == (True, True)
