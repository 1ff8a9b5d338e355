"""What comes in, by the command line: enqueue, schema, rejects and ingest offsets, and their errors in one line."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command import Command, Ended
from tests.integration.office import ROOT, inherited
from tests.integration.rows import Connection, column, job, rows, value
from tests.support import Database
from worker.enqueue import BATCH
from worker.events import event_schema
from worker.intake import Received, store
from worker.message import job_schema

Desk = Callable[..., Ended]

JOBS = "SELECT job_id FROM email_jobs ORDER BY job_id"
REJECTS = "SELECT id FROM email_rejects ORDER BY id"
SOME_BAD = "email-worker: some lines could not become jobs. See: email-worker rejects list\n"
# Topic id, partition and next offset; the first is of a topic that was made again.
OFFSETS = [("old", 0, 900), ("new", 0, 17), ("new", 1, 1500), ("x", 0, 3)]
POSITIONS = (
    "SELECT topic_id, partition, next_offset, epoch FROM ingest_offsets ORDER BY topic, partition, topic_id DESC"
)
GARBAGE = b"\x00\xff not UTF-8"


def message(job_id: str = "j-1", **fields: Any) -> bytes:
    """A small message; further fields as given."""
    recipient = {"email": "ann@example.com"}
    return json.dumps({"id": job_id, "type": "welcome-email", "recipient": recipient} | fields).encode()


def complaint(ended: Ended, status: int = 1) -> str:
    """The one line on standard error of a command that failed, without its beginning."""
    assert ended.status == status
    (line,) = ended.err.splitlines()
    return line.removeprefix("email-worker: ")


def read_on(db: Connection) -> None:
    """Ingestors have read two topics up to OFFSETS."""
    for topic_id, *place in OFFSETS:
        db.execute(
            "INSERT INTO ingest_offsets (topic, topic_id, partition, next_offset) VALUES (%s, %s, %s, %s)",
            ("other" if topic_id == "x" else "email-jobs", topic_id, *place),
        )


def file(*lines: bytes, name: str = "jobs.ndjson") -> Path:
    """A file in the folder where the commands run; its last line has no end."""
    path = Path.cwd() / name
    path.write_bytes(b"\n".join(lines))
    return path


@pytest.fixture
def desk(command: Command, database: Database) -> Desk:
    """The commands, on this test's own database."""
    environment = database.environment()
    return lambda *arguments: command(*map(str, arguments), **environment)


@pytest.fixture
def numbers(db: Connection) -> list[int]:
    """Three rejects: garbage, an unknown type, and an address that only the database refuses; their numbers."""
    bad = [GARBAGE, message("j-2", type="gift-card"), message("j-3", recipient={"email": "a@b..c"})]
    store(db, "kafka", [Received(f"email-jobs/0/{place}", raw) for place, raw in enumerate(bad)])
    return column(db, REJECTS)


def test_a_file_is_enqueued_and_a_second_time_adds_nothing(desk: Desk, db: Connection) -> None:
    """Every line is a job from `file`; the same file again is all duplicates, and no error."""
    path = file(*(message(f"j-{n:04}") for n in range(2 * BATCH + 1)))
    assert desk("enqueue", path) == Ended(0, "1,001 accepted, 0 duplicate, 0 rejected\n", "")
    assert desk("enqueue", path) == Ended(0, "0 accepted, 1,001 duplicate, 0 rejected\n", "")
    assert column(db, JOBS) == [f"j-{n:04}" for n in range(2 * BATCH + 1)]
    assert column(db, "SELECT DISTINCT source FROM email_jobs") == ["file"]


def test_bad_lines_are_kept_and_the_others_are_jobs(desk: Desk, db: Connection) -> None:
    """Status 1 and where to look; a reject names file and line, also behind empty lines; twice is once."""
    path = file(message("a"), b"", b" \r", message("b") + b"\r", GARBAGE, message("c", content="\x00"), message("d"))
    assert desk("enqueue", path) == Ended(1, "3 accepted, 0 duplicate, 2 rejected\n", SOME_BAD)
    assert desk("enqueue", path) == Ended(1, "0 accepted, 3 duplicate, 2 rejected\n", SOME_BAD)
    assert column(db, JOBS) == ["a", "b", "d"]
    kept = rows(db, "SELECT source, position, raw FROM email_rejects ORDER BY id")
    assert kept == [("file", f"{path}:5", GARBAGE), ("file", f"{path}:6", message("c", content="\x00"))]


def test_standard_input_is_enqueued(desk: Desk, db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads lines from standard input, the last one with or without its line end."""
    lines = message("a") + b"\nnope\n" + message("b")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert desk("enqueue", "-") == Ended(1, "2 accepted, 0 duplicate, 1 rejected\n", SOME_BAD)
    assert column(db, JOBS) == ["a", "b"]
    assert value(db, "SELECT position FROM email_rejects") == "standard input:2"


@pytest.mark.parametrize("content", [b"", b"\n\r\n  \n"])
def test_an_empty_file_is_nothing_and_no_error(desk: Desk, content: bytes) -> None:
    """A producer that had nothing to say did nothing wrong."""
    assert desk("enqueue", file(content)) == Ended(0, "0 accepted, 0 duplicate, 0 rejected\n", "")


def test_a_file_that_cannot_be_read_is_named(desk: Desk, tmp_path: Path) -> None:
    """A missing file and a folder: one line with the name and the reason."""
    missing = tmp_path / "missing"
    assert complaint(desk("enqueue", missing)) == f"cannot read {missing}: No such file or directory"
    assert complaint(desk("enqueue", tmp_path)) == f"cannot read {tmp_path}: Is a directory"


def test_whoever_looks_on_sees_a_bar(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal a bar tells how far it is, and is gone at the end."""
    path = file(*(message(f"j-{n:04}") for n in range(2 * BATCH)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ended = desk("enqueue", path)
    _, half, whole, gone = ended.err.split("\r")
    assert half == "█" * 15 + "░" * 15 + "  50%  500 lines "
    assert whole == "█" * 30 + " 100%  1,000 lines "
    assert gone == "\x1b[K"


def test_rejects_are_listed_the_newest_first(desk: Desk, numbers: list[int]) -> None:
    """A table with number, place and reason; --most cuts it."""
    listed = desk("rejects", "list")
    head, *lines = listed.out.splitlines()
    assert head.split()[0] == "id"
    assert [int(line.split()[0]) for line in lines] == numbers[::-1]
    assert "email-jobs/0/1" in lines[1]
    assert lines[1].endswith('$.type: unknown email type "gift-card"; the known ones are in email_types')
    assert desk("rejects", "list", "--most", "1").out.splitlines()[1:] == lines[:1]
    assert (listed.status, listed.err) == (0, "")


def test_rejects_are_listed_for_programs(desk: Desk, numbers: list[int]) -> None:
    """One JSON object a line, with everything but the message itself."""
    listed = [json.loads(line) for line in desk("rejects", "list", "--json").out.splitlines()]
    assert [entry["id"] for entry in listed] == numbers[::-1]
    assert list(listed[-1]) == ["id", "received_at", "bytes", "source", "position", "error"]
    assert (listed[-1]["source"], listed[-1]["position"], listed[-1]["bytes"]) == (
        "kafka",
        "email-jobs/0/0",
        len(GARBAGE),
    )


def test_no_rejects_is_said(desk: Desk) -> None:
    """Nothing is in the list, and nothing is replayed, without an error; for programs there is no line."""
    assert desk("rejects", "list") == Ended(0, "no rejects\n", "")
    assert desk("rejects", "list", "--json") == desk("rejects", "replay", "--all") == Ended(0, "", "")


def test_a_reject_is_shown_with_its_message(desk: Desk, numbers: list[int]) -> None:
    """Where it came from, what is wrong, and the message; bytes that are no text are shown as escapes."""
    place, error, _, text = desk("rejects", "show", numbers[2]).out.splitlines()
    assert place.startswith("kafka email-jobs/0/2, received 20")
    assert error == "$: recipient_email must be one address, like ann@example.com"
    assert text.encode() == message("j-3", recipient={"email": "a@b..c"})
    assert desk("rejects", "show", numbers[0]).out.endswith("\x00\\xff not UTF-8\n")


def test_a_rejects_bytes_can_be_had_alone(numbers: list[int], database: Database) -> None:
    """--raw writes the message byte by byte and nothing else, for a file to be mended."""
    shown = subprocess.run(
        [sys.executable, "-m", "worker.cli", "rejects", "show", str(numbers[0]), "--raw"],
        env={**inherited(), "PYTHONPATH": str(ROOT), **database.environment()},
        capture_output=True,
        check=True,
    )
    assert (shown.stdout, shown.stderr) == (GARBAGE, b"")


def test_a_mended_reject_is_put_back(desk: Desk, db: Connection, numbers: list[int]) -> None:
    """--with FILE takes the place of what came; the job has the road it came by, and the reject is gone."""
    mended = file(message("j-3", subject="mended"), b"", name="mended.json")
    assert desk("rejects", "replay", numbers[2], "--with", mended) == Ended(0, f"{numbers[2]}: accepted\n", "")
    assert job(db, ["subject", "source"], "j-3") == ("mended", "kafka")
    assert column(db, REJECTS) == numbers[:2]


def test_all_are_put_back_that_can_be_jobs_now(desk: Desk, db: Connection, numbers: list[int]) -> None:
    """After its type was made the reject is a job; the others stay as they were, and are told with their reasons."""
    before = rows(db, "SELECT * FROM email_rejects WHERE id <> %s ORDER BY id", numbers[1])
    db.execute(
        "INSERT INTO email_types SELECT 'gift-card', category, queue, guarantee, priority, max_retries, opt_out, ''"
        " FROM email_types WHERE type = 'newsletter'"
    )
    ended = desk("rejects", "replay", "--all")
    lines = ended.out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(numbers[0]), "rejected again"],
        [str(numbers[1]), "accepted"],
        [str(numbers[2]), "rejected again"],
    ]
    assert lines[2].endswith("again: $: recipient_email must be one address, like ann@example.com")
    assert complaint(ended) == "2 of 3 still cannot become jobs, and stay where they are"
    assert rows(db, "SELECT * FROM email_rejects ORDER BY id") == before
    assert column(db, JOBS) == ["j-2"]


def test_a_reject_whose_job_is_there_is_done(desk: Desk, db: Connection, numbers: list[int]) -> None:
    """The producer has sent it again meanwhile: a duplicate, and no reject any more."""
    mended = file(message("j-9"))
    desk("enqueue", mended)
    assert desk("rejects", "replay", numbers[0], "--with", mended) == Ended(0, f"{numbers[0]}: duplicate\n", "")
    assert (column(db, REJECTS), column(db, JOBS)) == (numbers[1:], ["j-9"])


def test_a_reject_that_is_gone_does_not_stop_the_others(desk: Desk, db: Connection, numbers: list[int]) -> None:
    """Somebody else has put it back meanwhile, or a purge removed it."""
    db.execute("UPDATE email_rejects SET raw = %s WHERE id = %s", (message("j-2"), numbers[1]))
    ended = desk("rejects", "replay", 999, numbers[1])
    assert ended.out.splitlines()[0] == "999: it was put back already, or never there"
    assert ended.out.splitlines()[1] == f"{numbers[1]}: accepted"
    assert complaint(ended) == "1 of 2 numbers name no reject"


def test_a_mended_message_may_be_wrong_too(desk: Desk, db: Connection, numbers: list[int]) -> None:
    """The reject stays with its own bytes, and the new reason is told."""
    ended = desk("rejects", "replay", numbers[0], "--with", file(b"{}"))
    assert ended.out == f"{numbers[0]}: rejected again: $: the field id is missing\n"
    assert complaint(ended) == "1 of 1 still cannot become jobs, and stay where they are"
    assert value(db, "SELECT raw FROM email_rejects WHERE id = %s", numbers[0]) == GARBAGE
    assert column(db, REJECTS) == numbers


def test_a_wrong_rejects_command_is_told_in_a_line(
    desk: Desk, db: Connection, numbers: list[int], tmp_path: Path
) -> None:
    """A number that is not there, no number, a file that is not there or for too many: nothing has changed."""
    gone = "it was put back already, or never there"
    assert complaint(desk("rejects", "show", 999)) == f"there is no reject 999: {gone}"
    assert complaint(desk("rejects", "replay")) == "name the rejects' numbers, or --all"
    assert complaint(desk("rejects", "replay", numbers[0], "--all")) == "name the rejects' numbers, or --all"
    for some in ([], ["--all"], numbers[:2]):
        told = complaint(desk("rejects", "replay", *some, "--with", file(b"{}")))
        assert told == "--with FILE mends one reject: name its number"
    missing = tmp_path / "missing"
    told = complaint(desk("rejects", "replay", numbers[0], "--with", missing))
    assert told == f"cannot read {missing}: No such file or directory"
    assert column(db, REJECTS) == numbers


@pytest.mark.parametrize(
    "arguments", [("rejects", "show", "x"), ("rejects",), ("ingest", "offsets"), ("schema", "mail")]
)
def test_a_misspelt_command_is_status_2(desk: Desk, arguments: tuple[str, ...]) -> None:
    """The usage is shown."""
    ended = desk(*arguments)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("usage: email-worker")


def test_a_database_that_is_away_is_told_in_words(command: Command, database: Database) -> None:
    """Where it looked, and what to check, by each of these commands."""
    for arguments in (("enqueue", "-"), ("rejects", "list"), ("ingest", "offsets", "show")):
        ended = command(*arguments, **database.environment(DB_PORT=1))
        assert (ended.status, ended.out) == (1, "")
        assert ended.err.startswith("email-worker: cannot connect to Postgres at ")


def test_the_schemas_are_printed(command: Command) -> None:
    """The job's unless the event's is asked for, as JSON for whoever generates code; no database is needed."""
    assert json.loads(command("schema").out) == json.loads(command("schema", "job").out) == job_schema()
    assert json.loads(command("schema", "event").out) == event_schema()


def test_offsets_are_shown(desk: Desk, db: Connection) -> None:
    """Each partition with its next offset, as a table or for programs; before the first there is none."""
    assert desk("ingest", "offsets", "show") == Ended(0, "no ingestor has read from Kafka yet\n", "")
    assert desk("ingest", "offsets", "show", "--json") == Ended(0, "", "")
    read_on(db)
    head, *lines = desk("ingest", "offsets", "show").out.splitlines()
    assert head.split() == ["topic", "partition", "next_offset", "epoch", "updated_at", "topic_id"]
    assert [line.split()[:4] for line in lines][2] == ["email-jobs", "1", "1500", "0"]
    listed = [json.loads(line) for line in desk("ingest", "offsets", "show", "--json").out.splitlines()]
    assert [(entry["topic_id"], entry["partition"], entry["next_offset"]) for entry in listed] == OFFSETS
    assert set(listed[0]) == set(head.split())


def test_offsets_are_reset(desk: Desk, db: Connection) -> None:
    """All of a topic or one partition, to the beginning or elsewhere, with a new epoch; of the newest topic only."""
    read_on(db)
    reset = ("ingest", "offsets", "reset", "email-jobs")
    assert desk(*reset) == Ended(0, "email-jobs/0: from 17 to 0\nemail-jobs/1: from 1,500 to 0\n", "")
    assert desk(*reset, "--partition", 1, "--to", 70_000) == Ended(0, "email-jobs/1: from 0 to 70,000\n", "")
    assert rows(db, POSITIONS) == [("old", 0, 900, 0), ("new", 0, 0, 1), ("new", 1, 70_000, 2), ("x", 0, 3, 0)]


def test_a_wrong_reset_changes_nothing(desk: Desk, db: Connection) -> None:
    """A topic or a partition that nobody has read is told in a line."""
    read_on(db)
    before = rows(db, "SELECT * FROM ingest_offsets")
    for arguments, words in {
        ("no-such-topic",): 'no ingestor has read topic "no-such-topic"',
        ("email-jobs", "--partition", 7): 'no ingestor has read topic "email-jobs", partition 7',
    }.items():
        assert complaint(desk("ingest", "offsets", "reset", *arguments)).startswith(words)
    assert rows(db, "SELECT * FROM ingest_offsets") == before
