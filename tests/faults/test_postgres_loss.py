"""Postgres goes away: stopped, killed, restarted or frozen. A worker ends within ten seconds, or goes on.

Each loss strikes two workers at once, one that is idle and one in the middle of a batch, each with a database of its
own on the same server.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from lab.postgres import PostgresServer, StopMode
from lab.sink_process import Sink
from tests.faults import scene
from tests.support import Database, Worker, eventually
from worker.db import connect_once
from worker.migrate import migrate

# The promise: decided within 8 s of silence, and gone within this.
EXIT_SECONDS = 10.0
JOBS = 300
REPLY_SECONDS = 0.25
IDLE, BUSY = "idle", "busy"

Harm = Callable[[PostgresServer], None]


@dataclass
class Site:
    """A database with its sink, and a supervisor that starts the worker again whenever it ends."""

    database: Database
    sink: Sink
    fleet: scene.Fleet
    worker: Worker | None = None
    exits: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start the worker."""
        _, self.worker = self.fleet.start()

    def supervise(self) -> None:
        """Note an exit, and start the worker again."""
        assert self.worker is not None
        status = self.worker.process.poll()
        if status is not None:
            self.exits.append(status)
            self.start()

    def wait_for_exit(self, since: float) -> int:
        """The worker's exit status; it must come within the time that is promised."""
        assert self.worker is not None
        return self.worker.process.wait(max(0.1, since + EXIT_SECONDS - time.monotonic()))


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A Postgres that may be harmed."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        server.create_database(IDLE)
        with connect_once(Database(server, IDLE).settings(), "tests") as connection:
            migrate(connection)
        with Database(server, IDLE).connect() as db:
            scene.small_templates(db)
        server.create_database(BUSY, template=IDLE)
        yield server
        server.thaw()


@pytest.fixture
def sites(server: PostgresServer, tmp_path: Path) -> Iterator[list[Site]]:
    """Two workers: one idle, one in the middle of a batch."""
    with ExitStack() as stack:
        sites = []
        for name, delay in ((IDLE, 0.0), (BUSY, REPLY_SECONDS)):
            database = Database(server, name)
            sink = stack.enter_context(Sink(ledger=tmp_path / name, reply_delay=delay))
            fleet = scene.Fleet(
                database,
                stack,
                SMTP_PORT=sink.port,
                EMAIL_DOUBT_SECONDS=1,
                EMAIL_RETRY_DELAY_SECONDS=1,
                EMAIL_JOB_CONCURRENCY=5,
            )
            sites.append(Site(database, sink, fleet))
            sites[-1].start()
        idle, busy = sites
        with busy.database.connect() as db:
            scene.enqueue(db, JOBS)
        # Idle is who has delivered and waits for more.
        with idle.database.connect() as db:
            scene.enqueue(db, 3)
            scene.nothing_pending(db)
        eventually(lambda: busy.sink.counts().accepted >= 10, "mails go out")
        yield sites


def _stop_fast(server: PostgresServer) -> None:
    server.stop("fast")


def _stop_immediately(server: PostgresServer) -> None:
    server.stop("immediate")


def _kill(server: PostgresServer) -> None:
    server.kill()


def _freeze(server: PostgresServer) -> None:
    server.freeze()


@pytest.mark.parametrize("harm", [_stop_fast, _stop_immediately, _kill, _freeze])
def test_without_postgres_a_worker_ends_and_a_new_one_delivers_everything(
    server: PostgresServer, sites: list[Site], harm: Harm
) -> None:
    """Within ten seconds of the loss both workers have ended with an error; after it nothing is missing."""
    began = time.monotonic()
    harm(server)
    statuses = [site.wait_for_exit(began) for site in sites]
    assert 0 not in statuses, "an end without Postgres must be an error, or no supervisor starts it again"
    server.thaw()
    server.start()
    _everything_is_delivered(sites)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_after_a_short_restart_a_worker_ends_or_goes_on(
    server: PostgresServer, sites: list[Site], mode: StopMode
) -> None:
    """A restart of Postgres within two seconds leaves no worker that lives and does nothing."""
    server.restart(mode)
    _everything_is_delivered(sites)
    assert all(status != 0 for site in sites for status in site.exits)


@pytest.mark.parametrize("order", ["frozen, then asked to stop", "asked to stop, then frozen"])
def test_a_frozen_postgres_does_not_keep_a_worker_from_stopping(
    server: PostgresServer, sites: list[Site], order: str
) -> None:
    """SIGTERM and a frozen Postgres, in either order: both workers have ended within ten seconds of the freeze."""
    if order.startswith("asked"):
        _ask_to_stop(sites)
    server.freeze()
    began = time.monotonic()
    if order.startswith("frozen"):
        _ask_to_stop(sites)
    for site in sites:
        site.wait_for_exit(began)
    server.thaw()
    _everything_is_delivered(sites)


def _ask_to_stop(sites: list[Site]) -> None:
    for site in sites:
        assert site.worker is not None
        site.worker.process.send_signal(signal.SIGTERM)


def _everything_is_delivered(sites: list[Site]) -> None:
    """With a supervisor, all jobs end, new ones as well, and none is lost or sent twice that must not be."""
    for site in sites:
        with site.database.connect() as db:
            scene.enqueue(db, 3, prefix="later")
            eventually(partial(_all_ended, site, db), "all jobs end", 40)
            for job in scene.fates(db, site.sink.ledger()):
                assert (job.status == "sent" and job.taken) or (job.status == "in_doubt" and job.open), job
                assert job.taken <= job.accepted + job.open, job
                assert job.taken <= 1 or job.guarantee != "at_most_once", job
                assert job.status == "sent" or not job.job_id.startswith("later"), job
            scene.books_balance(db)


def _all_ended(site: Site, db: scene.Db) -> bool:
    site.supervise()
    return scene.count(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") == 0
