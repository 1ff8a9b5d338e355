"""Jobs that become visible, or are sent again, behind the position from which a worker's scans resume."""

import pytest

from tests.integration.claims import claiming, finish, take, work_off
from tests.integration.rows import Connection, insert_job, insert_jobs
from tests.support import Database
from worker import claim
from worker.claim import BEGINNING, ClaimPositions


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def allow_full_scans(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    """Scans from the beginning: always, or never."""
    pause = 0.0 if allowed else 1e9
    monkeypatch.setattr(claim, "FULL_SCAN_EVERY_SECONDS", pause)
    monkeypatch.setattr(claim, "FULL_SCAN_SHARE", pause)


async def test_a_late_commit_close_behind_the_position_is_found_at_once(
    database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row due before 300 that were claimed since is found by the next resumed scan: no full scan is needed."""
    positions = ClaimPositions()
    insert_jobs(db, 1000, "before")
    async with claiming(database) as connection:
        assert len(await work_off(connection, positions)) == 1000
        allow_full_scans(monkeypatch, False)
        with database.connect() as slow:
            with slow.transaction():
                insert_job(slow, "late")
                insert_jobs(db, 300, "after")
                assert len(await work_off(connection, positions)) == 300
            assert await take(connection, 100, positions) == ["late"]


async def test_a_late_commit_far_behind_the_position_is_found_by_the_next_full_scan(
    database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row due before 1,000 that were claimed since is behind every resumed scan, and is found all the same."""
    positions = ClaimPositions()
    async with claiming(database) as connection:
        with database.connect() as slow:
            with slow.transaction():
                insert_job(slow, "late")
                insert_jobs(db, 1000, "after")
                assert len(await work_off(connection, positions)) == 1000
            allow_full_scans(monkeypatch, False)
            assert await take(connection, 100, positions) == []
            allow_full_scans(monkeypatch, True)
            assert await take(connection, 100, positions) == ["late"]


async def test_many_late_commits_do_not_trickle(
    database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one full scan finds moves the position back there: resumed scans find the rest, batch after batch."""
    positions = ClaimPositions()
    async with claiming(database) as connection:
        with database.connect() as slow:
            with slow.transaction():
                insert_jobs(slow, 400, "late")
                insert_jobs(db, 1000, "after")
                assert len(await work_off(connection, positions)) == 1000
            allow_full_scans(monkeypatch, True)
            first = await take(connection, 100, positions)
            await finish(connection, first)
            allow_full_scans(monkeypatch, False)
            rest = await work_off(connection, positions)
    assert first + rest == [f"late-{n}" for n in range(1, 401)]


async def test_each_priority_has_its_own_position(
    database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of claimed campaign mails do not hide a more urgent job that is due longer."""
    allow_full_scans(monkeypatch, False)
    positions = ClaimPositions()
    async with claiming(database) as connection:
        with database.connect() as slow:
            with slow.transaction():
                insert_job(slow, "urgent", priority="critical")
                insert_jobs(db, 1000, "after")
                assert len(await work_off(connection, positions)) == 1000
            assert await take(connection, 100, positions) == ["urgent"]


PAUSED = frozenset({"booking-reminder"})
PAUSED_JOBS = [f"paused-{number}" for number in range(20)]


@pytest.fixture
def behind_paused(db: Connection, monkeypatch: pytest.MonkeyPatch) -> ClaimPositions:
    """Paused jobs of the priority that others have, whose passing counts at once; no full scan but the first."""
    allow_full_scans(monkeypatch, False)
    monkeypatch.setattr(claim, "LATE_SECONDS", 0.0)
    for job_id in PAUSED_JOBS:
        insert_job(db, job_id, type="booking-reminder", priority="high")
    return ClaimPositions()


async def test_paused_jobs_are_passed_once_and_are_there_when_the_pause_ends(
    database: Database, db: Connection, behind_paused: ClaimPositions
) -> None:
    """Scans resume behind them, so that others are found without walking over them; no full scan finds them again."""
    positions = behind_paused
    async with claiming(database) as connection:
        assert await take(connection, 10, positions, paused=PAUSED) == []
        insert_job(db, "other")
        assert await take(connection, 10, positions, paused=PAUSED) == ["other"]
        await finish(connection, ["other"])
        begins = positions.parameters(full=False)["after_at"]
        assert BEGINNING[0] not in str(begins)
        assert await take(connection, 50, positions) == PAUSED_JOBS


async def test_a_job_among_paused_ones_is_claimed_without_a_look_that_finds_nothing(
    database: Database, db: Connection, behind_paused: ClaimPositions
) -> None:
    """As many come as are claimed: the scan moves on behind the paused ones all the same."""
    positions = behind_paused
    async with claiming(database) as connection:
        for number in range(3):
            insert_job(db, f"other-{number}")
            claimed = await take(connection, 10, positions, paused=PAUSED)
            assert claimed == [f"other-{number}"]
            assert BEGINNING[0] not in str(positions.parameters(full=False)["after_at"])
            await finish(connection, claimed)


async def test_what_another_worker_let_go_among_paused_jobs_is_found_by_the_next_full_scan(
    database: Database, db: Connection, behind_paused: ClaimPositions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was locked while a scan passed it."""
    positions = behind_paused
    insert_job(db, "held")
    async with claiming(database) as connection:
        with database.connect() as other, other.transaction(force_rollback=True):
            other.execute("SELECT FROM email_jobs WHERE job_id = 'held' FOR UPDATE")
            assert await take(connection, 10, positions, paused=PAUSED) == []
        allow_full_scans(monkeypatch, True)
        assert await take(connection, 10, positions, paused=PAUSED) == ["held"]


async def test_a_commit_that_is_late_among_paused_jobs_is_found_by_the_next_full_scan(
    database: Database, db: Connection, behind_paused: ClaimPositions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It became due before a look that found nothing, and is found all the same."""
    positions = behind_paused
    async with claiming(database) as connection:
        with database.connect() as slow:
            with slow.transaction():
                insert_job(slow, "late")
                assert await take(connection, 10, positions, paused=PAUSED) == []
            assert await take(connection, 10, positions, paused=PAUSED) == []
            allow_full_scans(monkeypatch, True)
            assert await take(connection, 10, positions, paused=PAUSED) == ["late"]
