"""Running workers under limits: what waits, for how long, at what cost, and who goes past."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Script
from tests.integration.rows import Connection, column, insert_job, insert_jobs, rows, value
from tests.limits.fleet import assert_within
from tests.support import Database, eventually, running_worker
from worker.buckets import Limit

# What a busy machine may hold a mail up between its token and the server.
LATE = 0.3


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Sink]:
    """The first server."""
    with Sink(ledger=tmp_path / "primary") as sink:
        yield sink


@pytest.fixture
def fallback(tmp_path: Path) -> Iterator[Sink]:
    """The second one."""
    with Sink(ledger=tmp_path / "fallback") as sink:
        yield sink


def with_fallback(primary: Sink, fallback: Sink) -> dict[str, object]:
    """The settings of both."""
    return {
        "SMTP_PORT": primary.port,
        "EMAIL_PROVIDER_FALLBACK": "smtp_fallback",
        "SMTP_FALLBACK_HOST": fallback.host,
        "SMTP_FALLBACK_PORT": fallback.port,
        "SMTP_FALLBACK_ENCRYPTION": "none",
    }


def times(sink: Sink, recipient: str = "") -> list[float]:
    """When the mails to recipients with that in their address came."""
    return [entry.time for entry in sink.ledger() if recipient in entry.recipient]


def all_sent(db: Connection) -> None:
    """Wait until every job is."""
    eventually(lambda: rows(db, "SELECT 1 FROM email_jobs WHERE status <> 'sent'") == [], "all are sent")


def snoozes(db: Connection) -> dict[str, int]:
    """How often each job was put off."""
    return dict(
        rows(
            db,
            "SELECT job.job_id, count(*) FROM email_tracking AS event JOIN email_jobs AS job ON job.id = event.job_id"
            " WHERE event.event_type = 'snoozed' GROUP BY job.job_id",
        )
    )


def test_what_the_default_provider_cannot_take_is_not_claimed(
    database: Database, db: Connection, primary: Sink
) -> None:
    """Its rate is kept and used, and nothing of what waits is touched meanwhile."""
    insert_jobs(db, 80)
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_SMTP="20/s burst 10")):
        eventually(lambda: len(times(primary)) >= 10, "the burst")
        assert value(db, "SELECT count(*) FROM email_jobs WHERE attempt_no > 0 OR retry_count > 0") <= 40
        all_sent(db)
    went = times(primary)
    assert_within(went, Limit("provider smtp", 1 / 20, 10), LATE)
    assert max(went) - min(went) <= 70 / 20 / 0.9 + LATE
    assert snoozes(db) == {}


def test_tokens_that_found_no_job_are_not_lost(database: Database, db: Connection, primary: Sink) -> None:
    """A worker that looks again and again into an empty queue uses nothing up: a burst of ten goes at once."""
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_SMTP="1/m burst 10")):
        insert_job(db, "first")
        all_sent(db)
        eventually(lambda: value(db, "SELECT count(*) > 0 FROM email_buckets"), "the bucket is in use")
        insert_jobs(db, 9)
        all_sent(db)


def test_a_domain_that_is_full_holds_up_nobody_else(database: Database, db: Connection, primary: Sink) -> None:
    """Each row to it waits once, for a moment of its own, at no cost; the others go at once."""
    for number in range(30):
        insert_job(db, f"full-{number}", recipient_email=f"ann{number}@full.example")
        insert_job(db, f"free-{number}", recipient_email=f"ann@free{number}.example")
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_DOMAIN="10/s burst 5")):
        all_sent(db)
    full, free = times(primary, "@full.example"), times(primary, "@free")
    assert max(free) < min(full) + 1.5
    assert_within(full, Limit("domain full.example", 0.1, 5), LATE)
    assert max(full) - min(full) <= 25 / 10 / 0.9 + LATE
    put_off = snoozes(db)
    assert set(put_off.values()) == {1}
    assert 20 <= len(put_off) <= 25
    assert all(job_id.startswith("full") for job_id in put_off)
    assert column(db, "SELECT DISTINCT retry_count FROM email_jobs") == [0]
    reasons = column(db, "SELECT DISTINCT event_data ->> 'reason' FROM email_tracking WHERE event_type = 'snoozed'")
    assert reasons == ["rate limit: domain"]


def test_one_person_gets_so_many_mails_of_a_type(database: Database, db: Connection, primary: Sink) -> None:
    """However the address is written; another type, and another person, are not concerned."""
    for number in range(4):
        insert_job(db, f"same-{number}", recipient_email="Ann@Example.com" if number % 2 else "ann@example.com")
    insert_job(db, "other person", recipient_email="bob@example.com")
    alert = '{"activity": "login", "occurredAt": "2026-02-17T03:26:00+01:00"}'
    insert_job(db, "other type", type="security-alert", template="security-alert", data=alert)
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_RECIPIENT="30/m burst 2")):
        eventually(
            lambda: value(
                db, "SELECT count(*) = 4 FROM email_jobs WHERE processed_at IS NOT NULL AND status <> 'pending'"
            ),
            "four are through",
        )
        eventually(lambda: len(snoozes(db)) == 2, "two wait")
        assert not [name for name in snoozes(db) if name.startswith("other")]
        eventually(
            lambda: value(db, "SELECT count(*) = 4 FROM email_jobs WHERE job_id LIKE 'same%%' AND status = 'sent'"),
            "all",
        )
    assert set(snoozes(db).values()) == {1}
    assert "ann@" not in str(rows(db, "SELECT bucket FROM email_buckets")).lower()


def test_a_route_to_a_provider_without_tokens_waits_for_them(
    database: Database, db: Connection, primary: Sink, fallback: Sink
) -> None:
    """Each row once; what goes by the default provider is not held up, and it is not the fallback's turn."""
    db.execute("INSERT INTO email_routes (domain, providers) VALUES ('routed.example', '{smtp_fallback,smtp}')")
    for number in range(15):
        insert_job(db, f"routed-{number}", recipient_email=f"ann{number}@routed.example")
    insert_jobs(db, 15)
    settings = with_fallback(primary, fallback) | {"EMAIL_RATE_SMTP_FALLBACK": "10/s burst 1"}
    with running_worker(database.environment(**settings)):
        all_sent(db)
    assert len(times(primary)) == len(times(fallback)) == 15
    assert_within(times(fallback), Limit("provider smtp_fallback", 0.1, 1), LATE)
    assert set(snoozes(db)) <= {f"routed-{number}" for number in range(15)}
    assert set(snoozes(db).values()) == {1}
    assert column(db, "SELECT DISTINCT retry_count FROM email_jobs") == [0]


def test_what_is_over_a_days_ceiling_goes_to_the_next_provider(
    database: Database, db: Connection, primary: Sink, fallback: Sink
) -> None:
    """A ceiling for one domain, one for all; and the journal says why a mail went where it went."""
    today = datetime.now(UTC).date()
    db.execute(
        "INSERT INTO email_warmup (provider, domain, day, ceiling) VALUES"
        " ('smtp', 'example.com', %s, 3), ('smtp', '*', %s, 5), ('smtp', '*', %s, 1)",
        (today, today, today + timedelta(days=1)),
    )
    insert_jobs(db, 6)
    for number in range(6):
        insert_job(db, f"elsewhere-{number}", recipient_email=f"ann{number}@elsewhere.example")
    with running_worker(database.environment(**with_fallback(primary, fallback))):
        all_sent(db)
    assert len(times(primary, "@example.com")) == 3
    assert len(times(primary)) == 5
    assert len(times(fallback)) == 7
    reasons = column(db, "SELECT DISTINCT reason FROM email_attempts WHERE provider = 'smtp_fallback'")
    assert reasons == ["primary smtp: smtp has reached its ceiling of today; fallback smtp_fallback"]


def test_without_another_provider_a_ceiling_means_tomorrow(database: Database, db: Connection, primary: Sink) -> None:
    """No retry is used up, and a ceiling that is raised does not help those who wait already: requeue does."""
    today = datetime.now(UTC).date()
    db.execute("INSERT INTO email_warmup (provider, day, ceiling) VALUES ('smtp', %s, 2)", (today,))
    insert_jobs(db, 5)
    with running_worker(database.environment(SMTP_PORT=primary.port)):
        eventually(lambda: len(snoozes(db)) == 3, "three wait")
    morning = datetime.combine(today + timedelta(days=1), datetime.min.time(), UTC)
    waiting = rows(db, "SELECT next_attempt_at, retry_count FROM email_jobs WHERE status = 'pending'")
    assert len(waiting) == 3
    assert all(morning <= moment <= morning + timedelta(minutes=11) and not used for moment, used in waiting)
    assert len(times(primary)) == 2


@pytest.mark.parametrize(
    ("answer", "bucket"),
    [
        (Script(mail="421 4.7.0 too many messages, slow down"), "provider smtp"),
        (Script(content="450 4.7.1 rate of your messages to us exceeded"), "domain example.com"),
    ],
)
def test_a_server_that_finds_it_too_fast_is_given_time(
    database: Database, db: Connection, answer: Script, bucket: str
) -> None:
    """The bucket of whoever said it is slowed down; a plain failure slows nobody."""
    with in_thread(ScriptedServer(Script(rcpt="450 4.2.1 mailbox busy"))) as server:
        limits = {"EMAIL_RATE_SMTP": "1000/s", "EMAIL_RATE_DOMAIN": "1000/s", "EMAIL_BREAKER_FAILURES": 0}
        with running_worker(database.environment(SMTP_PORT=server.port, **limits)):
            insert_job(db, "busy")
            eventually(lambda: value(db, "SELECT retry_count = 1 FROM email_jobs WHERE job_id = 'busy'"), "it failed")
            assert column(db, "SELECT bucket FROM email_buckets WHERE slowness > 1") == []
            server.script = answer
            insert_job(db, "fast")
            eventually(lambda: column(db, "SELECT bucket FROM email_buckets WHERE slowness > 1"), "one is slower")
            assert column(db, "SELECT bucket FROM email_buckets WHERE slowness > 1") == [bucket]


def test_a_password_reset_goes_past_a_campaign(database: Database, db: Connection, primary: Sink) -> None:
    """The rate is the campaign's, but for a share that it cannot eat."""
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, subject, content)"
        " SELECT 'bulk-' || n, 'newsletter', 'newsletter', 'ann' || n || '@example.com', 's', 'c'"
        " FROM generate_series(1, 400) AS n"
    )
    rate = {"EMAIL_RATE_SMTP": "10/s burst 10", "EMAIL_RATE_TRANSACTIONAL_SHARE": 0.5}
    with running_worker(database.environment(SMTP_PORT=primary.port, **rate)):
        eventually(lambda: len(times(primary)) >= 10, "the campaign is under way")
        for number in range(5):
            insert_job(db, f"reset-{number}")
        eventually(
            lambda: value(db, "SELECT count(*) = 5 FROM email_jobs WHERE job_id LIKE 'reset%%' AND status = 'sent'"),
            "the resets are through",
            seconds=5,
        )
        assert value(db, "SELECT count(*) > 250 FROM email_jobs WHERE status = 'pending'")


def test_copies_count_for_the_provider(database: Database, db: Connection, primary: Sink) -> None:
    """A mail with two copies costs three."""
    options = '{"cc": ["b@example.com"], "bcc": ["c@example.com"]}'
    for number in range(8):
        insert_job(db, f"copies-{number}", options=options)
    with running_worker(database.environment(SMTP_PORT=primary.port, EMAIL_RATE_SMTP="6/s burst 6")):
        all_sent(db)
    went = times(primary)
    # 24 recipients, of which 6 went in the burst.
    assert max(went) - min(went) >= 18 / 6 - 0.5 - LATE
