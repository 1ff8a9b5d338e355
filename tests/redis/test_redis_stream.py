"""The stream: acknowledged when stored, claimed when abandoned, whatever its producers do to it meanwhile."""

import json
import signal
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from redis_ingest import stream_road
from redis_ingest.stream_road import Entry, StreamRoad
from tests.integration.rows import Connection, rows, value
from tests.redis.site import Site, job_ids, jobs_locked, message, rejects
from tests.support import eventually
from worker.intake import PORTION_BYTES
from worker.redis_client import STREAM_GROUP


@pytest.fixture
def road(site: Site) -> Iterator[StreamRoad]:
    """A consumer in this process, member of the group, that waits no time at all for entries."""
    with _consumer(site) as road:
        yield road


@contextmanager
def _consumer(site: Site, **overrides: object) -> Iterator[StreamRoad]:
    road = site.stream_road(**overrides)
    with road._membership():
        yield road
    road._leave()


@pytest.fixture
def abandoned_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another consumer has read is taken for abandoned at once."""
    monkeypatch.setattr(stream_road, "ABANDONED_SECONDS", 0.0)


def _add(site: Site, *messages: str) -> list[str]:
    return [site.redis.xadd(site.server.jobs_stream, {"message": text}) for text in messages]


def _pending(site: Site) -> int:
    return int(site.redis.xpending(site.server.jobs_stream, STREAM_GROUP)["pending"])


def _consumers(site: Site) -> list[str]:
    return [consumer["name"] for consumer in site.redis.xinfo_consumers(site.server.jobs_stream, STREAM_GROUP)]


def _read_and_die(site: Site, count: int) -> None:
    """A consumer that reads so many entries and is never heard of again."""
    site.redis.xreadgroup(STREAM_GROUP, "dead", {site.server.jobs_stream: ">"}, count=count)


def test_entries_become_jobs_and_are_acknowledged(site: Site, db: Connection) -> None:
    """A running taker stores what stood in the stream before it came and what comes later; the entries stay."""
    stream = site.server.jobs_stream
    _add(site, message("early"), message("early"))
    with site.taker(REDIS_STREAM_EMAIL_JOBS=stream) as taker:
        eventually(lambda: job_ids(db) == ["early"], "what was there is stored")
        _add(site, *(message(f"j-{number}") for number in range(20)))
        site.push(message("by-list"))
        eventually(lambda: value(db, "SELECT count(*) FROM email_jobs") == 22, "what comes is stored")
        eventually(lambda: _pending(site) == 0, "all are acknowledged")
        taker.process.send_signal(signal.SIGTERM)
        assert taker.process.wait(30) == 0, taker.log_text()
    assert rows(db, "SELECT source, count(*) FROM email_jobs GROUP BY source ORDER BY source") == [
        ("redis", 1),
        ("redis-stream", 21),
    ]
    assert site.redis.xlen(stream) == 22
    assert _consumers(site) == []


def test_an_entry_is_acknowledged_after_the_commit(site: Site, db: Connection) -> None:
    """While the transaction is open the entry is pending; a kill then leaves it so."""
    _add(site, message("one"))
    with site.taker(REDIS_STREAM_EMAIL_JOBS=site.server.jobs_stream) as taker, jobs_locked(site):
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        eventually(lambda: value(db, waits), "its statement waits")
        assert _pending(site) == 1
        taker.process.kill()
        taker.process.wait()
    assert job_ids(db) == []
    assert _pending(site) == 1


@pytest.mark.usefixtures("abandoned_at_once")
def test_what_a_dead_consumer_read_is_stored_by_another(site: Site, db: Connection) -> None:
    """All that was read and never acknowledged is claimed, batch by batch, and stored."""
    with _consumer(site, INGEST_BATCH_SIZE=2) as road:
        _add(site, *(message(f"j-{number}") for number in range(7)))
        _read_and_die(site, 7)
        road._claim_abandoned()
        assert set(job_ids(db)) == {f"j-{number}" for number in range(7)}
        assert _pending(site) == 0


def test_the_living_keep_what_they_read(site: Site, db: Connection, road: StreamRoad) -> None:
    """What another consumer has read a moment ago is its own."""
    _add(site, message("one"))
    _read_and_die(site, 1)
    road._claim_abandoned()
    assert job_ids(db) == []
    assert _pending(site) == 1


def test_a_batch_has_as_many_entries_as_memory_allows(site: Site, road: StreamRoad) -> None:
    """Large ones come a few at a time, read or claimed: a count alone could be more than a container may hold."""
    large = message("large", content="x" * (PORTION_BYTES // 3))
    _add(site, *[large] * 7)
    assert [len(road._entries()) for _ in range(4)] == [3, 3, 1, 0]


@pytest.mark.usefixtures("abandoned_at_once")
def test_abandoned_entries_are_claimed_as_many_as_memory_allows(
    site: Site, db: Connection, road: StreamRoad, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And all of them in the end."""
    monkeypatch.setattr(stream_road, "PORTION_BYTES", 3000)
    _add(site, *(message(f"j-{number}", content="x" * 1000) for number in range(7)))
    _read_and_die(site, 7)
    batches: list[int] = []
    store = road._store

    def count_and_store(entries: Sequence[Entry]) -> None:
        batches.append(len(entries))
        store(entries)

    monkeypatch.setattr(road, "_store", count_and_store)
    road._claim_abandoned()
    assert len(job_ids(db)) == 7
    assert max(batches) == 3


@pytest.mark.usefixtures("abandoned_at_once")
def test_entries_deleted_meanwhile_do_not_stop_the_others(site: Site, db: Connection, road: StreamRoad) -> None:
    """Entries that were read, abandoned and then deleted are forgotten; their neighbours are stored."""
    identities = _add(site, *(message(f"j-{number}") for number in range(6)))
    _read_and_die(site, 6)
    site.redis.xdel(site.server.jobs_stream, *identities[::2])
    road._claim_abandoned()
    assert set(job_ids(db)) == {"j-1", "j-3", "j-5"}
    assert _pending(site) == 0


@pytest.mark.usefixtures("abandoned_at_once")
def test_a_trimmed_stream_leaves_no_open_entries(site: Site, db: Connection, road: StreamRoad) -> None:
    """Trimmed to nothing while entries are open, the stream goes on with the next ones."""
    _add(site, message("gone"), message("gone-too"))
    _read_and_die(site, 1)
    site.redis.xtrim(site.server.jobs_stream, maxlen=0, approximate=False)
    road._claim_abandoned()
    assert _pending(site) == 0
    _add(site, message("next"))
    road._turn()
    assert job_ids(db) == ["next"]
    assert _pending(site) == 0


def test_an_entry_without_fields_left_is_acknowledged(site: Site, db: Connection, road: StreamRoad) -> None:
    """As Redis 6 tells of deleted entries: an identity and nothing more; there is nothing to store."""
    kept, gone = _add(site, message("kept"), message("gone"))
    _read_and_die(site, 2)
    road._store([(kept.encode(), {b"message": message("kept").encode()}), (gone.encode(), None)])
    assert job_ids(db) == ["kept"]
    assert _pending(site) == 0


def test_the_message_is_the_field_of_that_name_or_the_only_one(site: Site, db: Connection, road: StreamRoad) -> None:
    """Beside others the field `message` counts; a field that is alone may have any name."""
    stream = site.server.jobs_stream
    site.redis.xadd(stream, {"trace": "t-1", "message": message("named"), "at": "now"})
    site.redis.xadd(stream, {"job": message("alone")})
    road._turn()
    assert set(job_ids(db)) == {"named", "alone"}
    assert rejects(db) == []


def test_entries_that_cannot_be_jobs_are_kept_and_told(site: Site, db: Connection) -> None:
    """Several fields without a message, and what is no job, are rejects with the entry's id, and dead letters."""
    stream = site.server.jobs_stream
    with _consumer(site, REDIS_DEAD_LETTERS_KEPT=2) as road:
        identities = [
            site.redis.xadd(stream, {"id": "j-1", "type": "newsletter"}),
            site.redis.xadd(stream, {"message": "no JSON"}),
            site.redis.xadd(stream, {"message": b"\xff\xfe"}),
        ]
        _add(site, message("good"))
        road._turn()
        assert _pending(site) == 0
    assert job_ids(db) == ["good"]
    kept = rejects(db)
    assert [position for _, position, *_ in kept] == [f"{stream}/{identity}" for identity in identities]
    assert json.loads(bytes(kept[0][2])) == {"id": "j-1", "type": "newsletter"}
    assert {source for source, *_ in kept} == {"redis-stream"}
    second, third = site.dead_letters()
    assert (second["kind"], second["message"], second["source"]) == ("rejected", "no JSON", "redis-stream")
    assert (third["position"], b64decode(third["message_base64"])) == (f"{stream}/{identities[2]}", b"\xff\xfe")


def test_a_stream_that_is_deleted_and_made_again_is_read_again(site: Site, db: Connection) -> None:
    """With the stream goes its group; the consumer makes it again, and reads the new stream from its beginning."""
    stream = site.server.jobs_stream
    with site.taker(REDIS_STREAM_EMAIL_JOBS=stream) as taker:
        _add(site, message("before"))
        eventually(lambda: job_ids(db) == ["before"], "it works")
        site.redis.delete(stream)
        _add(site, message("after"))
        eventually(lambda: job_ids(db) == ["before", "after"], "it goes on")
        taker.process.send_signal(signal.SIGTERM)
        assert taker.process.wait(30) == 0, taker.log_text()


def test_two_consumers_share_a_stream(site: Site, db: Connection) -> None:
    """Each entry is read by one consumer of the group."""
    named = {"REDIS_STREAM_EMAIL_JOBS": site.server.jobs_stream, "INGEST_BATCH_SIZE": 10}
    with site.taker(**named), site.taker(**named):
        _add(site, *(message(f"j-{number}") for number in range(500)))
        eventually(lambda: value(db, "SELECT count(*) FROM email_jobs") == 500, "all are stored")
        eventually(lambda: _pending(site) == 0, "all are acknowledged")
        eventually(lambda: len(_consumers(site)) == 2, "both are members")


@pytest.mark.usefixtures("abandoned_at_once")
def test_consumers_that_died_do_not_pile_up(site: Site, road: StreamRoad) -> None:
    """When all that a dead consumer had read is stored, its name is not kept in the group for good."""
    _add(site, message("one"))
    _read_and_die(site, 1)
    road._claim_abandoned()
    road._turn()
    assert "dead" not in _consumers(site)
