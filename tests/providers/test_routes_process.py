"""A running worker: routes of types and domains, and a system that is not production."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.sink_process import Sink
from tests.integration.rows import Connection, insert_job, rows
from tests.support import Database, eventually, running_worker


@pytest.fixture
def fallback(tmp_path: Path) -> Iterator[Sink]:
    """The second server."""
    with Sink(ledger=tmp_path / "fallback") as sink:
        yield sink


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Sink]:
    """The first one; it keeps what it takes."""
    with Sink(ledger=tmp_path / "primary", maildir=tmp_path / "mails") as sink:
        yield sink


def taken(sink: Sink) -> Counter[str]:
    """How often each recipient got a mail."""
    return Counter(entry.recipient for entry in sink.ledger())


def nothing_waits(db: Connection) -> None:
    """Wait for the end of every job."""
    eventually(lambda: rows(db, "SELECT job_id FROM email_jobs WHERE status = 'pending'") == [], "all end")


def test_routes_are_followed_from_the_next_claim_on(
    database: Database, db: Connection, primary: Sink, fallback: Sink
) -> None:
    """A domain's route, a type's, and none; a change needs no restart, and the journal says where each went."""
    environment = database.environment(
        SMTP_PORT=primary.port,
        EMAIL_PROVIDER_FALLBACK="smtp_fallback",
        SMTP_FALLBACK_HOST=fallback.host,
        SMTP_FALLBACK_PORT=fallback.port,
        SMTP_FALLBACK_ENCRYPTION="none",
    )
    with running_worker(environment):
        insert_job(db, "before", recipient_email="ann@routed.example")
        nothing_waits(db)
        db.execute("INSERT INTO email_routes (domain, providers) VALUES ('routed.example', '{smtp_fallback}')")
        db.execute("INSERT INTO email_routes (type, providers) VALUES ('welcome-email', '{smtp_fallback,smtp}')")
        db.execute("INSERT INTO email_routes (type, providers) VALUES ('security-alert', '{pigeon}')")
        insert_job(db, "domain", recipient_email="Ann@Routed.Example")
        insert_job(db, "type", recipient_email="bob@example.com", type="welcome-email")
        insert_job(db, "neither", recipient_email="cy@example.com")
        insert_job(db, "unknown provider", recipient_email="dan@example.com", type="security-alert")
        nothing_waits(db)
    went = dict(rows(db, "SELECT job_id, provider FROM email_jobs"))
    assert went == {
        "before": "smtp",
        "domain": "smtp_fallback",
        "type": "smtp_fallback",
        "neither": "smtp",
        "unknown provider": "smtp",
    }
    reasons = dict(rows(db, "SELECT job_id, reason FROM email_attempts JOIN email_jobs USING (seq)"))
    assert reasons["type"] == "primary smtp_fallback"


def test_a_system_that_is_not_production_writes_to_nobody_else(
    database: Database, db: Connection, primary: Sink, tmp_path: Path
) -> None:
    """The allowed get their mail, the mails of others go to the tester and say for whom they were."""
    environment = database.environment(
        SMTP_PORT=primary.port,
        ENVIRONMENT="staging",
        EMAIL_ALLOWED_RECIPIENTS="*@qa.example.com",
        EMAIL_REDIRECT_TO="tester@example.org",
    )
    options = '{"cc": ["boss@customer.example", "cc@qa.example.com"], "bcc": ["spy@customer.example"]}'
    with running_worker(environment):
        insert_job(db, "qa", recipient_email="Ann@QA.example.com", options=options)
        insert_job(db, "customer", recipient_email="bob@customer.example", options=options)
        nothing_waits(db)
    assert taken(primary) == {
        "Ann@QA.example.com,cc@qa.example.com": 1,
        "tester@example.org,cc@qa.example.com": 1,
    }
    mails = [file.read_bytes() for file in (tmp_path / "mails").glob("*.eml")]
    assert sum(b"X-Original-To: bob@customer.example\r\n" in mail for mail in mails) == 1
    assert rows(db, "SELECT recipient_email FROM email_jobs WHERE job_id = 'customer'") == [("bob@customer.example",)]


def test_without_a_tester_others_are_suppressed(database: Database, db: Connection, primary: Sink) -> None:
    """And the job says by which setting."""
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_ALLOWED_RECIPIENTS="*@qa.example.com")):
        insert_job(db, "customer", recipient_email="bob@customer.example")
        nothing_waits(db)
    assert rows(db, "SELECT status::text, error_message FROM email_jobs") == [
        ("suppressed", "EMAIL_ALLOWED_RECIPIENTS does not name the address")
    ]
    assert taken(primary) == {}
