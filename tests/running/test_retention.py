"""Purging: what goes, what stays, that the books still balance, and that a purged job never comes again."""

import threading
from pathlib import Path

import pytest

from lab.sink_process import Sink
from tests.integration.command import Command
from tests.integration.rows import Connection, column, insert_job, insert_jobs, row, rows, value
from tests.support import Database, eventually, running_worker

BOOKS = (
    "SELECT sum(accepted)::int, sum(sent)::int, sum(dead)::int, sum(pending)::int, sum(in_doubt)::int FROM email_books"
)
EVENTS_OF_NOBODY = "SELECT count(*) FROM email_tracking AS t WHERE t.job_id NOT IN (SELECT id FROM email_jobs)"
PUBLISH_SOME = (
    "UPDATE email_relay SET (xid, seq) = (SELECT xid, seq FROM email_tracking ORDER BY xid, seq LIMIT 1 OFFSET 4)"
)
PUBLISH_ALL = (
    "UPDATE email_relay SET (xid, seq) = (SELECT xid, seq FROM email_tracking ORDER BY xid DESC, seq DESC LIMIT 1)"
)
MESSAGE = '{"id": "j-2", "type": "email", "template": "newsletter", "recipient": {"email": "a@example.com"}}\n'


def make_old(db: Connection, where: str = "true", days: int = 100) -> None:
    """As if it had all happened long ago."""
    db.execute("ALTER TABLE email_jobs DISABLE TRIGGER USER")
    db.execute(
        f"UPDATE email_jobs SET created_at = now() - make_interval(days => {days}),"
        f" updated_at = now() - make_interval(days => {days}) WHERE {where}"
    )
    db.execute("ALTER TABLE email_jobs ENABLE TRIGGER USER")


def finish(db: Connection, where: str, status: str) -> None:
    """Give jobs an end, with its event."""
    db.execute(f"UPDATE email_jobs SET status = '{status}' WHERE {where}")
    db.execute(f"INSERT INTO email_tracking (job_id, event_type) SELECT id, '{status}' FROM email_jobs WHERE {where}")


@pytest.fixture
def old_jobs(db: Connection) -> Connection:
    """Twelve old jobs: ten with an end, one pending, one in doubt; and a young one that is sent."""
    insert_jobs(db, 12)
    finish(db, "seq <= 8", "sent")
    finish(db, "seq IN (9, 10)", "dead")
    finish(db, "seq = 11", "in_doubt")
    make_old(db)
    insert_job(db, "young")
    finish(db, "job_id = 'young'", "sent")
    return db


def test_what_is_old_and_has_ended_goes_and_the_books_balance(old_jobs: Connection) -> None:
    """With attempts and events; what is pending or in doubt stays, however old."""
    before = row(old_jobs, BOOKS)
    assert value(old_jobs, "SELECT email_purge(90)") == 10
    assert value(old_jobs, "SELECT email_purge(90)") == 0
    assert row(old_jobs, BOOKS) == before == (13, 9, 2, 1, 1)
    assert set(column(old_jobs, "SELECT job_id FROM email_jobs")) == {"j-11", "j-12", "young"}
    assert (
        value(old_jobs, "SELECT count(*) FROM email_tracking AS t WHERE t.job_id NOT IN (SELECT id FROM email_jobs)")
        == 0
    )
    assert rows(old_jobs, "SELECT * FROM email_books_difference('1000 days')") == []


def test_a_purged_job_that_arrives_again_is_no_new_one(
    old_jobs: Connection, database: Database, command: Command
) -> None:
    """By SQL and by a file, as long as its key is kept; afterwards it is new."""
    old_jobs.execute("SELECT email_purge(90)")
    insert_job(old_jobs, "j-1")
    assert value(old_jobs, "SELECT count(*) FROM email_jobs WHERE job_id = 'j-1'") == 0
    Path("again.ndjson").write_text(MESSAGE)
    ended = command("enqueue", "again.ndjson", **database.environment())
    assert (ended.status, ended.out.strip()) == (0, "0 accepted, 1 duplicate, 0 rejected")
    assert value(old_jobs, "SELECT email_purge_keys(30)") == 0
    old_jobs.execute("UPDATE email_job_keys SET purged_at = now() - interval '31 days'")
    assert value(old_jobs, "SELECT email_purge_keys(30)") == 10
    insert_job(old_jobs, "j-1")
    assert value(old_jobs, "SELECT status FROM email_jobs WHERE job_id = 'j-1'") == "pending"


def test_types_have_days_of_their_own(db: Connection) -> None:
    """Fewer, more, and none at all."""
    for number, kind in enumerate(("newsletter", "booking-confirmation", "security-alert")):
        insert_job(db, f"job-{number}", type=kind, template=kind)
    finish(db, "true", "sent")
    make_old(db, days=50)
    db.execute("UPDATE email_types SET retention_days = 10 WHERE type = 'newsletter'")
    db.execute("UPDATE email_types SET retention_days = 0 WHERE type = 'security-alert'")
    assert value(db, "SELECT email_purge(0)") == 1
    assert value(db, "SELECT email_purge(40)") == 1
    assert column(db, "SELECT type FROM email_jobs") == ["security-alert"]


def test_what_kafka_does_not_know_yet_stays(old_jobs: Connection) -> None:
    """With a relay, until it has published the last event of a job."""
    assert value(old_jobs, "SELECT email_purge(90, 1000, true)") == 0
    old_jobs.execute(PUBLISH_SOME)
    gone = value(old_jobs, "SELECT email_purge(90, 1000, true)")
    assert 0 < gone < 10
    old_jobs.execute(PUBLISH_ALL)
    assert value(old_jobs, "SELECT email_purge(90, 1000, true)") == 10 - gone


def test_the_command_purges_batch_after_batch(old_jobs: Connection, database: Database, command: Command) -> None:
    """And says what it removed, rejects and keys too."""
    old_jobs.execute(
        "INSERT INTO email_rejects (source, position, raw, error, received_at)"
        " VALUES ('file', 'x/1', 'nonsense', 'no JSON', now() - interval '100 days')"
    )
    old_jobs.execute("INSERT INTO email_job_keys (key, purged_at) VALUES ('x', now() - interval '31 days')")
    ended = command("purge", **database.environment(RETENTION_DAYS=90))
    assert (ended.status, ended.out) == (0, "10 jobs, 1 rejects, 1 keys\n")
    ended = command("purge", **database.environment(RETENTION_DAYS=90))
    assert (ended.status, ended.out) == (0, "nothing is old enough\n")
    assert "RETENTION_DAYS is 0" in command("purge", **database.environment()).out


def test_purging_disturbs_no_claim(database: Database, db: Connection, tmp_path: Path) -> None:
    """Ten thousand old jobs go while new ones are sent: each once, none lost."""
    insert_jobs(db, 10_000, prefix="old")
    finish(db, "true", "sent")
    make_old(db)
    with Sink(ledger=tmp_path / "ledger") as sink, running_worker(database.environment(SMTP_PORT=sink.port)):
        for turn in range(10):
            insert_jobs(db, 50, prefix=f"new-{turn}")
            while value(db, "SELECT email_purge(90, 500)") and turn == 9:
                pass
        eventually(lambda: rows(db, "SELECT 1 FROM email_jobs WHERE status = 'pending'") == [], "all are sent")
        mails = [entry.job_id for entry in sink.ledger()]
    assert (len(mails), len(set(mails))) == (500, 500)
    assert value(db, "SELECT count(*) FROM email_jobs WHERE job_id LIKE 'old%%'") == 0


def test_a_job_that_comes_while_it_is_purged_is_no_new_one(old_jobs: Connection, database: Database) -> None:
    """The insert waits for the purge, and could not see its key before."""
    with database.connect() as purging, database.connect() as inserting:
        purging.autocommit = False
        purging.execute("SELECT email_purge(90)")
        late = threading.Thread(target=insert_job, args=(inserting, "j-1"))
        late.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO%%'"
        eventually(lambda: value(old_jobs, waits), "the insert waits")
        purging.commit()
        late.join()
    assert rows(old_jobs, "SELECT 1 FROM email_jobs WHERE job_id = 'j-1'") == []


def test_jobs_of_a_type_that_is_gone_are_purged_too(old_jobs: Connection) -> None:
    """By the setting alone."""
    old_jobs.execute("DELETE FROM email_types WHERE type = 'booking-confirmation'")
    assert value(old_jobs, "SELECT email_purge(90)") == 10
