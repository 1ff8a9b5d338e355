"""The books: every accepted job in exactly one status, and events that agree with it."""

from uuid import UUID

import pytest

from tests.integration.office import Office
from tests.integration.rows import Connection, column, end_job, insert_job, insert_jobs, rows, value
from tests.support import Database

ENDS = ["sent", "dead", "cancelled", "suppressed", "expired", "in_doubt"]
COLUMNS = "accepted, pending, sent, dead, cancelled, suppressed, expired, in_doubt"
DIFFERENCE = "SELECT job_id, status, by_events FROM email_books_difference()"


@pytest.fixture
def database(jobs_database: Database) -> Database:
    """These tests touch jobs only."""
    return jobs_database


def test_the_books_count_each_job_in_one_status(db: Connection) -> None:
    """Per campaign: what was accepted is the sum of what it became."""
    campaign = UUID(int=5)
    for end in ENDS:
        insert_job(db, end)
        end_job(db, end, end)
    insert_job(db, "pending")
    insert_job(db, "campaign-1", campaign_id=campaign)
    insert_job(db, "campaign-2", campaign_id=campaign)
    end_job(db, "sent", "campaign-2")
    books = rows(db, f"SELECT campaign_id, {COLUMNS} FROM email_books")
    assert books == [(campaign, 2, 1, 1, 0, 0, 0, 0, 0), (None, 7, 1, 1, 1, 1, 1, 1, 1)]


def test_the_books_are_kept_by_day_of_utc(db: Connection) -> None:
    """Newest day first; the day is that of UTC, whatever the reader's time zone is."""
    insert_jobs(db, 3)
    db.execute("UPDATE email_jobs SET created_at = '2026-03-01 23:59:59Z' WHERE job_id = 'j-1'")
    db.execute("UPDATE email_jobs SET created_at = '2026-03-02 00:00:01Z' WHERE job_id <> 'j-1'")
    db.execute("SET TimeZone = 'Pacific/Auckland'")
    assert rows(db, "SELECT day::text, accepted FROM email_books") == [("2026-03-02", 2), ("2026-03-01", 1)]


def test_the_books_agree_after_everything_that_may_happen(office: Office) -> None:
    """Sent, retried, dead, expired, cancelled, requeued by one and by all: no difference at any time."""
    office.deliver("sent")
    office.deliver("retried", recipient_email="busy-1@example.com")
    office.refuse("refused", recipient_email="refused-1@example.com")
    office.refuse("broken", template="nope")
    office.enqueue("expired", expires_at="2024-01-01 00:00Z")
    assert office.end_of("expired") == "expired"
    office.enqueue("waiting", scheduled_at="2099-01-01 00:00Z")
    office.enqueue("cancelled", scheduled_at="2099-01-01 00:00Z")
    assert value(office.db, "SELECT email_cancel('cancelled')") == "cancelled"
    assert rows(office.db, DIFFERENCE) == []

    for again in ("sent", "expired", "cancelled"):
        value(office.db, "SELECT email_requeue(%s)", again)
    assert value(office.db, "SELECT email_requeue_dead()") == 2
    assert rows(office.db, DIFFERENCE) == []
    for again, end in [("sent", "sent"), ("expired", "sent"), ("cancelled", "sent"), ("broken", "dead")]:
        assert office.end_of(again) == end
    assert office.end_of("refused") == "dead"
    assert rows(office.db, DIFFERENCE) == []
    assert rows(office.db, f"SELECT {COLUMNS} FROM email_books") == [(7, 1, 4, 2, 0, 0, 0, 0)]


@pytest.mark.parametrize("status", ENDS)
def test_a_status_changed_by_hand_shows(db: Connection, status: str) -> None:
    """Whoever writes past the rules, without an event, is in the difference, with what the events say."""
    insert_jobs(db, 3)
    db.execute("UPDATE email_jobs SET status = %s WHERE job_id = 'j-2'", (status,))
    assert rows(db, DIFFERENCE) == [("j-2", status, "pending")]


def test_a_job_made_pending_by_hand_shows(db: Connection) -> None:
    """Instead of email_requeue(): the events still say sent."""
    insert_job(db)
    end_job(db, "sent")
    assert rows(db, DIFFERENCE) == []
    db.execute("UPDATE email_jobs SET status = 'pending'")
    assert rows(db, DIFFERENCE) == [("j-1", "pending", "sent")]


def test_what_became_of_a_sent_mail_is_no_change_of_status(db: Connection) -> None:
    """Deliveries, bounces and clicks come later, and the job stays sent."""
    insert_job(db)
    end_job(db, "sent")
    for event in ("delivered", "opened", "clicked", "bounced", "complained", "unsubscribed", "deferred"):
        db.execute("INSERT INTO email_tracking (job_id, event_type) SELECT id, %s FROM email_jobs", (event,))
    assert rows(db, DIFFERENCE) == []


def test_a_transaction_that_began_first_and_ended_last_is_no_difference(db: Connection, database: Database) -> None:
    """The latest event is the one written last, though its transaction has the older number."""
    insert_job(db)
    with database.connect() as operator, operator.transaction():
        value(operator, "SELECT pg_current_xact_id()::text")
        end_job(db, "dead")
        value(operator, "SELECT email_requeue('j-1')")
    assert column(db, "SELECT event_type FROM email_tracking ORDER BY seq") == ["dead", "requeued"]
    assert rows(db, DIFFERENCE) == []


def test_the_difference_looks_as_far_back_as_it_is_asked_to(db: Connection) -> None:
    """Two days unless said otherwise."""
    insert_job(db)
    db.execute("UPDATE email_jobs SET status = 'sent', created_at = now() - interval '3 days'")
    assert rows(db, DIFFERENCE) == []
    assert column(db, "SELECT job_id FROM email_books_difference('4 days')") == ["j-1"]
