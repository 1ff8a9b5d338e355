"""The order in which events are read: what the relay sees of `email_tracking`, whichever transactions overlap."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.rows import Connection, insert_job
from tests.support import Database
from worker.db import query


class Reader:
    """Reads events as the relay does, `page` at a time."""

    def __init__(self, db: Connection, page: int) -> None:
        self._db = db
        self._page = page
        self._place: tuple[Any, ...] = ("0", 0)
        self.seen: list[tuple[str, str]] = []

    def read(self) -> None:
        """Everything that may be read now."""
        while True:
            xid, seq = self._place
            rows = self._db.execute(query("next_events"), {"xid": xid, "seq": seq, "most": self._page}).fetchall()
            if not rows:
                return
            self.seen += [(row[4], row[3]) for row in rows]
            self._place = rows[-1][:2]

    def of(self, job_id: str) -> list[str]:
        """The events of one job, in the order in which they came."""
        return [event for job, event in self.seen if job == job_id]


@pytest.fixture
def sessions(database: Database) -> Iterator[list[Connection]]:
    """Four sessions."""
    opened = [database.connect() for _ in range(4)]
    yield opened
    for session in opened:
        session.close()


def end(db: Connection, job_id: str, status: str) -> None:
    """What a settle does, as far as events are concerned: under the job's row lock."""
    db.execute("SELECT FROM email_jobs WHERE job_id = %s FOR UPDATE", [job_id])
    db.execute("UPDATE email_jobs SET status = %s::email_status WHERE job_id = %s", [status, job_id])
    db.execute(
        "INSERT INTO email_tracking (job_id, event_type) SELECT id, %s::email_event FROM email_jobs WHERE job_id = %s",
        [status, job_id],
    )


@pytest.mark.parametrize("page", [1, 100])
@pytest.mark.parametrize("bystander", ["none", "older", "between", "younger"])
def test_an_old_transaction_that_requeues_comes_behind_what_it_requeues(
    sessions: list[Connection], page: int, bystander: str
) -> None:
    """Its number is older than that of the settle before it; the events come in the order of the commits."""
    db, old, worker, other = sessions
    insert_job(db)
    insert_job(db, "another")
    reader = Reader(db, page)

    def number(session: Connection) -> None:
        session.execute("BEGIN")
        session.execute("SELECT pg_current_xact_id()")

    if bystander == "older":
        number(other)
    number(old)
    if bystander == "between":
        number(other)
    with worker.transaction():
        end(worker, "j-1", "dead")
    if bystander == "younger":
        number(other)
    reader.read()
    old.execute("SELECT email_requeue('j-1')")
    reader.read()
    old.execute("COMMIT")
    reader.read()
    with worker.transaction():
        end(worker, "j-1", "sent")
    reader.read()
    if bystander != "none":
        end(other, "another", "dead")
        other.execute("COMMIT")
    reader.read()
    assert reader.of("j-1") == ["dead", "requeued", "sent"]
    assert reader.of("another") == ([] if bystander == "none" else ["dead"])


def test_what_commits_late_is_not_passed_over(sessions: list[Connection]) -> None:
    """Events that commit behind younger ones are read all the same, each once."""
    db, late, worker, _ = sessions
    for number in range(20):
        insert_job(db, f"job-{number}")
    reader = Reader(db, 3)
    late.execute("BEGIN")
    end(late, "job-0", "dead")
    for number in range(1, 20):
        with worker.transaction():
            end(worker, f"job-{number}", "dead")
        reader.read()
    assert reader.of("job-0") == []
    late.execute("COMMIT")
    reader.read()
    assert sorted(reader.seen) == sorted((f"job-{number}", "dead") for number in range(20))


def test_an_idle_database_keeps_nothing_back(sessions: list[Connection]) -> None:
    """The newest event is read at once, also when no transaction follows it."""
    db, worker, other, _ = sessions
    insert_job(db)
    reader = Reader(db, 100)
    other.execute("BEGIN")
    other.execute("SELECT pg_current_xact_id()")
    other.execute("COMMIT")
    with worker.transaction():
        end(worker, "j-1", "dead")
    reader.read()
    assert reader.of("j-1") == ["dead"]
