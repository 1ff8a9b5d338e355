"""The intake: each message of a batch becomes a job or a reject, or was there before; what one is costs no other."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest

from tests.integration.rows import Connection, column, job, row, rows, value
from tests.support import Database, eventually
from worker.intake import Received, Result, Verdict, store
from worker.message import read_or_error

ACCEPTED, DUPLICATE = Verdict(Result.ACCEPTED), Verdict(Result.DUPLICATE)
JOBS = "SELECT job_id FROM email_jobs ORDER BY length(job_id), job_id"
WAITS = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
CAMPAIGN = "0d1f7f6e-95e2-4b0f-8d3a-3a2f0c9b5e11"


def message(job_id: str = "j-1", **fields: Any) -> bytes:
    """A small message; further fields as given."""
    recipient = {"email": "ann@example.com"}
    return json.dumps({"id": job_id, "type": "welcome-email", "recipient": recipient} | fields).encode()


def numbered(*raws: bytes) -> list[Received]:
    """Messages that stand one behind the other."""
    return [Received(f"somewhere/0/{number}", raw) for number, raw in enumerate(raws)]


def rejected(words: str) -> Verdict:
    """Rejected with these words."""
    return Verdict(Result.REJECTED, words)


LEFT = "SELECT (SELECT count(*) FROM email_jobs) + (SELECT count(*) FROM email_rejects)"
BATCH = numbered(message("a"), b"nope", message("b", content="\x00"))


@pytest.fixture
def tx(shared_db: Connection) -> Iterator[Connection]:
    """A connection in the midst of a caller's transaction, which is rolled back in the end."""
    with shared_db.transaction(force_rollback=True):
        yield shared_db


# What the reader lets pass and the database refuses, and the words.
NUL = "$: a NUL character (\\u0000) cannot be stored"
ADDRESS = "$: recipient_email must be one address, like ann@example.com"
YEARS = "must lie between the years 2000 and 2100"
ONLY_THE_DATABASE: dict[str, tuple[dict[str, Any], str]] = {
    "NUL in content": ({"content": "a\x00b"}, NUL),
    "NUL in data": ({"data": {"a": "\x00"}}, NUL),
    "NUL in the name of an unknown field": ({"later": {"\x00": 1}}, NUL),
    "two dots": ({"recipient": {"email": "a@b..c"}}, ADDRESS),
    "a C1 control in the address": ({"recipient": {"email": "a\x80@b.c"}}, ADDRESS),
    "no UUID": ({"campaignId": "-" * 36}, f'$: invalid input syntax for type uuid: "{"-" * 36}"'),
    "due in 9999": ({"scheduledAt": "9999-12-31T23:59:59Z"}, f"$: scheduled_at {YEARS}"),
    "expires in the year 0": ({"expiresAt": "0001-01-01T00:00:00+14:00"}, f"$: expires_at {YEARS}"),
    "data of 1 MB": ({"data": {"a": "x" * 1_000_000}}, "$: data must be under 1 MB"),
    "content of 1 MB": ({"content": "é" * 500_001}, "$: content must be under 1 MB"),
}


def test_each_message_has_its_own_verdict(tx: Connection) -> None:
    """Accepted, duplicate and rejected stand in one answer, in the order of the messages."""
    store(tx, "file", numbered(message("old")))
    batch = numbered(message("new"), b"{", message("old"), message("other", type="nope"), message("last"))
    assert store(tx, "file", batch) == [
        ACCEPTED,
        rejected("not JSON: Input data was truncated"),
        DUPLICATE,
        rejected('$.type: unknown email type "nope"; the known ones are in email_types'),
        ACCEPTED,
    ]
    assert column(tx, JOBS) == ["new", "old", "last"]
    assert column(tx, "SELECT position FROM email_rejects ORDER BY id") == ["somewhere/0/1", "somewhere/0/3"]


def test_nothing_is_no_batch(tx: Connection) -> None:
    """No messages, no verdicts, and no row."""
    assert store(tx, "file", []) == []
    assert value(tx, LEFT) == 0


def test_a_job_has_what_its_message_says(tx: Connection) -> None:
    """Every field reaches its column; unknown fields and the road that it came by stand beside them."""
    given: dict[str, Any] = {
        "template": "welcome-vip",
        "recipient": {"email": "ann@example.com", "name": 'Ann "A" \\ {B}, é', "userId": "u-1", "phone": "1"},
        "data": {"quote": '"\\{},NULL', "n": [1, None, 2.5]},
        "priority": "low",
        "scheduledAt": "2030-01-01T10:00:00+02:00",
        "expiresAt": "2030-01-02T10:00:00.5Z",
        "retryCount": 2,
        "maxRetries": 0,
        "locale": "pt-BR",
        "subject": "Olá",
        "content": "<p>{a,b}</p>\r\n",
        "campaignId": CAMPAIGN,
        "options": {"cc": ["bo@example.com"]},
        "trace": {"id": 1},
    }
    assert store(tx, "redis-stream", numbered(message("j-1", **given))) == [ACCEPTED]
    columns = {
        "type": "welcome-email",
        "template": "welcome-vip",
        "recipient_email": "ann@example.com",
        "recipient_name": 'Ann "A" \\ {B}, é',
        "recipient_user_id": "u-1",
        "retry_count": 2,
        "max_retries": 0,
        "campaign_id": UUID(CAMPAIGN),
        "source": "redis-stream",
        "extra": {"trace": {"id": 1}, "recipient": {"phone": "1"}},
    } | {name: given[name] for name in ("data", "priority", "locale", "subject", "content", "options")}
    assert job(tx, [*columns]) == tuple(columns.values())
    due, expires, next_attempt = job(tx, ["scheduled_at", "expires_at", "next_attempt_at"])
    assert due == next_attempt == datetime.fromisoformat("2030-01-01T08:00:00Z")
    assert expires == datetime.fromisoformat("2030-01-02T10:00:00.5Z")


def test_what_a_message_leaves_out_comes_from_its_type(tx: Connection) -> None:
    """Queue, guarantee and priority are the type's, the generic type is the template's name; the rest is empty."""
    batch = numbered(message("a", type="newsletter"), message("b", type="email", template="password-reset"))
    assert store(tx, "kafka", batch) == [ACCEPTED, ACCEPTED]
    policy = ["type", "template", "queue", "guarantee", "priority"]
    assert job(tx, policy, "a") == ("newsletter", "newsletter", "bulk", "at_most_once", "low")
    assert job(tx, policy, "b") == ("password-reset", "password-reset", "transactional", "at_least_once", "critical")
    empty = ["recipient_name", "recipient_user_id", "max_retries", "locale", "options", "extra", "expires_at"]
    assert job(tx, empty, "a") == (None,) * len(empty)
    assert job(tx, ["data", "retry_count", "status", "source"], "a") == ({}, 0, "pending", "kafka")


def test_the_same_job_twice_in_a_batch_is_one_row(tx: Connection) -> None:
    """One is accepted and the others are duplicates, also where another message has the batch stored in halves."""
    assert store(tx, "file", numbered(message("j"), message("j"), message("j"))) == [ACCEPTED, DUPLICATE, DUPLICATE]
    bad = message("bad", content="\x00")
    again = numbered(message("k"), bad, message("k"), message("l"), message("j"), message("k"))
    assert store(tx, "file", again) == [ACCEPTED, rejected(NUL), DUPLICATE, ACCEPTED, DUPLICATE, DUPLICATE]
    assert column(tx, JOBS) == ["j", "k", "l"]


def test_a_bad_message_does_not_use_up_its_job_id(tx: Connection) -> None:
    """The job that a mended message names in the same batch is accepted."""
    bad, good = message("j", content="\x00"), message("j")
    assert store(tx, "file", numbered(bad, good, bad, good)) == [rejected(NUL), ACCEPTED, rejected(NUL), DUPLICATE]


@pytest.mark.parametrize("case", ONLY_THE_DATABASE)
def test_what_only_the_database_refuses_costs_no_other(tx: Connection, case: str) -> None:
    """One such message among good ones is kept as it came, in words and without the row; the others are jobs."""
    fields, words = ONLY_THE_DATABASE[case]
    bad = message("bad", **fields)
    good = [message(f"j-{n}") for n in range(6)]
    assert store(tx, "file", numbered(*good[:3], bad, *good[3:])) == [ACCEPTED] * 3 + [rejected(words)] + [ACCEPTED] * 3
    assert column(tx, JOBS) == [f"j-{n}" for n in range(6)]
    assert row(tx, "SELECT position, raw, error FROM email_rejects") == ("somewhere/0/3", bad, words)


def test_many_that_only_the_database_refuses(tx: Connection) -> None:
    """Every third of 300 is refused; each good one is a job, each bad one a reject with its own reason."""
    cases = list(ONLY_THE_DATABASE.values())[:8]
    bad = {n: cases[n // 3 % len(cases)] for n in range(0, 300, 3)}
    batch = [message(f"j-{n}", **(bad[n][0] if n in bad else {})) for n in range(300)]
    assert store(tx, "file", numbered(*batch)) == [rejected(bad[n][1]) if n in bad else ACCEPTED for n in range(300)]
    assert column(tx, JOBS) == [f"j-{n}" for n in range(300) if n not in bad]
    assert column(tx, "SELECT raw FROM email_rejects ORDER BY id") == batch[::3]


@pytest.mark.parametrize("raw", [b"", b"\x00\xff\xfe", b'{"id":"\xff"}', bytes(range(256)), b"x" * 5_000_000])
def test_rejects_are_kept_byte_by_byte(tx: Connection, raw: bytes) -> None:
    """Whatever came, text or not, is there to be looked at, with its source, its place and the reason."""
    (verdict,) = store(tx, "kafka", [Received("email-jobs/3/17", raw)])
    kept = row(tx, "SELECT source, position, raw, error, received_at <= clock_timestamp() FROM email_rejects")
    assert kept == ("kafka", "email-jobs/3/17", raw, verdict.error, True)


def test_the_same_reject_again_is_one_row(tx: Connection) -> None:
    """The same bytes from the same place, in one batch or in the next; another place or source is another reject."""
    for _ in range(2):
        batch = [Received("p", b"x"), Received("p", b"x"), Received("p", b"y"), Received("q", b"x")]
        assert {verdict.result for verdict in store(tx, "kafka", batch)} == {Result.REJECTED}
    store(tx, "redis", [Received("p", b"x")])
    kept = rows(tx, "SELECT source, position, raw FROM email_rejects ORDER BY id")
    assert kept == [("kafka", "p", b"x"), ("kafka", "p", b"y"), ("kafka", "q", b"x"), ("redis", "p", b"x")]


def test_readings_can_be_made_beforehand(tx: Connection) -> None:
    """A caller that has read the messages while another batch was stored hands the readings over."""
    batch = numbered(message("a"), b"nope")
    readings = [read_or_error(received.raw) for received in batch]
    assert store(tx, "kafka", batch, readings) == [ACCEPTED, rejected(str(readings[1]))]
    assert column(tx, "SELECT raw FROM email_rejects") == [b"nope"]


def test_all_is_in_the_callers_transaction(db: Connection) -> None:
    """Rolled back, neither jobs nor rejects are left, and the same batch is as new; committed, both are there."""
    with db.transaction(force_rollback=True):
        store(db, "kafka", BATCH)
        assert value(db, LEFT) == 3
    assert value(db, LEFT) == 0
    with db.transaction():
        assert [verdict.result for verdict in store(db, "kafka", BATCH)] == ["accepted", "rejected", "rejected"]
    assert value(db, LEFT) == 3


@pytest.mark.parametrize("first_commits", [True, False], ids=["the first commits", "the first rolls back"])
def test_the_same_job_from_two_open_transactions_is_one_row(
    db: Connection, database: Database, first_commits: bool
) -> None:
    """The second waits for the first, and is a duplicate only if there is something to be a duplicate of."""
    with database.connect() as one, database.connect() as other, ThreadPoolExecutor(1) as thread:
        one.execute("BEGIN")
        assert store(one, "kafka", numbered(message())) == [ACCEPTED]
        waiting = thread.submit(store, other, "redis", numbered(message(), message("j-2")))
        eventually(lambda: value(db, WAITS, other.info.backend_pid), "the second waits")
        one.execute("COMMIT" if first_commits else "ROLLBACK")
        assert waiting.result() == [DUPLICATE if first_commits else ACCEPTED, ACCEPTED]
    sources = rows(db, "SELECT job_id, source FROM email_jobs ORDER BY job_id")
    assert sources == [("j-1", "kafka" if first_commits else "redis"), ("j-2", "redis")]


def test_many_roads_bring_the_same_jobs(db: Connection, database: Database) -> None:
    """Four that store the same 200 jobs at once accept each job once in all, and keep the same reject once."""
    batches = [numbered(b"nope", *(message(f"j-{b}-{n}") for n in range(50))) for b in range(4)]

    def bring(_: int) -> list[Verdict]:
        with database.connect() as connection:
            return [verdict for batch in batches for verdict in store(connection, "kafka", batch)]

    with ThreadPoolExecutor(4) as threads:
        verdicts = [verdict.result for some in threads.map(bring, range(4)) for verdict in some]
    assert (verdicts.count(Result.ACCEPTED), verdicts.count(Result.DUPLICATE)) == (200, 600)
    assert (value(db, "SELECT count(*) FROM email_jobs"), value(db, "SELECT count(*) FROM email_rejects")) == (200, 1)


@pytest.mark.parametrize("table", ["email_jobs", "email_types", "email_rejects"])
def test_a_locked_table_is_no_messages_fault(
    shared_db: Connection, module_database: Database, table: LiteralString
) -> None:
    """The error comes to the caller, nothing of the batch is left, and with the lock gone it is stored as ever."""
    with module_database.connect() as keeper, keeper.transaction():
        keeper.execute(f"LOCK TABLE {table}")
        shared_db.execute("SET lock_timeout = '20ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            store(shared_db, "kafka", BATCH)
    shared_db.execute("RESET lock_timeout")
    assert value(shared_db, LEFT) == 0
    with shared_db.transaction(force_rollback=True):
        assert [verdict.result for verdict in store(shared_db, "kafka", BATCH)] == ["accepted", "rejected", "rejected"]


def test_a_lost_connection_is_no_messages_fault(shared_db: Connection, module_database: Database) -> None:
    """Cut off in the middle of a batch the caller has the error, and no row is left."""
    with (
        module_database.connect() as keeper,
        module_database.connect() as lost,
        ThreadPoolExecutor(1) as thread,
        keeper.transaction(),
    ):
        keeper.execute("LOCK TABLE email_rejects")
        waiting = thread.submit(store, lost, "kafka", BATCH)
        eventually(lambda: value(shared_db, WAITS, lost.info.backend_pid), "the jobs are in, the rejects wait")
        shared_db.execute("SELECT pg_terminate_backend(%s, 10000)", (lost.info.backend_pid,))
        with pytest.raises(psycopg.OperationalError):
            waiting.result()
    assert value(shared_db, LEFT) == 0


def test_a_deadlock_is_no_messages_fault(shared_db: Connection, module_database: Database) -> None:
    """Two callers that bring the same jobs in opposite order: one has the error, the other its jobs."""
    with module_database.connect() as one, module_database.connect() as other, ThreadPoolExecutor(1) as thread:
        one.execute("BEGIN")
        other.execute("BEGIN")
        other.execute("SET LOCAL deadlock_timeout = '10ms'")
        assert store(one, "kafka", numbered(message("a"))) == store(other, "redis", numbered(message("b")))
        waiting = thread.submit(store, one, "kafka", numbered(message("b")))
        eventually(lambda: value(shared_db, WAITS, one.info.backend_pid), "the first waits for the second")
        with pytest.raises(psycopg.errors.DeadlockDetected):
            store(other, "redis", numbered(b"nope", message("a")))
        other.execute("ROLLBACK")
        assert waiting.result() == [ACCEPTED]
        assert rows(one, "SELECT job_id, source FROM email_jobs ORDER BY job_id") == [("a", "kafka"), ("b", "kafka")]
        one.execute("ROLLBACK")
    assert value(shared_db, LEFT) == 0
