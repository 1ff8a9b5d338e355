"""What /healthz and /readyz say of a process that lives, hangs, or has lost Postgres."""

import asyncio
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from lab.postgres import PostgresServer
from lab.sink_process import Sink
from tests.integration.rows import Connection, insert_jobs
from tests.running.scrape import get, port_of
from tests.support import Database, eventually, running_worker
from worker.db import connect_once, open_pool
from worker.migrate import migrate
from worker.queue_gauges import is_work_waiting
from worker.vital_signs import IDLE_SECONDS, LOOP_SECONDS, VitalSigns

FIRST_PORT = 19_480


class Clock:
    """A clock of the test's."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_that_does_not_turn_is_ill() -> None:
    """After ten seconds; it is well again when it turns."""
    clock = Clock()
    signs = VitalSigns(clock)
    assert signs.trouble() is None
    clock.now = LOOP_SECONDS + 1
    assert signs.trouble() == "the main loop has not turned for 11 s"
    signs.turned()
    assert signs.trouble() is None


def test_a_worker_that_claims_nothing_though_jobs_are_due_is_ill() -> None:
    """Postgres is asked only when nothing was claimed for a minute."""
    clock, asked = Clock(), []

    def ask() -> bool:
        asked.append(clock.now)
        return True

    signs = VitalSigns(clock)
    signs.is_work_waiting = ask
    clock.now = IDLE_SECONDS - 1
    signs.turned()
    assert (signs.trouble(), asked) == (None, [])
    clock.now = IDLE_SECONDS + 1
    signs.turned()
    assert signs.trouble() == "nothing was claimed for 61 s, though jobs are due"
    signs.worked()
    assert signs.trouble() is None


def test_the_first_reason_not_to_be_ready_is_told() -> None:
    """Each part may have one."""
    signs = VitalSigns()
    signs.checks = [lambda: None, lambda: "Postgres is away", lambda: "too late"]
    assert signs.not_ready() == "Postgres is away"


def test_a_worker_is_ready_while_postgres_answers(sink: Sink) -> None:
    """With a frozen Postgres it is unready within seconds and ends a little later; it is never ill meanwhile."""
    with PostgresServer(settings={"fsync": "off"}) as server:
        server.create_database("health")
        database = Database(server, "health")
        with connect_once(database.settings(), "tests") as connection:
            migrate(connection)
        with running_worker(database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT)) as worker:
            port = port_of(worker)
            eventually(lambda: get(port, "/readyz") == (200, "ok\n"), "it is ready")
            server.freeze()
            (said,) = eventually(lambda: {get(port, "/readyz")} - {(200, "ok\n")}, "it is unready")
            assert said[0] == 503
            assert said[1].startswith("Postgres has not answered for ")
            assert get(port, "/healthz") == (200, "ok\n")
            assert worker.process.wait(20) != 0
            server.thaw()


def test_a_stopped_process_does_not_answer_as_if_it_lived(database: Database, sink: Sink) -> None:
    """SIGSTOP: nobody answers; after SIGCONT everything is well."""
    with running_worker(database.environment(SMTP_PORT=sink.port, METRICS_PORT=FIRST_PORT)) as worker:
        port = port_of(worker)
        worker.process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{worker.process.pid}/stat")
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it stands still")
        with socket.create_connection(("127.0.0.1", port), timeout=1) as line:
            line.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            line.settimeout(1)
            with suppress(TimeoutError):
                assert line.recv(1) == b""
        worker.process.send_signal(signal.SIGCONT)
        eventually(lambda: get(port, "/healthz") == (200, "ok\n"), "it goes on")


def test_a_pause_and_a_limit_are_no_illness(database: Database, db: Connection, sink: Sink) -> None:
    """Jobs that are due and may not be sent are no reason to start a worker again; nor is a slow look."""

    def is_waiting() -> bool:
        async def ask() -> bool:
            async with open_pool(database.settings(), "tests", most=1) as pool:
                return await is_work_waiting(pool, 60.0)

        return asyncio.run(ask())

    insert_jobs(db, 3)
    db.execute("ALTER TABLE email_jobs DISABLE TRIGGER USER")
    db.execute("UPDATE email_jobs SET next_attempt_at = now() - interval '1 hour'")
    assert is_waiting()
    db.execute("SELECT email_pause('queue', 'transactional')")
    assert not is_waiting()
    db.execute("SELECT email_resume('queue', 'transactional'), email_pause('type', 'booking-confirmation')")
    assert not is_waiting()
    db.execute("SELECT email_resume('type', 'booking-confirmation')")
    with ExitStack() as stack:
        holder = stack.enter_context(database.connect())
        holder.autocommit = False
        holder.execute("SELECT FROM email_jobs FOR UPDATE")
        assert not is_waiting()
        holder.execute("LOCK TABLE email_jobs")
        assert not is_waiting()
