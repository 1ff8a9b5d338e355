"""email-worker jobs, dead, pause, resume, queue: as a user would, right and wrong."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from lab.sink_process import Sink
from tests.integration.command import Command, Ended
from tests.integration.rows import Connection, insert_job, insert_jobs, rows, value
from tests.support import Database, eventually, running_worker

Run = Callable[..., Ended]


@pytest.fixture
def run(command: Command, database: Database) -> Run:
    """The command on the test's database."""
    return lambda *arguments, **settings: command(*arguments, **database.environment(**settings))


@pytest.fixture
def dead(db: Connection) -> Connection:
    """Three dead letters of two causes, and one job that waits."""
    insert_jobs(db, 3)
    db.execute("UPDATE email_jobs SET status = 'dead', error_message = '550 5.1.1 no <ann@example.com> here'")
    db.execute("UPDATE email_jobs SET error_message = 'template x, line 3' WHERE job_id = 'j-3'")
    insert_job(db, "waits")
    return db


def objects(ended: Ended) -> list[dict[str, Any]]:
    """The JSON lines of an answer."""
    assert ended.status == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_jobs_are_listed_with_masked_addresses(run: Run, dead: Connection) -> None:
    """Newest first, by what they are; whole addresses only with LOG_PII."""
    listed = run("jobs", "list").out
    assert listed.splitlines()[1].split()[:4] == ["waits", "pending", "booking-confirmation", "a***@example.com"]
    assert "ann" not in listed
    assert "ann@example.com" in run("jobs", "list", LOG_PII="true").out
    ended = objects(run("jobs", "list", "--status", "dead", "--json"))
    assert [job["job_id"] for job in ended] == ["j-3", "j-2", "j-1"]
    assert [job["job_id"] for job in objects(run("jobs", "list", "--to", "ANN@example.com", "--json"))] == ["waits"]
    assert len(objects(run("jobs", "list", "--most", "2", "--json"))) == 2
    assert run("jobs", "list", "--type", "newsletter").out == "no such jobs\n"
    assert len(objects(run("jobs", "list", "--since", "1h", "--json"))) == 4
    assert objects(run("jobs", "list", "--since", "2099-01-01", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("jobs", "list", "--since", "yesterday"), "'yesterday' is not like 30m, 2h, 7d or 2030-01-31T10:00Z"),
        (("jobs", "list", "--status", "lost"), "invalid choice: 'lost'"),
        (("jobs", "list", "--most", "-1"), "is not a whole number"),
        (("jobs", "list", "--most", "0"), "it must be 1 or more"),
        (("jobs", "list", "--campaign", "x"), "invalid UUID value: 'x'"),
        (("jobs", "show", "nope"), "no job has the job_id 'nope'. See: email-worker jobs list"),
        (("jobs", "requeue", "nope"), 'no job has the job_id "nope"'),
        (("jobs", "requeue", "waits"), 'job "waits" is pending already'),
        (("jobs", "cancel", "nope"), 'no job has the job_id "nope"'),
        (("dead", "requeue"), "name --type or --since, or --all for every dead letter there is"),
        (("pause", "type", "nope"), 'no type is called "nope"'),
        (("pause", "type"), "name the type to pause"),
        (("pause", "campaign", "x"), "invalid choice: 'campaign'"),
    ],
)
def test_mistakes_are_told_in_a_line(run: Run, dead: Connection, arguments: tuple[str, ...], words: str) -> None:
    """With a status other than 0, and no stack trace."""
    ended = run(*arguments)
    assert ended.status in (1, 2)
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_the_life_of_a_mail_is_on_one_screen(run: Run, database: Database, db: Connection, sink: Sink) -> None:
    """When it came and from where, each attempt with provider, reason and answer, each event."""
    insert_job(db, "order-17")
    with running_worker(database.environment(SMTP_PORT=sink.port)):
        eventually(lambda: rows(db, "SELECT 1 FROM email_jobs WHERE status = 'sent'"), "it is sent")
    shown = run("jobs", "show", "order-17")
    assert shown.status == 0
    lines = shown.out.splitlines()
    assert "job_id           order-17" in lines
    assert "status           sent" in lines
    assert "to               a***@example.com" in lines
    assert [line.split("  ")[1] for line in lines[-4:]] == ["enqueued", "handed over", "accepted", "sent"]
    assert "primary smtp by " in shown.out
    (life,) = objects(run("jobs", "show", "order-17", "--json"))
    assert [event["what"] for event in life["life"]] == ["enqueued", "handed over", "accepted", "sent"]


def test_jobs_are_cancelled_and_requeued_one_by_one(run: Run, dead: Connection) -> None:
    """What cannot be done is told, and the others are done all the same."""
    ended = run("jobs", "requeue", "j-1", "waits", "j-2")
    assert (ended.status, ended.out) == (1, "j-1: pending again\nj-2: pending again\n")
    assert "1 of 3 could not be changed" in ended.err
    ended = run("jobs", "cancel", "j-1", "j-3")
    assert (ended.status, ended.out) == (1, "j-1: cancelled\n")
    assert ended.err.splitlines()[0] == "j-3: too late, it is dead"
    (life,) = objects(run("jobs", "show", "j-1", "--json"))
    assert (life["status"], life["retries"], life["life"][-1]["what"]) == ("cancelled", 0, "cancelled")
    assert life["life"][-1]["detail"] == "by postgres"


def test_dead_letters_by_cause_and_back(run: Run, dead: Connection) -> None:
    """How many of each cause; requeued by type and time, or all."""
    causes = objects(run("dead", "list", "--causes", "--json"))
    assert [(cause["jobs"], cause["cause"]) for cause in causes] == [
        (2, "550 5.1.1 no <a***@example.com> here"),
        (1, "template x, line 3"),
    ]
    assert [letter["job_id"] for letter in objects(run("dead", "list", "--json"))][-1] in ("j-1", "j-2", "j-3")
    assert run("dead", "requeue", "--type", "newsletter").out == "0 dead letters are pending again\n"
    assert run("dead", "requeue", "--since", "1h").out == "3 dead letters are pending again\n"
    assert run("dead", "list").out == "no dead letters\n"


def test_pause_and_resume(run: Run, db: Connection) -> None:
    """With a reason, listed, ended, and told when there was nothing to end."""
    assert run("pause").out == "nothing is paused\n"
    assert run("pause", "type", "newsletter", "--reason", "wrong link").out == "type newsletter: paused\n"
    assert run("pause", "type", "newsletter").out == "type newsletter: was paused already\n"
    assert "wrong link" in run("pause").out
    assert objects(run("pause", "--json"))[0]["name"] == "newsletter"
    assert run("resume", "type", "newsletter").out == "type newsletter: resumed\n"
    assert run("resume", "type", "newsletter").out == "type newsletter: was not paused\n"
    assert value(db, "SELECT count(*) FROM email_pauses") == 0


def test_the_queue_at_a_look(run: Run, database: Database, dead: Connection, sink: Sink) -> None:
    """Depth, age, who works, what is paused; once where nobody looks on."""
    dead.execute("SELECT email_pause('queue', 'transactional')")
    with running_worker(database.environment(SMTP_PORT=sink.port, WORKER_NAME="w-17")) as worker:
        eventually(lambda: "started" in worker.log_text(), "it has started")
        text = run("queue").out
        (look,) = objects(run("queue", "--json"))
    assert "transactional  normal" in text or "transactional  high" in text
    assert "paused: queue transactional" in text
    assert "w-17" in text
    assert {level["pending"] for level in look["depth"]} == {0, 1}
    assert look["paused"] == ["queue transactional"]
    assert [one["worker"] for one in look["workers"]] == ["w-17"]
