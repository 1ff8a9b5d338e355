"""What the dashboards ask Postgres, asked as the role email_reader; and what that role is refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from lab.dashboard_questions import as_asked_of_postgres
from tests.deploy.conftest import READER
from tests.deploy.questions import Question, sql
from tests.integration.rows import end_job, insert_job, journal, value
from tests.support import Database
from worker.migrate import migrate

Connection = psycopg.Connection[tuple[Any, ...]]
CAMPAIGN = "6f1c2d5e-0000-4000-8000-000000000001"
ANSWER = "550 5.1.1 <ann@example.com>: no such user ann@example.com (ann=40example.com), queue id 4F2A1B9C7D3E"


def ask(reader: Connection, question: Question) -> list[dict[str, Any]]:
    """The rows of a statement for the last day, as Grafana would ask for them."""
    now = datetime.now(UTC)
    since, until = ((now + timedelta(hours=hours)).isoformat() for hours in (-24, 1))
    cursor = reader.execute(as_asked_of_postgres(question.text, since, until).encode())
    names = [column.name for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def answers(reader: Connection, title: str) -> list[dict[str, Any]]:
    """The rows of the panel of that title."""
    (question,) = (question for question in sql() if question.place == f"business: {title} A")
    return ask(reader, question)


@pytest.fixture
def mails(db: Connection) -> None:
    """One campaign, and one mail of each fate."""
    for n in (1, 2, 3):
        insert_job(db, f"news-{n}", type="newsletter", template="newsletter", campaign_id=CAMPAIGN)
    for name in ("sent", "dead", "suppressed", "doubtful"):
        insert_job(db, name)
    for name in ("news-1", "news-2", "sent"):
        journal(db, "accepted", job_id=name)
        end_job(db, "sent", name, provider="smtp")
    end_job(db, "dead", "dead", provider="smtp", error_message=ANSWER)
    end_job(db, "suppressed", "suppressed")
    end_job(db, "in_doubt", "doubtful")
    db.execute("UPDATE email_jobs SET created_at = now() - interval '90 s', sent_at = now() WHERE status = 'sent'")
    db.execute("UPDATE email_attempts SET finished_at = started_at + interval '2 s'")
    for event in ("delivered", "bounced", "complained"):
        db.execute(
            "INSERT INTO email_tracking (job_id, event_type, provider)"
            " SELECT id, %s::email_event, 'smtp' FROM email_jobs WHERE job_id = 'news-1'",
            (event,),
        )
    db.execute("UPDATE email_tracking SET provider = 'smtp' WHERE event_type = 'sent'")


@pytest.mark.parametrize("question", sql(), ids=str)
@pytest.mark.usefixtures("mails")
def test_postgres_answers_and_names_nobody(reader: Connection, question: Question) -> None:
    """Every statement runs as email_reader and finds the sample; no address is in what it finds."""
    found = ask(reader, question)
    assert found
    assert "ann" not in str(found)
    assert "@" not in str(found)


@pytest.mark.parametrize("question", sql(), ids=str)
def test_an_empty_database_is_no_error(reader: Connection, question: Question) -> None:
    """Nothing is divided by nothing."""
    ask(reader, question)


@pytest.mark.usefixtures("mails")
def test_the_figures_are_right(reader: Connection) -> None:
    """The sample, counted by hand."""
    (today,) = answers(reader, "Since midnight UTC")
    assert today == {"Sent": 3, "Dead": 1, "Suppressed": 1, "Bounced": 1, "Complaints": 1, "In doubt": 1}
    by_type = answers(reader, "Sent, by type")
    assert {row["metric"]: row["mails"] for row in by_type} == {"newsletter": 2, "booking-confirmation": 1}
    assert all(row["time"] % 300 == 0 for row in by_type)
    (campaign,) = answers(reader, "Campaigns")
    assert (campaign["Campaign"], campaign["Type"], campaign["Mails"]) == (CAMPAIGN, "newsletter", 3)
    assert (campaign["Sent"], campaign["Pending"], round(campaign["Done"], 2)) == (2, 1, 0.67)
    (reputation,) = answers(reader, "Reputation, by provider")
    assert (reputation["Sent"], round(reputation["Bounce rate"], 2)) == (3, 0.33)
    (provider,) = answers(reader, "Providers")
    assert (provider["Attempts"], provider["Accepted"], provider["95 % within"]) == (3, 1.0, 2.0)
    assert {row["Type"]: round(row["Slowest"]) for row in answers(reader, "Slowest types")} == {
        "newsletter": 90,
        "booking-confirmation": 90,
    }


@pytest.mark.usefixtures("mails")
def test_a_cause_is_a_servers_words_without_what_is_of_one_mail(reader: Connection) -> None:
    """Addresses in brackets, bare or in code, and queue ids: gone; the rest is as the server said it."""
    (cause,) = answers(reader, "Dead letters, by cause")
    assert cause["Cause"] == "550 5.1.1 <…>: no such user … … queue id …"
    assert cause["Mails"] == 1


@pytest.mark.parametrize(
    "column",
    [
        *(f"email_jobs.{name}" for name in ("job_id", "recipient_email", "recipient_name", "recipient_user_id")),
        *(f"email_jobs.{name}" for name in ("subject", "content", "data", "options", "extra", "error_message")),
        *(f"email_tracking.{name}" for name in ("event_data", "message_id", "ip_address", "user_agent")),
        *(f"email_attempts.{name}" for name in ("answer", "reason", "message_id")),
        *("email_suppressions.address", "email_rejects.raw", "email_templates.subject", "email_dead_letters.job_id"),
        *("email_secret.key", "email_job_keys.key", "email_purged.jobs"),
    ],
)
def test_the_reader_is_refused_what_is_personal(reader: Connection, column: str) -> None:
    """Addresses, names, contents, and what may quote them."""
    table, name = column.split(".")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(f"SELECT {name} FROM {table}".encode())


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM email_jobs",
        "SELECT * FROM email_timeline('j-1')",
        "SELECT email_enqueue('x', 'welcome-email', 'ann@example.com', '{}')",
        "DELETE FROM email_tracking",
        "UPDATE email_jobs SET status = 'pending'",
    ],
)
def test_the_reader_is_refused_what_writes_or_shows_all(reader: Connection, statement: str) -> None:
    """Also after it has put aside its own setting that makes its sessions read only."""
    reader.execute("SET default_transaction_read_only = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute(statement.encode())


def test_the_role_is_made_again_without_losing_its_login(reader: Connection, db: Connection) -> None:
    """Repeating the file takes back what it does not grant, keeps the password, and survives a migrate."""
    db.execute("GRANT SELECT ON email_jobs TO email_reader")
    reader.execute("SELECT recipient_email FROM email_jobs")
    db.execute(READER)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT recipient_email FROM email_jobs")
    assert value(db, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'email_reader'")


def test_the_views_of_the_house_can_be_made_again_under_it(reader: Connection, database: Database) -> None:
    """migrate replaces views and functions whole, and nothing of the role's stands in its way."""
    with database.connect() as owner:
        owner.execute("UPDATE email_schema SET checksum = 'older' WHERE name = 'api'")
        assert migrate(owner) == ["functions, views and triggers"]
    reader.execute("SELECT count(*) FROM email_dead_causes")
