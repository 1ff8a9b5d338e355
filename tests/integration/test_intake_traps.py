"""Traps of the intake: what was once accepted, reordered, quoted or deleted, and must not be."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.command import Command
from tests.integration.rows import Connection, column, insert_job, job, rows, value
from tests.support import Database
from worker import enqueue, intake
from worker.db import query
from worker.events import event_schema
from worker.intake import PORTION_BYTES, Received, Result, portions, size_of, store

# A few bytes each in jsonb, 131,072 as text.
LONG_AS_TEXT = '{"a": [' + ",".join(["1e131071"] * 900) + "]}"


def message(job_id: str = "j-1", **fields: object) -> bytes:
    """A complete message."""
    own = {"id": job_id, "type": "welcome-email", "recipient": {"email": "a@b.c"}}
    return json.dumps(own | fields).encode()


def numbered(*raws: bytes) -> list[Received]:
    """Messages with a position each."""
    return [Received(f"p/{number}", raw) for number, raw in enumerate(raws)]


def results(db: Connection, *raws: bytes) -> list[Result]:
    """What becomes of messages in one batch."""
    return [verdict.result for verdict in store(db, "kafka", numbered(*raws))]


def test_jobs_get_their_numbers_in_the_order_of_the_messages(db: Connection) -> None:
    """Also while nobody has counted what is in email_types, and the planner reads it another way round."""
    store(db, "kafka", numbered(*(message(f"j-{number}") for number in range(6))))
    assert column(db, "SELECT job_id FROM email_jobs ORDER BY seq") == [f"j-{number}" for number in range(6)]


def test_the_first_of_two_is_the_job(db: Connection) -> None:
    """The verdict and the row agree on which one came first."""
    assert results(db, message(subject="1"), message(subject="2")) == [Result.ACCEPTED, Result.DUPLICATE]
    assert job(db, ["subject"]) == ("1",)


def test_an_unknown_type_is_rejected_beside_the_same_job(db: Connection) -> None:
    """A message that cannot be a job is kept, whichever name it has."""
    assert results(db, message("a", type="nope"), message("a")) == [Result.REJECTED, Result.ACCEPTED]
    assert value(db, "SELECT count(*) FROM email_rejects") == 1


@pytest.mark.parametrize("moment", ["known_types", "store_jobs", "store_rejects"])
def test_a_type_that_is_added_meanwhile_loses_no_message(
    db: Connection, database: Database, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Whenever it comes: the message is a job or a reject, and never taken for one that was there before."""

    def query_beside_an_insert(name: str) -> bytes:
        if name == moment:
            with database.connect() as other:
                other.execute(
                    "INSERT INTO email_types (type, category, queue, guarantee, priority, description)"
                    " VALUES ('brand-new', 'booking', 'transactional', 'at_least_once', 'high', 'New.')"
                )
        return query(name)

    monkeypatch.setattr(intake, "query", query_beside_an_insert)
    (verdict,) = store(db, "file", numbered(message(type="brand-new")))
    accepted = moment == "known_types"
    assert verdict.result is (Result.ACCEPTED if accepted else Result.REJECTED)
    assert value(db, "SELECT count(*) FROM email_jobs") == accepted
    assert value(db, "SELECT count(*) FROM email_rejects") == (not accepted)


def test_mending_one_reject_leaves_the_others_alone(command: Command, db: Connection, tmp_path: Path) -> None:
    """--with is for the one number that is named; with --all it would put one message in the place of all."""
    store(db, "kafka", numbered(b"1", b"2", b"3"))
    (tmp_path / "mended").write_bytes(message("mended"))
    refused = command("rejects", "replay", "1", "--all", "--with", str(tmp_path / "mended"))
    assert (refused.status, "name its number" in refused.err) == (1, True)
    assert value(db, "SELECT count(*) FROM email_rejects") == 3


@pytest.mark.parametrize("field", ["name", "userId"])
def test_a_last_line_end_is_no_part_of_a_line(db: Connection, field: str) -> None:
    """A pattern's end is the text's end."""
    assert results(db, message(recipient={"email": "a@b.c", field: "u\n"})) == [Result.REJECTED]


def test_a_file_whose_name_is_no_text(database: Database, db: Connection, tmp_path: Path) -> None:
    """Its lines are stored, and their position is shown as well as can be."""
    name = os.fsdecode(b"\xff")
    (tmp_path / name).write_bytes(b"nope\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd(), **database.environment()}
    ended = subprocess.run(
        [sys.executable, "-m", "worker.cli", "enqueue", name], env=environment, cwd=tmp_path, capture_output=True
    )
    assert (ended.returncode, b"Traceback" in ended.stderr) == (1, False)
    assert column(db, "SELECT position FROM email_rejects") == ["?:1"]


@pytest.mark.parametrize("fields", [{"type": "a\nb"}, {"priority": "x" * 2_000_000}, {"campaignId": "-" * 35 + "\n"}])
def test_a_reason_is_one_short_line(db: Connection, fields: dict[str, Any]) -> None:
    """Whatever it quotes, a reason fits a table and a terminal."""
    (verdict,) = store(db, "kafka", numbered(message(**fields)))
    assert verdict.error.isprintable()
    assert len(verdict.error) <= 500


@pytest.mark.parametrize("more", [("--to", "9" * 20), ("--partition", "9" * 12), ("--to", "-1"), ("--to", "x")])
def test_a_number_out_of_range_is_a_mistake_of_the_command_line(
    command: Command, db: Connection, more: tuple[str, str]
) -> None:
    """It is refused with what it may be, before the database is asked."""
    refused = command("ingest", "offsets", "reset", "t", *more)
    assert (refused.status, "whole number" in refused.err) == (2, True)


def test_the_schema_says_that_occurred_at_is_a_time() -> None:
    """As the job's schema does of its times."""
    event = event_schema()["$defs"]["EventMessage"]["properties"]
    assert event["occurredAt"]["format"] == "date-time"


@pytest.mark.parametrize("field", ["data", "options"])
def test_numbers_that_are_long_as_text_do_not_stop_the_claim(db: Connection, field: str) -> None:
    """A document that no claim could read is refused, by every road, and when it is changed later."""
    document = LONG_AS_TEXT if field == "data" else '{"tags": [' + ",".join(['"t"'] * 2) + "], " + LONG_AS_TEXT[1:]
    raw = message("poison")[:-1] + f', "{field}": {document}}}'.encode()
    assert results(db, message("good"), raw) == [Result.ACCEPTED, Result.REJECTED]
    with pytest.raises(psycopg.errors.CheckViolation, match="must be under"):
        insert_job(db, "poison", **{field: document})
    with pytest.raises(psycopg.errors.CheckViolation, match="must be under"):
        db.execute(f"UPDATE email_jobs SET {field} = %s", [document])


def test_a_line_that_never_ends_is_one_reject(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of it no more is read at once than a message may have; the lines around it are jobs."""
    monkeypatch.setattr(enqueue, "LARGEST_BYTES", 1000)
    read: list[int] = []

    class Lines(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            read.append(len(line))
            return line

    endless = message("endless", content="x" * 20_000)
    lines = Lines(b"\n".join([message("before"), endless, message("after")]))
    counts = enqueue.enqueue_lines(db, lines, "f", lambda _: None)
    assert (counts["accepted"], counts["rejected"]) == (2, 1)
    assert column(db, "SELECT job_id FROM email_jobs ORDER BY seq") == ["before", "after"]
    assert rows(db, "SELECT position, length(raw) FROM email_rejects") == [("f:2", 1001)]
    assert max(read) == 1001


def test_a_file_is_held_a_portion_at_a_time(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large lines come a few at a time, and never more than some hundreds."""
    monkeypatch.setattr(intake, "PORTION_BYTES", 50_000)
    held: list[int] = []
    many = io.BytesIO(b"\n".join(message(f"j-{n}", content="x" * (20_000 if n < 9 else 1)) for n in range(700)))
    enqueue.enqueue_lines(db, many, "f", lambda progress: held.append(progress.counts.total()))
    steps = [after - before for before, after in zip([0, *held], held, strict=False)]
    assert steps[:3] == [3, 3, 3]
    assert max(steps) <= enqueue.BATCH


def test_large_messages_are_stored_a_few_at_a_time() -> None:
    """A portion is not much larger than it may be, and none is empty."""
    large = numbered(*(b"x" * (PORTION_BYTES // 3) for _ in range(10)))
    found = list(portions(large, size_of))
    assert [len(portion) for portion in found] == [4, 4, 2] or [len(portion) for portion in found] == [3, 3, 3, 1]
    assert [message for portion in found for message in portion] == large
