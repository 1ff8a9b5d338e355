"""Redis or Postgres is away: at the start, in the middle, and when the taker is asked to stop."""

import os
import signal
from typing import LiteralString

import pytest

from lab.postgres import PostgresServer
from tests.integration.rows import Connection, value
from tests.redis.site import Site, job_ids, jobs_locked, message
from tests.support import Worker, eventually
from worker.redis_client import STREAM_GROUP

BATCH = 4


def _names(count: int, prefix: str = "j") -> list[str]:
    return [f"{prefix}-{number}" for number in range(count)]


def _stop(taker: Worker, seconds: float = 30.0) -> None:
    taker.process.send_signal(signal.SIGTERM)
    assert taker.process.wait(seconds) == 0


def test_a_taker_that_starts_without_redis_works_when_it_comes(durable_site: Site, db: Connection) -> None:
    """Redis away at the start is a warning; the taker waits for it, and works as soon as it is there."""
    durable_site.server.embedded.stop()
    with durable_site.taker() as taker:
        eventually(lambda: "Redis is away" in taker.log_text(), "it says so")
        durable_site.server.embedded.start()
        durable_site.push(message("one"))
        eventually(lambda: job_ids(db) == ["one"], "it works")
        _stop(taker)
    assert durable_site.keys() == []


@pytest.mark.parametrize("harm", ["stop", "terminate"])
def test_a_restart_of_redis_costs_a_waiting_taker_nothing(durable_site: Site, db: Connection, harm: str) -> None:
    """Through a restart while it waits, and a death of Redis, the taker goes on with what Redis kept."""
    with durable_site.taker() as taker:
        durable_site.push(message("before"))
        eventually(lambda: job_ids(db) == ["before"], "it works")
        getattr(durable_site.server.embedded, harm)()
        durable_site.server.embedded.start()
        durable_site.push(message("after"))
        eventually(lambda: job_ids(db) == ["before", "after"], "it goes on")
        eventually(lambda: len(durable_site.heartbeats()) == 1, "its heart beats")
        _stop(taker)
    assert durable_site.keys() == []


def test_a_restart_of_redis_in_the_middle_of_a_batch_costs_nothing(durable_site: Site, db: Connection) -> None:
    """A batch that is committed while Redis is away is removed from Redis afterwards, and no job is there twice."""
    names = _names(10)
    durable_site.push(*map(message, names))
    with durable_site.taker(INGEST_BATCH_SIZE=BATCH) as taker:
        with jobs_locked(durable_site):
            eventually(lambda: len(durable_site.in_hand()) == BATCH, "a batch is taken")
            durable_site.server.embedded.terminate()
        eventually(lambda: len(job_ids(db)) == BATCH, "the batch is committed")
        durable_site.server.embedded.start()
        eventually(lambda: set(job_ids(db)) == set(names), "the rest is stored")
        eventually(lambda: durable_site.in_hand() == [], "nothing is in hand")
        _stop(taker)
    assert durable_site.keys() == []


def test_a_full_redis_is_emptied(durable_site: Site, db: Connection) -> None:
    """It takes no heartbeat and no dead letter; what stands in list and stream is stored all the same."""
    site, stream = durable_site, durable_site.server.jobs_stream
    site.push(*(message(name) for name in _names(20)), "no message")
    site.redis.xgroup_create(stream, STREAM_GROUP, id="0", mkstream=True)
    for name in _names(20, "s"):
        site.redis.xadd(stream, {"message": message(name)})
    site.redis.xadd(stream, {"message": "no message"})
    site.redis.config_set("maxmemory", "1")
    with site.taker(INGEST_BATCH_SIZE=BATCH, REDIS_STREAM_EMAIL_JOBS=stream) as taker:
        eventually(lambda: len(job_ids(db)) == 40, "all jobs are stored")
        eventually(lambda: value(db, "SELECT count(*) FROM email_rejects") == 2, "rejects are in Postgres")
        eventually(lambda: site.backlog() == 0 and site.in_hand() == [], "nothing is left in the list")
        eventually(lambda: site.redis.xpending(stream, STREAM_GROUP)["pending"] == 0, "nothing is left in the stream")
        assert "Redis is full" in taker.log_text()
        site.redis.config_set("maxmemory", "0")
        eventually(lambda: len(site.heartbeats()) == 1, "it beats again")
        site.push("no message again")
        eventually(lambda: len(site.dead_letters()) == 1, "and tells of rejects again")
        _stop(taker)


def test_a_taker_can_be_stopped_while_redis_is_away(durable_site: Site, db: Connection) -> None:
    """SIGTERM ends a taker with status 0 although there is no Redis to say goodbye to."""
    with durable_site.taker() as taker:
        durable_site.push(message("one"))
        eventually(lambda: job_ids(db) == ["one"], "it works")
        durable_site.server.embedded.terminate()
        eventually(lambda: "Redis is away" in taker.log_text(), "it notices")
        _stop(taker)


def test_a_taker_can_be_stopped_while_redis_hangs(durable_site: Site, db: Connection) -> None:
    """SIGTERM ends a taker with status 0 although Redis takes what it is told and answers nothing."""
    with durable_site.taker() as taker:
        durable_site.push(message("one"))
        eventually(lambda: job_ids(db) == ["one"], "it works")
        process = durable_site.redis.info("server")["process_id"]
        os.kill(process, signal.SIGSTOP)
        try:
            taker.process.send_signal(signal.SIGTERM)
            # A subprocess.TimeoutExpired is what fails here.
            assert taker.process.wait(30) == 0
        finally:
            os.kill(process, signal.SIGCONT)


def test_without_postgres_nothing_is_taken_beyond_one_batch(frail_site: Site, frail_postgres: PostgresServer) -> None:
    """While Postgres is away the backlog stays in Redis, where operators see it; afterwards everything is stored."""
    names = _names(20)
    with frail_site.taker(INGEST_BATCH_SIZE=BATCH) as taker:
        eventually(frail_site.heartbeats, "it lives")
        frail_postgres.kill()
        frail_site.push(*map(message, names))
        # It may have been waiting for the first one.
        eventually(lambda: "Postgres is away" in taker.log_text(), "it notices")
        in_hand = frail_site.in_hand()
        assert len(in_hand) in (BATCH, BATCH + 1)
        eventually(lambda: taker.log_text().count("Postgres is away") >= 3, "it tries again")
        assert frail_site.in_hand() == in_hand
        assert frail_site.backlog() == len(names) - len(in_hand)
        frail_postgres.start()
        with frail_site.database.connect() as db:
            eventually(lambda: set(job_ids(db)) == set(names), "all are stored")
        eventually(lambda: frail_site.in_hand() == [], "nothing is in hand")
        _stop(taker)
    assert frail_site.keys() == []


def test_a_restart_of_postgres_is_noticed_by_nobody(frail_site: Site, frail_postgres: PostgresServer) -> None:
    """A taker whose connection Postgres ended stores the next messages over a new one."""
    with frail_site.taker() as taker, frail_site.database.connect() as db:
        frail_site.push(message("before"))
        eventually(lambda: job_ids(db) == ["before"], "it works")
        frail_postgres.restart("immediate")
        frail_site.push(message("after"))
        with frail_site.database.connect() as again:
            eventually(lambda: set(job_ids(again)) == {"before", "after"}, "it goes on")
        _stop(taker)
    assert frail_site.keys() == []


def test_what_a_taker_stopped_without_postgres_had_in_hand_waits_for_the_next(
    frail_site: Site, frail_postgres: PostgresServer
) -> None:
    """SIGTERM without Postgres ends a taker with status 0; its batch stays, and the next taker need not wait for it."""
    names = _names(BATCH)
    with frail_site.taker(INGEST_BATCH_SIZE=BATCH) as taker:
        eventually(frail_site.heartbeats, "it lives")
        frail_postgres.kill()
        frail_site.push(*map(message, names))
        eventually(lambda: "Postgres is away" in taker.log_text(), "it notices")
        _stop(taker)
    assert frail_site.heartbeats() == []
    assert {*frail_site.in_hand(), *frail_site.redis.lrange(frail_site.jobs, 0, -1)} == set(map(message, names))
    frail_postgres.start()
    with frail_site.taker() as taker, frail_site.database.connect() as db:
        eventually(lambda: set(job_ids(db)) == set(names), "the next one stores it")
        eventually(lambda: frail_site.in_hand() == [], "nothing is in hand")
        _stop(taker)
    assert frail_site.keys() == []


def test_a_taker_can_be_stopped_while_postgres_is_frozen(frail_site: Site, frail_postgres: PostgresServer) -> None:
    """SIGTERM ends a taker with status 0 although Postgres answers nothing; the next one stores what it had in hand."""
    with frail_site.taker() as taker, frail_site.database.connect() as db:
        frail_site.push(message("before"))
        eventually(lambda: job_ids(db) == ["before"], "it works")
        frail_postgres.freeze()
        frail_site.push(message("job"))
        eventually(frail_site.in_hand, "it has something in hand")
        _stop(taker)
        frail_postgres.thaw()
    with frail_site.taker() as taker, frail_site.database.connect() as db:
        eventually(lambda: set(job_ids(db)) == {"before", "job"}, "the next one stores it")
        eventually(lambda: frail_site.in_hand() == [], "nothing is in hand")
        _stop(taker)
    assert frail_site.keys() == []


NO_SCHEMA = "ALTER TABLE email_schema RENAME TO not_yet", "ALTER TABLE not_yet RENAME TO email_schema"
TOO_NEW = (
    "INSERT INTO email_schema (name, checksum) VALUES ('9999_of_tomorrow.sql', '')",
    "DELETE FROM email_schema WHERE name = '9999_of_tomorrow.sql'",
)


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [(*NO_SCHEMA, "Run: email-worker migrate"), (*TOO_NEW, "Run that version, or a newer one.")],
)
def test_a_database_with_another_schema_is_one_line(
    site: Site, db: Connection, spoil: LiteralString, mend: LiteralString, words: str
) -> None:
    """The taker ends with what to do before it takes anything, and the message stays for the next one."""
    db.execute(spoil)
    site.push(message("waits"))
    with site.taker() as taker:
        assert taker.process.wait(30) == 1
        text = taker.log_text()
    said = [line for line in text.splitlines() if line.startswith("redis_ingest: ")]
    assert len(said) == 1
    assert said[0].endswith(words)
    assert "Traceback" not in text
    assert site.in_hand() == []
    db.execute(mend)
    with site.taker():
        eventually(lambda: job_ids(db) == ["waits"], "the next taker has it")
