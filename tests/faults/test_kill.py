"""SIGKILL, again and again, while mails go out."""

import random
from contextlib import ExitStack
from pathlib import Path

from lab.sink_process import Sink
from tests.faults import scene
from tests.support import Database, Worker, eventually

JOBS = 20_000
KILLS = 20
CONNECTIONS = 4
REPLY_SECONDS = 0.01
# Kills need work: when less than this is left, more comes.
LEAST_PENDING = 1_000
# The provider's bound on intents that may be open (see worker.providers.smtp).
OPEN_PER_CONNECTION = 6
# Answers that are known to the dead process alone: of a flush interval (10 ms), and of the flush that was in progress,
# as many as the sink can have given in that time.
UNFLUSHED_SECONDS = 0.02
MOST_IN_DOUBT = CONNECTIONS * OPEN_PER_CONNECTION + round(CONNECTIONS / REPLY_SECONDS * UNFLUSHED_SECONDS)


def test_twenty_kills_lose_nothing_and_repeat_only_what_was_in_hand(
    database: Database, db: scene.Db, tmp_path: Path
) -> None:
    """Through 20 kills no job is lost, no at_most_once mail is repeated, and each repeat had an open intent."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    scene.small_templates(db)
    scene.enqueue(db, JOBS)
    with Sink(ledger=tmp_path / "ledger", reply_delay=REPLY_SECONDS) as sink, ExitStack() as stack:
        fleet = scene.Fleet(
            database,
            stack,
            SMTP_PORT=sink.port,
            WORKER_CONCURRENCY=4,
            EMAIL_JOB_CONCURRENCY=CONNECTIONS,
            EMAIL_DOUBT_SECONDS=2,
            EMAIL_RETRY_DELAY_SECONDS=0.5,
        )
        workers = [fleet.start(), fleet.start()]
        kills = []
        for _ in range(KILLS):
            kills.append(_kill_one(db, workers, chance))
            workers.append(fleet.start())
        scene.nothing_pending(db, 120)
        ledger = sink.ledger()
    jobs = scene.fates(db, ledger)
    repeats = {
        guarantee: sum(max(0, job.taken - 1) for job in jobs if job.guarantee == guarantee)
        for guarantee in ("at_least_once", "effectively_once", "at_most_once")
    }
    doubts = [job for job in jobs if job.status == "in_doubt"]
    most = sum(kills)
    numbers = (
        f"seed {seed}: {len(jobs)} jobs, {KILLS} kills, {most} in doubt at the kills ({kills}, by design at most"
        f" {MOST_IN_DOUBT} each), repeats {repeats}, at_most_once in doubt"
        f" {sum(job.guarantee == 'at_most_once' for job in doubts)}, other guarantees in doubt"
        f" {sum(job.guarantee != 'at_most_once' for job in doubts)}"
    )
    print(f"\n{numbers}")

    lost = [job for job in jobs if not (job.status == "sent" and job.taken)]
    lost = [job for job in lost if not (job.status == "in_doubt" and job.open)]
    assert lost == [], f"lost: {lost[:5]}, {numbers}"
    assert repeats["at_most_once"] == 0, numbers
    assert all(job.accepted <= 1 for job in jobs), numbers
    unexplained = [job for job in jobs if job.taken > job.accepted + job.open]
    assert unexplained == [], f"repeated without an open intent: {unexplained[:5]}, {numbers}"
    assert sum(repeats.values()) <= most, numbers
    assert len(doubts) <= most, numbers
    assert max(kills) <= MOST_IN_DOUBT, numbers
    assert {entry.message_id for entry in ledger} == {f"<{entry.job_id}@example.org>" for entry in ledger}
    scene.books_balance(db)


def _kill_one(db: scene.Db, workers: list[tuple[str, Worker]], chance: random.Random) -> int:
    """Kill one worker somewhere in its work; returns how many mails that leaves in doubt."""
    name, worker = workers.pop(chance.randrange(len(workers)))
    mails = chance.randint(1, 300)
    eventually(lambda: _keep_busy(db) or _handed_over(db, name) >= mails, "the worker is at work")
    worker.process.kill()
    worker.process.wait()
    eventually(lambda: scene.sessions(db, name) == 0, "Postgres notices that the worker is dead")
    return scene.count(db, "SELECT count(*) FROM email_attempts WHERE worker = %s AND state = 'sending'", name)


def _handed_over(db: scene.Db, worker: str) -> int:
    return scene.count(db, "SELECT count(*) FROM email_attempts WHERE worker = %s", worker)


def _keep_busy(db: scene.Db) -> bool:
    """More work, if there is little; always false."""
    if scene.count(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") < LEAST_PENDING:
        scene.enqueue(db, LEAST_PENDING, prefix=f"more-{scene.count(db, 'SELECT count(*) FROM email_jobs')}")
    return False
