"""Erasing one person: nothing of them is left where we can reach, counts stay, and nobody writes to them again."""

import json
from base64 import b64encode

import psycopg
import pytest
from psycopg.types.json import Jsonb

from lab.redis import RedisServer
from lab.sink_process import Sink
from tests.integration.command import Command
from tests.integration.rows import Connection, column, insert_job, row, rows, value
from tests.support import Database, eventually, running_worker

ADDRESS = "Ann.Smith@Example.com"
NAME = "Ann Q. Smith"
LEFT = "SELECT how_many FROM email_erase(%s) WHERE is_left"


@pytest.fixture
def known(db: Connection) -> Connection:
    """A person in jobs, copies, attempts, events, rejects and suppressions; and a neighbour of a like name."""
    data = Jsonb({"bookingId": "b-1", "eventName": "Concert", "ticketCount": 1, "totalAmount": 1.0, "for": NAME})
    for job_id, address in (
        ("sent", ADDRESS),
        ("pending", "ann.smith@example.com"),
        ("neighbour", "joann.smith@example.com"),
    ):
        insert_job(db, job_id, recipient_email=address, recipient_name=NAME, recipient_user_id="u-1", data=data)
    insert_job(db, "copy", recipient_email="bob@example.com", options=Jsonb({"cc": [f"A <{ADDRESS}>"]}))
    db.execute("UPDATE email_jobs SET status = 'sent' WHERE job_id IN ('sent', 'copy')")
    db.execute(
        "INSERT INTO email_attempts (seq, attempt, provider, state, answer, worker)"
        " SELECT seq, 1, 'smtp', 'accepted', '<ann.smith@example.com> ok', 'w' FROM email_jobs WHERE job_id = 'sent'"
    )
    db.execute(
        "INSERT INTO email_tracking (job_id, event_type, event_data)"
        " SELECT id, 'sent', '{\"reason\": \"<ann.smith@example.com> ok\"}' FROM email_jobs WHERE status = 'sent'"
    )
    db.execute(
        "INSERT INTO email_rejects (source, position, raw, error) VALUES ('file', 'x/1', %s, 'no type')",
        (f'{{"recipient": {{"email": "{ADDRESS}"}}}}'.encode(),),
    )
    db.execute("SELECT email_suppress('ann.smith@example.com', 'complaint')")
    return db


def everything(db: Connection) -> str:
    """All that the database holds of mails, as one text."""
    tables = ("email_jobs", "email_attempts", "email_tracking", "email_suppressions")
    texts = [str(rows(db, f"SELECT t::text FROM {table} AS t WHERE true")) for table in tables]
    return "\n".join([*texts, str(rows(db, "SELECT encode(raw, 'escape'), error FROM email_rejects"))]).lower()


def test_nothing_is_left_of_a_person(known: Connection) -> None:
    """Their jobs have an end and no content; the copy's is gone too; the neighbour is untouched."""
    told = dict(rows(known, "SELECT what, how_many FROM email_erase(%s)", ADDRESS))
    left = everything(known).replace("joann.smith@example.com", "")
    assert "ann.smith" not in left
    assert dict(rows(known, "SELECT job_id, status::text FROM email_jobs")) == {
        "sent": "sent",
        "pending": "cancelled",
        "neighbour": "pending",
        "copy": "sent",
    }
    neighbour = row(known, "SELECT recipient_email, recipient_name FROM email_jobs WHERE job_id = 'neighbour'")
    assert neighbour == ("joann.smith@example.com", NAME)
    erased = "SELECT recipient_name, recipient_user_id, data, content FROM email_jobs WHERE job_id = 'sent'"
    assert row(known, erased) == (None, None, None, None)
    assert told == {
        "pending jobs cancelled": 1,
        "jobs without address, name, data and content now": 2,
        "jobs of others that mentioned the address, without those parts now": 1,
        "attempts": 1,
        "events": 2,
        "rejects without their message now": 1,
        "suppressions, kept under a hash": 1,
        "jobs in a worker's hands, or pending and mentioning the address; run it again": 0,
        "job_ids made of the address, NOT erased: other systems know the jobs by them": 0,
    }
    assert set(rows(known, "SELECT how_many, is_left FROM email_erase(%s)", ADDRESS)) == {(0, False), (0, True)}


def test_nobody_writes_to_an_erased_person_who_had_complained(
    known: Connection, database: Database, sink: Sink
) -> None:
    """The hash still stops their mail, and only theirs; a second complaint and a second erasure change nothing."""
    for _ in range(2):
        known.execute("SELECT email_erase(%s)", (ADDRESS,))
        known.execute("SELECT email_suppress('ann.smith@example.com', 'complaint')")
    known.execute("SELECT email_erase(%s)", (ADDRESS,))
    assert column(known, "SELECT right(address, 15) FROM email_suppressions") == ["@erased.invalid"]
    insert_job(known, "again", recipient_email="ANN.SMITH@example.com")
    with running_worker(database.environment(SMTP_PORT=sink.port)):
        eventually(lambda: rows(known, "SELECT 1 FROM email_jobs WHERE status = 'pending'") == [], "all end")
    assert value(known, "SELECT status FROM email_jobs WHERE job_id = 'again'") == "suppressed"
    assert value(known, "SELECT status FROM email_jobs WHERE job_id = 'neighbour'") == "sent"


def test_what_a_worker_holds_is_told_and_goes_the_next_time(known: Connection, database: Database) -> None:
    """Erasure never waits for a send."""
    with database.connect() as holder:
        holder.autocommit = False
        holder.execute("SELECT FROM email_jobs WHERE job_id = 'pending' FOR UPDATE")
        assert column(known, LEFT, ADDRESS) == [1]
    assert column(known, LEFT, ADDRESS) == [0]


def test_a_job_id_made_of_the_address_is_told(known: Connection) -> None:
    """It cannot go: the producer would not know the job again, and mail it anew."""
    insert_job(known, f"welcome:{ADDRESS}", recipient_email="bob@example.com")
    told = dict(rows(known, "SELECT what, how_many FROM email_erase(%s)", ADDRESS))
    assert [number for what, number in told.items() if what.startswith("job_ids")] == [1]


def test_the_command_reaches_redis_too(
    known: Connection, database: Database, command: Command, limits_redis: RedisServer
) -> None:
    """Dead letters and statuses there are gone; without --yes nothing is done."""
    client = limits_redis.client()
    client.rpush(limits_redis.dead_letters, '{"raw": "to ann.smith@example.com"}', '{"raw": "to bob@example.com"}')
    client.hset("email:job:sent", "status", "sent")
    environment = database.environment(**limits_redis.environment())
    refused = command("erase", ADDRESS, **environment)
    assert (refused.status, refused.err) == (1, "email-worker: this cannot be taken back: confirm it with --yes\n")
    ended = command("erase", ADDRESS, "--yes", **environment)
    assert ended.status == 0, ended
    assert f"       1  entries of Redis's list {limits_redis.dead_letters}" in ended.out
    assert "       1  statuses in Redis" in ended.out
    assert client.lrange(limits_redis.dead_letters, 0, -1) == ['{"raw": "to bob@example.com"}']
    assert not client.exists("email:job:sent")
    client.delete(limits_redis.dead_letters)
    client.close()
    assert command("erase", "nonsense", "--yes", **environment).status == 1


@pytest.mark.parametrize("address", ["ann@example.com", "jörg@example.com", "ann@münchen.example"])
def test_an_address_is_found_however_it_is_wrapped(
    db: Connection, database: Database, command: Command, limits_redis: RedisServer, address: str
) -> None:
    """JSON in JSON, with escapes or without, in Base64, behind a line break; in lists, a stream and rejects."""
    message = json.dumps({"id": "x", "type": "nope", "recipient": {"email": address}})
    plain = json.dumps({"recipient": {"email": address.upper()}}, ensure_ascii=False)
    entries = [
        json.dumps({"kind": "rejected", "message": message}),
        json.dumps({"kind": "rejected", "message": plain}, ensure_ascii=False),
        json.dumps({"kind": "rejected", "message_base64": b64encode(message.encode()).decode()}),
        json.dumps({"kind": "rejected", "message": json.dumps({"content": f"Dear\n{address}, hello"})}),
        f"no JSON: {address}",
    ]
    others = [json.dumps({"message": json.dumps({"email": f"joann{address}"})}), "{", '{"message_base64": "abc"}']
    client, stream = limits_redis.client(), limits_redis.jobs_stream
    client.rpush(limits_redis.dead_letters, *entries, *others)
    for text in (message, plain):
        client.xadd(stream, {"message": text})
    client.xgroup_create(stream, "somebody-else", id="$")
    environment = database.environment(**limits_redis.environment(), REDIS_STREAM_EMAIL_JOBS=stream)
    in_hand = f"{limits_redis.jobs_list}:taken:dead:1"
    client.rpush(in_hand, message)
    client.sadd(f"{limits_redis.jobs_list}:taken", in_hand)
    ended = command("erase", address, "--yes", **environment)
    assert f"       2  NOT erased: messages that wait in Redis's stream {stream}; run it again later" in ended.out
    assert f"       1  NOT erased: messages that wait in Redis's list {limits_redis.jobs_list}, or in a" in ended.out
    client.delete(in_hand, f"{limits_redis.jobs_list}:taken")
    client.rpush(limits_redis.dead_letters, *entries)
    client.xgroup_create(stream, "email-worker", id="0")
    client.xreadgroup("email-worker", "c", {stream: ">"}, count=1, noack=True)
    deep = json.dumps({"m": json.dumps({"of": message}), "M": f"no {address} here"})
    for number, text in enumerate((message, plain, deep)):
        db.execute(
            "INSERT INTO email_rejects (source, position, raw, error) VALUES ('f', %s, %s, 'e')",
            (str(number), text.encode()),
        )
    ended = command("erase", address, "--yes", **environment)
    assert (ended.status, ended.err) == (1, "")
    assert f"       5  entries of Redis's list {limits_redis.dead_letters}" in ended.out
    assert f"       1  entries of Redis's stream {stream}" in ended.out
    assert f"       1  NOT erased: messages that wait in Redis's stream {stream}; run it again later" in ended.out
    assert "       3  rejects without their message now" in ended.out
    assert client.lrange(limits_redis.dead_letters, 0, -1) == others
    client.xreadgroup("email-worker", "c", {stream: ">"}, count=1, noack=True)
    assert command("erase", address, "--yes", **environment).status == 0
    assert client.xlen(stream) == 0
    client.delete(limits_redis.dead_letters, stream)
    client.close()


@pytest.mark.parametrize("given", ["", " ", "a", "example.com", "ann@", "@example.com", "a b@example.com"])
def test_what_is_no_address_erases_nothing(known: Connection, given: str) -> None:
    """Not even by SQL: the rest would be somebody else's."""
    before = everything(known)
    with pytest.raises(psycopg.Error, match="is not an address"):
        known.execute("SELECT email_erase(%s)", (given,))
    assert everything(known) == before


def test_an_address_behind_a_line_break_is_found(known: Connection) -> None:
    """In JSON a line break is a letter; a longer address that ends like it is somebody else's."""
    reason = "550-no\nann.smith@example.com, and nann.smith@example.com"
    known.execute("UPDATE email_tracking SET event_data = jsonb_build_object('reason', %s::text)", (reason,))
    known.execute("SELECT email_erase(%s)", (ADDRESS,))
    (reason,) = set(column(known, "SELECT event_data ->> 'reason' FROM email_tracking WHERE event_type = 'sent'"))
    assert reason == "550-no\nerased, and nann.smith@example.com"


def test_an_erased_job_is_not_sent_again(known: Connection) -> None:
    """There is nobody to send it to."""
    known.execute("SELECT email_erase(%s)", (ADDRESS,))
    with pytest.raises(psycopg.Error, match="of a person who was erased"):
        known.execute("SELECT email_requeue('sent')")
    known.execute("UPDATE email_jobs SET status = 'dead' WHERE job_id = 'sent'")
    assert value(known, "SELECT email_requeue_dead()") == 0


def test_an_erased_suppression_lasts_as_long_as_the_longest_and_can_be_lifted(known: Connection) -> None:
    """Erased twice, the second time for good; email_unsuppress() finds the hash."""
    known.execute("UPDATE email_suppressions SET expires_at = now() + interval '1 hour'")
    known.execute("SELECT email_erase(%s)", (ADDRESS,))
    known.execute("SELECT email_suppress(%s, 'complaint')", (ADDRESS,))
    known.execute("SELECT email_erase(%s)", (ADDRESS,))
    assert column(known, "SELECT expires_at FROM email_suppressions") == [None]
    assert value(known, "SELECT email_unsuppress(%s)", ADDRESS) == 1
