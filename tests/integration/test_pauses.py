"""Pausing a type, a queue, a provider: effective at once, for as long as it lasts, at no cost to any job."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psycopg
import pytest

from lab.sink_process import Sink
from tests.integration.rows import Connection, column, insert_job, row, rows, value
from tests.support import Database, eventually, running_worker
from worker.setting_types import ProviderName

# Longer than a worker needs to look several times.
A_WHILE = 1.5
ALERT = {
    "type": "security-alert",
    "template": "security-alert",
    "data": '{"activity": "login", "occurredAt": "2026-02-17T03:26:00+01:00"}',
}
NEWS = {"type": "newsletter", "template": "newsletter", "subject": "s", "content": "c"}


@pytest.fixture
def fallback(tmp_path: Path) -> Iterator[Sink]:
    """The second server."""
    with Sink(ledger=tmp_path / "fallback") as running:
        yield running


def sent(db: Connection) -> set[str]:
    """The jobs that are."""
    return set(column(db, "SELECT job_id FROM email_jobs WHERE status = 'sent'"))


def test_a_paused_type_stays_where_it_is(database: Database, db: Connection, sink: Sink) -> None:
    """Paused before and while a worker runs; others go, resumed ones go at once, and nothing was charged."""
    assert value(db, "SELECT email_pause('type', 'booking-confirmation', 'wrong link')") == "paused"
    assert value(db, "SELECT email_pause('type', 'booking-confirmation')") == "was paused already"
    insert_job(db, "paused")
    with running_worker(database.environment(SMTP_PORT=sink.port)):
        insert_job(db, "other", **ALERT)
        eventually(lambda: "other" in sent(db), "the other type goes")
        insert_job(db, "paused too")
        time.sleep(A_WHILE)
        assert sent(db) == {"other"}
        assert value(db, "SELECT email_resume('type', 'booking-confirmation')") == "resumed"
        eventually(lambda: len(sent(db)) == 3, "resumed", seconds=5)
        db.execute("SELECT email_pause('type', 'security-alert')")
        insert_job(db, "paused later", **ALERT)
        insert_job(db, "goes on")
        eventually(lambda: "goes on" in sent(db), "the resumed type goes")
        time.sleep(A_WHILE)
        assert "paused later" not in sent(db)
    assert row(db, "SELECT attempt_no, retry_count FROM email_jobs WHERE job_id = 'paused later'") == (0, 0)
    assert rows(db, "SELECT event_type FROM email_tracking WHERE event_type <> 'sent'") == []


def test_a_paused_queue_leaves_the_other_alone(database: Database, db: Connection, sink: Sink) -> None:
    """Campaigns wait while password resets go; and the other way round."""
    with running_worker(database.environment(SMTP_PORT=sink.port)):
        insert_job(db, "first", **NEWS)
        eventually(lambda: "first" in sent(db), "bulk mail goes")
        db.execute("SELECT email_pause('queue', 'bulk')")
        insert_job(db, "bulk", **NEWS)
        insert_job(db, "reset")
        eventually(lambda: "reset" in sent(db), "transactional mail goes")
        time.sleep(A_WHILE)
        assert "bulk" not in sent(db)
        db.execute("SELECT email_resume('queue', 'bulk'), email_pause('queue', 'transactional')")
        insert_job(db, "reset 2")
        eventually(lambda: "bulk" in sent(db), "resumed", seconds=5)
        time.sleep(A_WHILE)
        assert "reset 2" not in sent(db)


def test_a_paused_provider_is_passed_over_and_the_only_one_waited_for(
    database: Database, db: Connection, sink: Sink, fallback: Sink
) -> None:
    """With a fallback its mail goes there, and the journal says why; with all paused nothing is claimed."""
    settings = {
        "SMTP_PORT": sink.port,
        "EMAIL_PROVIDER_FALLBACK": "smtp_fallback",
        "SMTP_FALLBACK_HOST": fallback.host,
        "SMTP_FALLBACK_PORT": fallback.port,
        "SMTP_FALLBACK_ENCRYPTION": "none",
    }
    with running_worker(database.environment(**settings)):
        insert_job(db, "before")
        eventually(lambda: "before" in sent(db), "the primary works")
        db.execute("SELECT email_pause('provider', 'smtp')")
        insert_job(db, "passed over")
        eventually(lambda: "passed over" in sent(db), "the fallback takes it")
        db.execute("SELECT email_pause('provider', 'smtp_fallback')")
        insert_job(db, "notices")
        time.sleep(A_WHILE)
        insert_job(db, "waits")
        time.sleep(A_WHILE)
        assert sent(db) == {"before", "passed over"}
        assert value(db, "SELECT next_attempt_at <= now() AND attempt_no = 0 FROM email_jobs WHERE job_id = 'waits'")
        db.execute("SELECT email_resume('provider', 'smtp')")
        eventually(lambda: {"waits", "notices"} <= sent(db), "resumed", seconds=5)
    assert dict(rows(db, "SELECT job_id, provider FROM email_jobs WHERE status = 'sent'")) == {
        "before": "smtp",
        "passed over": "smtp_fallback",
        "notices": "smtp",
        "waits": "smtp",
    }
    reason = value(db, "SELECT reason FROM email_attempts JOIN email_jobs USING (seq) WHERE job_id = 'passed over'")
    assert reason == "primary smtp: smtp is paused; fallback smtp_fallback"


def test_every_provider_can_be_paused(db: Connection) -> None:
    """SQL knows the same names as the settings."""
    for name in get_args(ProviderName):
        assert value(db, "SELECT email_pause('provider', %s)", name) == "paused"


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("campaign", "x", "a campaign cannot be paused"),
        ("type", "nope", 'no type is called "nope"'),
        ("queue", "Bulk", 'no queue is called "Bulk"'),
        ("provider", "Mail gun", 'no provider is called "Mail gun"'),
    ],
)
def test_what_is_not_there_cannot_be_paused(db: Connection, kind: str, name: str, words: str) -> None:
    """The words say what there is."""
    with pytest.raises(psycopg.Error, match=words):
        db.execute("SELECT email_pause(%s, %s)", (kind, name))
    assert value(db, "SELECT email_resume(%s, %s)", kind, name) == "was not paused"
