"""The list: what comes in becomes jobs or rejects, and a taker that stops leaves nothing behind."""

import json
import signal
from base64 import b64decode

from tests.integration.rows import Connection, rows, value
from tests.redis.site import Site, job_ids, jobs_locked, message, rejects
from tests.support import Worker, eventually


def test_a_lists_messages_become_jobs(site: Site, db: Connection) -> None:
    """Each message is one row, a repetition none, batch by batch in the list's order; the backlog is gone."""
    names = [f"j-{number}" for number in range(30)]
    site.push(*map(message, names), message("j-3"))
    with site.taker(INGEST_BATCH_SIZE=7):
        eventually(lambda: len(job_ids(db)) == len(names), "all are stored")
        site.push(message("late"), message("j-0"), message("last", type="password-reset", locale="de"))
        eventually(lambda: "last" in job_ids(db), "what comes later is stored too")
        eventually(lambda: site.in_hand() == [], "nothing is in hand")
    stored = job_ids(db)
    assert [set(stored[start : start + 7]) for start in (0, 7, 14, 21)] == [
        set(names[start : start + 7]) for start in (0, 7, 14, 21)
    ]
    assert set(stored) == {*names, "late", "last"}
    assert len(stored) == 32
    assert site.backlog() == 0
    assert rows(db, "SELECT DISTINCT source FROM email_jobs") == [("redis",)]
    assert rows(db, "SELECT type, locale FROM email_jobs WHERE job_id = 'last'") == [("password-reset", "de")]
    assert rejects(db) == []


def test_a_batchs_messages_keep_their_order(site: Site, db: Connection) -> None:
    """Jobs of one batch get their arrival numbers in the order in which producers appended them."""
    names = [f"j-{number}" for number in range(5)]
    site.push(*map(message, names))
    with site.taker():
        eventually(lambda: len(job_ids(db)) == len(names), "all are stored")
    assert job_ids(db) == names


def test_what_cannot_be_a_job_is_kept_whole_and_told(site: Site, db: Connection) -> None:
    """A reject stands in email_rejects byte by byte and in the dead letter list as JSON; its neighbours are stored."""
    bad = [
        b"no JSON",
        message("no-type", type="no-such-type").encode(),
        message("no-address", recipient={"email": "nowhere"}).encode(),
        message("nul", data={"text": "\x00"}).encode(),
        b'{"id": "\xff\xfe", "type": "newsletter", "recipient": {"email": "ann@example.com"}}',
    ]
    site.push(message("before"), *bad, message("after"))
    with site.taker():
        eventually(lambda: len(site.dead_letters()) == len(bad), "all rejects are told")
    assert set(job_ids(db)) == {"before", "after"}
    kept = rejects(db)
    assert [(source, position, bytes(raw)) for source, position, raw, _ in kept] == [
        ("redis", site.jobs, raw) for raw in bad
    ]
    letters = site.dead_letters()
    assert [letter["kind"] for letter in letters] == ["rejected"] * len(bad)
    assert [letter["error"] for letter in letters] == [error for *_, error in kept]
    assert [letter["bytes"] for letter in letters] == [len(raw) for raw in bad]
    assert {(letter["source"], letter["position"]) for letter in letters} == {("redis", site.jobs)}
    assert [letter["message"].encode() for letter in letters[:-1]] == bad[:-1]
    assert b64decode(letters[-1]["message_base64"]) == bad[-1]
    assert "message" not in letters[-1]
    assert "$.type" in letters[1]["error"]
    assert "$.recipient.email" in letters[2]["error"]


def test_the_dead_letter_list_is_bounded(site: Site, db: Connection) -> None:
    """The list keeps the newest REDIS_DEAD_LETTERS_KEPT entries; Postgres has them all."""
    site.push(*(f"bad {number}" for number in range(20)))
    with site.taker(REDIS_DEAD_LETTERS_KEPT=3, INGEST_BATCH_SIZE=4):
        eventually(lambda: value(db, "SELECT count(*) FROM email_rejects") == 20, "all are kept")
        eventually(lambda: site.in_hand() == [], "nothing is in hand")
    assert [letter["message"] for letter in site.dead_letters()] == ["bad 17", "bad 18", "bad 19"]


def test_a_large_message_is_kept_and_only_named_in_the_dead_letter_list(site: Site, db: Connection) -> None:
    """A 5 MB job is stored; a 5 MB reject is whole in Postgres, and in the list without its text."""
    attachment = {"filename": "plan.pdf", "content": "QUJD" * 1_250_000, "content_type": "application/pdf"}
    site.push(message("large", options={"attachments": [attachment]}), "y" * 5_000_000)
    with site.taker():
        (letter,) = eventually(site.dead_letters, "the reject is told")
    assert job_ids(db) == ["large"]
    assert value(db, "SELECT length(raw) FROM email_rejects") == 5_000_000
    assert (letter["bytes"], "message" in letter, "message_base64" in letter) == (5_000_000, False, False)


def _stop(taker: Worker) -> None:
    taker.process.send_signal(signal.SIGTERM)
    assert taker.process.wait(30) == 0, taker.log_text()


def test_sigterm_ends_a_waiting_taker_without_a_trace(site: Site, db: Connection) -> None:
    """At SIGTERM a taker that waits at the empty list ends with status 0, and none of its keys is left."""
    with site.taker() as taker:
        site.push(message("one"))
        eventually(lambda: job_ids(db) == ["one"], "it works")
        assert len(site.heartbeats()) == 1
        _stop(taker)
    assert site.keys() == []


def test_sigterm_lets_a_taker_finish_what_it_has_in_hand(site: Site, db: Connection) -> None:
    """At SIGTERM in the middle of a batch the batch is stored, and what was not taken yet stays in the list."""
    site.push(*(message(f"j-{number}") for number in range(10)))
    with site.taker(INGEST_BATCH_SIZE=4) as taker:
        with jobs_locked(site):
            eventually(lambda: len(site.in_hand()) == 4, "a batch is taken")
            taker.process.send_signal(signal.SIGTERM)
            eventually(lambda: _waits_for_the_lock(db), "its statement waits")
        assert taker.process.wait(30) == 0, taker.log_text()
    assert set(job_ids(db)) == {f"j-{number}" for number in range(4)}
    assert site.keys() == [site.jobs]
    assert site.backlog() == 6


def _waits_for_the_lock(db: Connection) -> bool:
    return bool(
        value(
            db,
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'email-worker redis%%'"
            " AND datname = current_database() AND wait_event_type = 'Lock'",
        )
    )


def test_an_empty_list_is_waited_at(site: Site, db: Connection) -> None:
    """A taker at an empty list gives Redis fewer than five commands a second, and takes what comes at once."""

    def calls(*names: str) -> int:
        stats = site.redis.info("commandstats")
        own = {name.removeprefix("cmdstat_"): entry["calls"] for name, entry in stats.items()}
        # What this test itself asks is not counted.
        return sum(
            count for name, count in own.items() if name in names or (not names and name not in ("info", "time"))
        )

    with site.taker():
        site.push(message("first"))
        eventually(lambda: job_ids(db) == ["first"], "it works")
        waits, before, (began, _) = calls("blmove"), calls(), site.redis.time()
        eventually(lambda: calls("blmove") >= waits + 3, "it has waited three times")
        commands, (ended, _) = calls() - before, site.redis.time()
        site.push(message("second"))
        eventually(lambda: job_ids(db) == ["first", "second"], "it wakes")
    assert commands < 5 * (ended - began), f"{commands} commands in {ended - began} s"


def test_wrong_settings_end_it_with_words(site: Site) -> None:
    """Without REDIS_HOST it ends with status 2 and says which setting is missing."""
    with site.taker(REDIS_HOST="") as taker:
        assert taker.process.wait(30) == 2
        assert "REDIS_HOST" in taker.log_text()
        assert "Traceback" not in taker.log_text()


def test_the_dead_letters_hold_no_bytes_that_json_cannot_read(site: Site, db: Connection) -> None:
    """Whatever bytes come, each entry of the dead letter list is JSON in UTF-8."""
    site.raw_redis.rpush(site.jobs, *(bytes([byte]) * 3 for byte in range(256)))
    with site.taker():
        eventually(lambda: site.raw_redis.llen(site.server.dead_letters) == 256, "all are told")
    for entry in site.raw_redis.lrange(site.server.dead_letters, 0, -1):
        assert json.loads(entry.decode())["kind"] == "rejected"
    assert value(db, "SELECT count(*) FROM email_rejects") == 256
