"""What a worker logs: a line per batch, and never a person's address or a mail's content."""

import base64
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sink_process import Sink
from lab.smtp_script import Context, Script
from tests.integration.office import run
from tests.integration.rows import column, insert_job, insert_jobs, value
from tests.support import Database, eventually, running_worker

# Printed by procrastinate's command before it logs anything.
LAUNCH = "Launching a worker on all queues"
NO_JOB_PENDING = "SELECT count(*) = 0 FROM email_jobs WHERE status = 'pending'"

# Of persons and contents, in every place where a job can carry them.
PRIVATE = {
    "recipient_email": "ann.private@example.com",
    "recipient_name": "Privata Person",
    "subject": "private subject",
    "content": "<p>private content</p>",
    "data": '{"bookingId": "private data", "eventName": "e", "ticketCount": 2, "totalAmount": 1}',
    "options": json.dumps(
        {
            "cc": ["private.copy@example.com"],
            "headers": {"X-Note": "private header"},
            "attachments": [{"filename": "private.txt", "content": base64.b64encode(b"private file").decode()}],
        }
    ),
}
# An address of the kind above, or a word that marks what is private.
GIVEN_AWAY = re.compile(r"[\w.]+@example\.com|[Pp]rivat|" + base64.b64encode(b"private file").decode())


def echo(context: Context) -> str | None:
    """As many servers do, repeat the recipient in the refusal."""
    if "later" in context.recipient:
        return f"451 4.2.1 <{context.recipient}>: mailbox busy"
    return f"550 5.1.1 <{context.recipient}>: unknown" if "refused" in context.recipient else None


@pytest.fixture(scope="module")
def debug_log(module_database: Database) -> Iterator[str]:
    """All that a worker in production with LOG_LEVEL=DEBUG says of good and bad jobs, from start to stop."""
    jobs: dict[str, dict[str, object]] = {
        "good": {},
        "refused": {"recipient_email": "refused.private@example.com"},
        "retried": {"recipient_email": "later.private@example.com", "max_retries": 1},
        "copy refused": {"options": '{"cc": ["refused.private@example.com"]}'},
        "bad copy": {"options": '{"cc": ["private.copy@example.com, x@example.com"]}'},
        "bad header": {"options": '{"headers": {"X-Note": "private\\nBcc: private.copy@example.com"}}'},
        "bad attachment": {"options": '{"attachments": [{"filename": "file.txt", "content": "private"}]}'},
        "bad shape": {"options": '{"cc": "private.copy@example.com"}'},
        "bad data": {"subject": None, "content": None, "data": '{"eventName": "private", "ticketCount": "private"}'},
        "unknown template": {"template": "nope"},
        "expired": {"expires_at": "2024-01-01 00:00Z"},
    }
    with in_thread(ScriptedServer(Script(rcpt=echo))) as server, module_database.connect() as db:
        environment = module_database.environment(
            SMTP_PORT=server.port, LOG_LEVEL="DEBUG", ENVIRONMENT="production", EMAIL_RETRY_DELAY_SECONDS=0
        )
        with db.transaction():
            for job_id, columns in jobs.items():
                insert_job(db, job_id, **(PRIVATE | columns))
        with running_worker(environment) as worker:
            eventually(lambda: value(db, NO_JOB_PENDING), "an end for each job", seconds=20)
            assert set(column(db, "SELECT status::text FROM email_jobs")) == {"sent", "dead", "expired"}
            worker.process.send_signal(signal.SIGTERM)
            worker.process.wait(timeout=60)
            yield worker.log_text()


@pytest.fixture
def debug_events(debug_log: str) -> list[dict[str, Any]]:
    """The lines as JSON."""
    lines = debug_log.splitlines()
    assert LAUNCH in lines
    return [json.loads(line) for line in lines if line and line != LAUNCH]


def test_production_logs_are_json_with_level_time_and_worker(debug_events: list[dict[str, Any]]) -> None:
    """Every line of ours and of the libraries is one object that a log store can take apart."""
    assert len(debug_events) > 10
    for event in debug_events:
        assert {"event", "level", "timestamp", "worker"} <= set(event)
        assert event["timestamp"].endswith("Z")


def test_no_log_gives_away_a_person_or_a_content(debug_log: str) -> None:
    """Not even in DEBUG, nor in the words of a server that repeats the address, nor in errors about bad jobs."""
    told = [line for line in debug_log.splitlines() if GIVEN_AWAY.search(line)]
    assert told == []


def test_debug_tells_of_each_mail_with_a_masked_address(debug_events: list[dict[str, Any]]) -> None:
    """A line per settled mail names the job and its attempt, and enough of the address to find it."""
    lines = [event for event in debug_events if event["event"] == "mail"]
    assert {line["job_id"] for line in lines} >= {"good", "refused", "retried", "bad copy", "expired"}
    assert {line["to"] for line in lines} == {"a***@example.com", "r***@example.com", "l***@example.com"}


def test_no_task_ends_in_an_error(debug_events: list[dict[str, Any]]) -> None:
    """Bad jobs are the daily bread of a worker, and logging about them is no trouble."""
    assert [event for event in debug_events if event["level"] in ("error", "critical") or "exception" in event] == []


def test_info_is_a_line_for_each_batch(database: Database, tmp_path: Path) -> None:
    """Start, a line per batch with its numbers, stop: nothing else, whatever the number of mails."""
    with Sink(refuse=["ann1@*"]) as sink, database.connect() as db:
        with db.transaction():
            insert_jobs(db, 30)
            insert_job(db, "bulk", type="newsletter", recipient_email="bob@example.com")
        with running_worker(database.environment(SMTP_PORT=sink.port, ENVIRONMENT="production")) as worker:
            eventually(lambda: value(db, NO_JOB_PENDING), "an end for each job")
            eventually(lambda: worker.log_text().count('"batch"') >= 2, "both batches are logged")
            worker.process.send_signal(signal.SIGTERM)
            assert worker.process.wait(timeout=60) == 0
            lines = [json.loads(line) for line in worker.log_text().splitlines() if line and line != LAUNCH]
    assert {line["level"] for line in lines} == {"info"}
    names = [line["event"] for line in lines]
    assert names == ["started", "batch", "batch", "stopping: no new claim, no new hand-over", "stopped"]
    batches = {line["queue"]: line for line in lines if line["event"] == "batch"}
    assert batches["transactional"]["claimed"] == 30
    assert (batches["transactional"]["sent"], batches["transactional"]["dead"]) == (29, 1)
    assert (batches["bulk"]["claimed"], batches["bulk"]["sent"]) == (1, 1)
    assert all(isinstance(line["milliseconds"], int) for line in batches.values())


TROUBLE = """
import logging
from worker.log import configure_logging
from worker.settings_loading import load_settings

configure_logging(load_settings({"ENVIRONMENT": ENVIRONMENT, "EMAIL_FROM_ADDRESS": "a@example.org"}))

def deliver(recipient, content):
    raise RuntimeError("broken")

try:
    # In two pieces each: a traceback may quote this line, and must not know what they make together.
    deliver("ann.private@" + "example.com", "<p>private " + "content</p>")
except RuntimeError:
    logging.getLogger("procrastinate.worker").exception("a task ended in an error")
"""


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_traceback_shows_no_values(environment: str) -> None:
    """An unexpected error is logged with its place and its name, without the variables: they hold mails."""
    script = TROUBLE.replace(": ENVIRONMENT,", f": {environment!r},")
    ended = run({}, "-c", script)
    assert "RuntimeError" in ended.stderr
    assert "a task ended in an error" in ended.stderr
    assert not re.search(r"private@example|private content<", ended.stderr)
