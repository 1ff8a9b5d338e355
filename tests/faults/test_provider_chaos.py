"""A primary that goes through everything under load: healthy, slow, refusing, resetting after the content, healthy."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Delay, Drop, Script
from tests.faults.scene import Db, books_balance, count, enqueue, nothing_pending, small_templates
from tests.support import Database, eventually, running_worker

HEALTHY = Script()
SLOW = Script(content=lambda _: Delay(5.0))
REFUSING = Script(greeting="421 4.3.2 go away", mail="421 4.3.2 go away")
RESETTING = Script(content=lambda _: Drop(reset=True))
DOUBT_SECONDS = 2


@contextmanager
def load(database: Database) -> Iterator[None]:
    """Fifteen jobs of the three guarantees, ten times a second."""
    over = threading.Event()

    def fill() -> None:
        with database.connect() as connection:
            turn = 0
            while not over.wait(0.1):
                turn += 1
                enqueue(connection, 15, prefix=f"turn-{turn}")

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        yield
    finally:
        over.set()
        filling.join()


def sent_by(db: Db, provider: str) -> int:
    """Attempts that a provider has accepted so far."""
    return count(db, "SELECT count(*) FROM email_attempts WHERE provider = %s AND state = 'accepted'", provider)


def test_a_primary_that_goes_through_everything(database: Database, db: Db, tmp_path: Path) -> None:
    """Nothing is lost, only doubts are repeated, the fallback takes over, and the primary comes back by itself."""
    small_templates(db)
    with in_thread(ScriptedServer()) as primary, Sink(ledger=tmp_path / "ledger") as fallback:
        environment = database.environment(
            SMTP_PORT=primary.port,
            EMAIL_PROVIDER_FALLBACK="smtp_fallback",
            SMTP_FALLBACK_HOST=fallback.host,
            SMTP_FALLBACK_PORT=fallback.port,
            SMTP_FALLBACK_ENCRYPTION="none",
            EMAIL_BREAKER_FAILURES=5,
            EMAIL_BREAKER_SECONDS=0.5,
            EMAIL_SLOW_SECONDS=1,
            EMAIL_DOUBT_SECONDS=DOUBT_SECONDS,
            EMAIL_RETRY_DELAY_SECONDS=0.5,
            EMAIL_MAX_RETRIES=20,
            EMAIL_BATCH_DEADLINE_SECONDS=12,
        )
        with running_worker(environment), load(database):
            for script, provider, seconds in (
                (HEALTHY, "smtp", 1.0),
                (SLOW, "smtp_fallback", 7.0),
                (REFUSING, "smtp_fallback", 2.0),
                (RESETTING, "smtp_fallback", 2.0),
                (HEALTHY, "smtp", 1.0),
            ):
                primary.script = script
                before = sent_by(db, provider)
                ends = time.monotonic() + seconds
                eventually(lambda: sent_by(db, provider) > before + 30, f"{provider} works", 30.0)  # noqa: B023
                time.sleep(max(0.0, ends - time.monotonic()))
            primary_is_back = sent_by(db, "smtp")
            eventually(lambda: sent_by(db, "smtp") > primary_is_back + 100, "the primary has the load again")
        with running_worker(environment):
            nothing_pending(db)
        check_books(db, primary, fallback)


def check_books(db: Db, primary: ScriptedServer, fallback: Sink) -> None:
    """Every mail has reached a server; more than once only what was in doubt, and never a mail of at_most_once."""
    books_balance(db)
    jobs = db.execute(
        "SELECT seq, id::text, guarantee::text, status::text,"
        " (SELECT count(*) FROM email_attempts AS a WHERE a.seq = j.seq AND a.state IN ('unknown', 'sending'))"
        " FROM email_jobs AS j"
    ).fetchall()
    by_id = Counter(entry.job_id for entry in fallback.ledger())
    for mail in primary.mails:
        by_id[job_id_of(mail.content)] += 1
    assert len(jobs) > 500
    for _, job, guarantee, status, doubts in jobs:
        assert status == "sent" or (guarantee, status) == ("at_most_once", "in_doubt"), (job, guarantee, status)
        assert by_id[job] >= 1, f"lost: {job}"
        assert by_id[job] <= 1 + doubts, f"repeated without a doubt: {job}"
        if guarantee == "at_most_once":
            assert by_id[job] == 1


def job_id_of(content: bytes) -> str:
    """The X-Job-Id of a message."""
    return content.partition(b"X-Job-Id: ")[2].partition(b"\r\n")[0].decode()
