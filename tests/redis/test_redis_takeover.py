"""Takers that die or sleep with messages in hand, and those that store what they left."""

import signal
from importlib.resources import files

import pytest

from tests.integration.rows import Connection, value
from tests.redis.losing_proxy import losing_proxy
from tests.redis.site import Site, job_ids, jobs_locked, message
from tests.support import eventually

BATCH = 4


def _names(count: int) -> list[str]:
    return [f"j-{number}" for number in range(count)]


def _has_something(site: Site, heartbeat: str) -> bool:
    """Whether the taker of that heartbeat has taken something."""
    owner = heartbeat.rpartition(":")[2]
    return any(site.redis.exists(name) for name in site.batches() if owner in name)


def _nothing_is_in_hand(site: Site) -> bool:
    return site.backlog() == 0 and site.in_hand() == []


def test_what_a_killed_taker_had_in_hand_is_stored_by_another(site: Site, db: Connection) -> None:
    """After SIGKILL in the middle of a batch, it waits while the heartbeat is there; then another taker stores it."""
    names = _names(10)
    site.push(*map(message, names))
    with jobs_locked(site), site.taker(INGEST_BATCH_SIZE=BATCH) as first:
        eventually(lambda: len(site.in_hand()) == BATCH, "a batch is taken")
        first.process.kill()
        first.process.wait()
    (heartbeat,), (left,) = site.heartbeats(), site.batches()
    # However slow this test is.
    site.redis.persist(heartbeat)
    with site.taker(INGEST_BATCH_SIZE=BATCH) as second:
        eventually(lambda: len(job_ids(db)) == len(names) - BATCH, "the rest is stored")
        assert site.redis.lrange(left, 0, -1) == [message(name) for name in names[:BATCH]]
        site.redis.delete(heartbeat)
        eventually(lambda: len(job_ids(db)) == len(names), "what the dead one had taken is stored too")
        eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")
        assert "a taker died" in second.log_text()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(30) == 0
    assert set(job_ids(db)) == set(names)
    assert site.keys() == []


def test_takers_killed_again_and_again_with_the_same_batch_lose_nothing(site: Site, db: Connection) -> None:
    """A batch passes through the hands of three takers that die with it, and is whole in the end."""
    names = _names(BATCH)
    site.push(*map(message, names))
    with jobs_locked(site):
        for _ in range(3):
            with site.taker() as taker:
                eventually(lambda: len(site.heartbeats()) == 1, "the taker lives")
                (mine,) = site.heartbeats()
                eventually(lambda: _has_something(site, mine), "it has the batch")  # noqa: B023
                taker.process.kill()
                taker.process.wait()
            site.redis.delete(mine)
            assert site.in_hand() == [message(name) for name in names]
    with site.taker():
        eventually(lambda: set(job_ids(db)) == set(names), "all are stored")
        eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")


def test_an_owner_that_wakes_deletes_nothing_of_anothers(site: Site, db: Connection) -> None:
    """Stopped until its batch was taken over, a taker wakes, stores what it knows, and leaves the other's list be."""
    names = _names(BATCH)
    site.push(*map(message, names))
    take_over = site.redis.register_script(files("redis_ingest").joinpath("lua", "take_over.lua").read_text())
    other, mine = f"{site.jobs}:taker:other", f"{site.taken}:other:1"
    with site.taker() as sleeper:
        with jobs_locked(site):
            eventually(lambda: len(site.in_hand()) == BATCH, "a batch is taken")
            sleeper.process.send_signal(signal.SIGSTOP)
            (heartbeat,), (theirs,) = site.heartbeats(), site.batches()
            site.redis.delete(heartbeat)
            site.redis.set(other, "")
            assert take_over(keys=[theirs, heartbeat, mine, site.taken]) == BATCH
        sleeper.process.send_signal(signal.SIGCONT)
        site.push(message("new"))
        eventually(lambda: set(job_ids(db)) == {*names, "new"}, "the sleeper works again")
        assert site.redis.lrange(mine, 0, -1) == [message(name) for name in names]
        assert mine in site.batches()
        eventually(lambda: heartbeat in site.heartbeats(), "its heart beats again")
        # And when the other one dies, it is the former owner that stores its own batch once more.
        site.redis.delete(other)
        eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")
    assert set(job_ids(db)) == {*names, "new"}


def test_what_comes_to_a_taker_that_sleeps_while_it_waits_is_not_lost(site: Site, db: Connection) -> None:
    """A message that Redis handed to a stopped taker, which never looks at it, is stored by the next one."""
    with site.taker() as sleeper:
        site.push(message("first"))
        eventually(lambda: job_ids(db) == ["first"], "it works")
        eventually(lambda: site.redis.info("clients")["blocked_clients"], "it waits for one")
        sleeper.process.send_signal(signal.SIGSTOP)
        site.push(message("second"))
        site.redis.delete(*site.heartbeats())
        with site.taker():
            eventually(lambda: set(job_ids(db)) == {"first", "second"}, "the next one stores it")
            eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")
            sleeper.process.send_signal(signal.SIGCONT)
            site.push(message("third"))
            eventually(lambda: set(job_ids(db)) == {"first", "second", "third"}, "both go on")


def test_two_takers_share_a_list(site: Site, db: Connection) -> None:
    """What two takers take at once becomes one row each, and neither touches what the living other one has."""
    names = _names(2000)
    with site.taker(INGEST_BATCH_SIZE=10) as one, site.taker(INGEST_BATCH_SIZE=10) as two:
        eventually(lambda: len(site.heartbeats()) == 2, "both live")
        site.push(*map(message, names))
        eventually(lambda: value(db, "SELECT count(*) FROM email_jobs") == len(names), "all are stored")
        eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")
        for taker in (one, two):
            taker.process.send_signal(signal.SIGTERM)
            assert taker.process.wait(30) == 0
            assert "a taker died" not in taker.log_text()
    assert site.keys() == []


@pytest.mark.parametrize(("command", "count"), [(b"EVALSHA", 3), (b"BLMOVE", 1)])
def test_an_answer_that_is_lost_loses_no_message(site: Site, db: Connection, command: bytes, count: int) -> None:
    """When the connection ends after Redis moved messages and before it says so, they are stored all the same."""
    names = _names(count)
    with losing_proxy(site.server) as proxy, site.taker(REDIS_HOST="127.0.0.1", REDIS_PORT=proxy.port):
        site.push(message("first"))
        eventually(lambda: job_ids(db) == ["first"], "it works")
        eventually(lambda: site.in_hand() == [], "nothing is in hand")
        proxy.lose(command, lambda: site.push(*map(message, names)))
        eventually(lambda: proxy.lost, "the answer is lost")
        eventually(lambda: set(job_ids(db)) == {"first", *names} or site.hidden(), "all are stored")
        assert site.hidden() == [], "messages in a list that nobody looks for"
        eventually(lambda: _nothing_is_in_hand(site), "nothing is in hand")


def test_a_taker_that_was_given_up_between_two_commands_hides_no_message(
    site: Site, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A taker suspended before it waits, given up meanwhile, and killed when it woke, leaves what it got in sight."""
    sleeper, other = site.list_road(), site.list_road()
    blmove = sleeper._client.blmove

    def wakes_later(*arguments: object) -> object:
        other._look_around()
        site.push(message("one"))
        return blmove(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sleeper._client, "blmove", wakes_later)
    assert sleeper._waits_for_one()
    # Here it dies; it has no heartbeat.
    other._turn()
    found = job_ids(db)
    for road in (sleeper, other):
        road._storing.postgres.close()
        road._client.close()
    assert found == ["one"]
