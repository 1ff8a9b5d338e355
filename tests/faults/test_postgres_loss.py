"""Postgres goes away: stopped, killed, restarted or frozen. A worker ends within ten seconds, or goes on.

Each loss strikes several workers at once, one that is idle and others in the middle of a batch, each with a database of
its own on the same server.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from lab.postgres import PostgresServer, StopMode
from lab.sink_process import Sink
from tests.faults import scene
from tests.faults.freezing_proxy import freezing_proxy
from tests.support import Database, Worker, eventually, running_worker
from worker.db import connect_once
from worker.migrate import migrate

# The promise: decided within 8 s of silence, and gone within this.
EXIT_SECONDS = 10.0
JOBS = 60
REPLY_SECONDS = 0.25
TEMPLATE = "migrated"

Harm = Callable[[PostgresServer], None]
_numbers = count(1)


@dataclass
class Site:
    """A database with its sink, and a supervisor that starts the worker again whenever it ends."""

    database: Database
    sink: Sink
    fleet: scene.Fleet
    worker: Worker
    exits: list[int] = field(default_factory=list)

    def supervise(self) -> None:
        """Note an exit, and start the worker again."""
        status = self.worker.process.poll()
        if status is not None:
            self.exits.append(status)
            _, self.worker = self.fleet.start()

    def wait_for_exit(self, since: float) -> int:
        """The worker's exit status; it must come within the time that is promised."""
        try:
            return self.worker.process.wait(max(0.1, since + EXIT_SECONDS - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no exit within {EXIT_SECONDS:g} s:\n{self.worker.log_text()}") from None

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self.worker.process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A Postgres that may be harmed."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        server.create_database(TEMPLATE)
        database = Database(server, TEMPLATE)
        with connect_once(database.settings(), "tests") as connection:
            migrate(connection)
        with database.connect() as db:
            scene.small_templates(db)
        yield server


@pytest.fixture
def opened(server: PostgresServer, tmp_path: Path) -> Iterator[Callable[[float], Site]]:
    """Makes a site whose sink takes that long for each reply; its worker has delivered, and waits for more."""
    server.thaw()
    server.start()
    with ExitStack() as stack:

        def site(reply_seconds: float) -> Site:
            name = f"site_{next(_numbers)}"
            server.create_database(name, template=TEMPLATE)
            database = Database(server, name)
            sink = stack.enter_context(Sink(ledger=tmp_path / name, reply_delay=reply_seconds))
            fleet = scene.Fleet(
                database,
                stack,
                SMTP_PORT=sink.port,
                EMAIL_DOUBT_SECONDS=1,
                EMAIL_RETRY_DELAY_SECONDS=1,
                EMAIL_JOB_CONCURRENCY=5,
            )
            return Site(database, sink, fleet, fleet.start()[1])

        yield site
        server.thaw()


def _idle(site: Site) -> None:
    """Wait until its worker has delivered something, and waits for more."""
    with site.database.connect() as db:
        scene.enqueue(db, 3)
        scene.nothing_pending(db)


def _busy(site: Site) -> None:
    """Wait until its worker is in the middle of a batch."""
    with site.database.connect() as db:
        scene.enqueue(db, JOBS)
    eventually(lambda: site.sink.counts().accepted >= 10, "mails go out")


def _stop_fast(server: PostgresServer) -> None:
    server.stop("fast")


def _stop_immediately(server: PostgresServer) -> None:
    server.stop("immediate")


def _kill(server: PostgresServer) -> None:
    server.kill()


@pytest.mark.parametrize("harm", [_stop_fast, _stop_immediately, _kill])
def test_without_postgres_a_worker_ends_and_a_new_one_delivers_everything(
    server: PostgresServer, opened: Callable[[float], Site], harm: Harm
) -> None:
    """Within ten seconds of the loss an idle and a busy worker have ended with an error; then nothing is missing."""
    idle, busy = opened(0.0), opened(REPLY_SECONDS)
    _idle(idle)
    _busy(busy)
    began = time.monotonic()
    harm(server)
    statuses = [idle.wait_for_exit(began), busy.wait_for_exit(began)]
    assert 0 not in statuses, "an end without Postgres must be an error, or no supervisor starts it again"
    server.start()
    _everything_is_delivered(idle, busy)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_after_a_short_restart_a_worker_ends_or_goes_on(
    server: PostgresServer, opened: Callable[[float], Site], mode: StopMode
) -> None:
    """A restart of Postgres within two seconds leaves no worker that lives and does nothing."""
    idle, busy = opened(0.0), opened(REPLY_SECONDS)
    _idle(idle)
    _busy(busy)
    server.restart(mode)
    _everything_is_delivered(idle, busy)
    assert 0 not in idle.exits + busy.exits


def test_a_frozen_postgres_ends_every_worker_even_one_that_is_stopping(
    server: PostgresServer, opened: Callable[[float], Site]
) -> None:
    """Within ten seconds of the freeze workers have ended: an idle, a busy, one asked to stop before, one after it."""
    idle, busy, stopping, stopped = opened(0.0), opened(REPLY_SECONDS), opened(REPLY_SECONDS), opened(REPLY_SECONDS)
    _idle(idle)
    for site in (busy, stopping, stopped):
        _busy(site)
    stopping.ask_to_stop()
    server.freeze()
    began = time.monotonic()
    stopped.ask_to_stop()
    statuses = [site.wait_for_exit(began) for site in (idle, busy, stopping, stopped)]
    assert 0 not in statuses[:2]
    server.thaw()
    _everything_is_delivered(idle, busy, stopping, stopped)


@pytest.mark.parametrize("statement", [b"-- check_session", b"LISTEN"], ids=["first statement", "later statement"])
def test_a_postgres_that_freezes_during_the_start_ends_the_worker(
    server: PostgresServer, opened: Callable[[float], Site], statement: bytes
) -> None:
    """Frozen between the connection and the answer to an early statement, Postgres does not hang a start."""
    with freezing_proxy(server, statement) as proxy:
        variables = Database(server, TEMPLATE).environment(DB_HOST=proxy.host, DB_PORT=proxy.port)
        with running_worker(variables) as worker:
            frozen_at = eventually(lambda: proxy.frozen_at, "the worker comes to that statement", 8)
            assert frozen_at is not None
            try:
                status = worker.process.wait(max(0.1, frozen_at + EXIT_SECONDS - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise AssertionError(f"no exit within {EXIT_SECONDS:g} s:\n{worker.log_text()}") from None
    assert status != 0


def _everything_is_delivered(*sites: Site) -> None:
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
