"""Starting a worker: what stands in the way is told in words, with a status that a supervisor can use."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.integration.office import EMAIL_WORKER, PROCRASTINATE, WORKER_COMMANDS, run
from tests.integration.rows import Connection, rows, value
from tests.support import Database, eventually, running_worker
from worker.watchdog import EXIT_STATUS


def refusal(environment: dict[str, str], command: tuple[str, ...], status: int = 1) -> str:
    """What a worker says that does not start; never a traceback."""
    ended: subprocess.CompletedProcess[str] = run(environment, *command)
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("command", WORKER_COMMANDS, ids=["procrastinate worker", "email-worker worker"])
def test_an_unmigrated_database_is_told_with_the_way_out(empty_database: Database, command: tuple[str, ...]) -> None:
    """The worker exits and names the command that is missing."""
    said = refusal(empty_database.environment(), command)
    assert "the database has no schema yet. Run: email-worker migrate" in said


def test_missing_migrations_are_named(database: Database, db: Connection) -> None:
    """A database of an earlier version is not used as it is."""
    db.execute("DELETE FROM email_schema WHERE name IN ('0004_tracking.sql', '0005_templates.sql')")
    said = refusal(database.environment(), PROCRASTINATE)
    assert "the database lacks 0004_tracking.sql, 0005_templates.sql. Run: email-worker migrate" in said


def test_a_database_that_is_away_is_told_in_words(database: Database) -> None:
    """Where it looked, what it heard, and which settings to check."""
    said = refusal(database.environment(DB_PORT=1), PROCRASTINATE)
    assert f":1/{database.name}" in said
    assert "Check DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD and DB_SSL_MODE." in said
    assert "watchdog" not in said


WATCH_NOBODY = """
import time
from worker import watchdog
from worker.settings_loading import load_settings

watchdog.LOST_AFTER_SECONDS = 1.0
watchdog.Watchdog(load_settings({"DB_HOST": "127.0.0.1", "DB_PORT": "1"})).start()
time.sleep(30)
"""


def test_a_watchdog_loses_no_connection_that_it_never_had() -> None:
    """Without any answer it is silent until the end, and then says why it never had one."""
    ended = run({}, "-c", WATCH_NOBODY)
    assert ended.returncode == EXIT_STATUS
    (line,) = ended.stdout.splitlines()
    assert "Postgres does not answer, exiting" in line
    assert "port 1 failed" in line


def test_a_watchdog_that_loses_its_connection_says_so_once(database: Database, db: Connection) -> None:
    """A warning for the connection that was lost; with the next one the worker goes on."""
    sessions = "FROM pg_stat_activity WHERE starts_with(application_name, 'email-worker watchdog')"
    with running_worker(database.environment()) as worker:
        eventually(lambda: rows(db, f"SELECT pg_terminate_backend(pid) {sessions}"), "it has a connection")
        eventually(lambda: "watchdog lost its connection" in worker.log_text(), "it is told")
        eventually(lambda: value(db, f"SELECT count(*) = 1 {sessions}"), "it has another one")
        assert worker.log_text().count("watchdog lost its connection") == 1
        assert worker.process.poll() is None


WRONG = {
    "WORKER_BATCH_SIZE": "many",
    "EMAIL_FROM_ADDRESS": "nobody",
    "EMAIL_PROVIDER_PRIMARY": "carrier pigeon",
}
WRONG_TEXT = """\
email-worker: wrong settings
WORKER_BATCH_SIZE='many' is not allowed: it must be a whole number, 1 to 1000.
EMAIL_PROVIDER_PRIMARY='carrier pigeon' is not allowed: it must be smtp or smtp_fallback or ses or sendgrid.
EMAIL_FROM_ADDRESS='nobody' is not allowed: it must be one address, like mail@example.com.
"""


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        (("-q", "bulk"), "email_pause() stops a queue"),
        (("-c", "99"), "set WORKER_CONCURRENCY"),
        (("-n", "mine"), "set WORKER_NAME"),
    ],
)
@pytest.mark.parametrize("command", WORKER_COMMANDS, ids=["procrastinate worker", "email-worker worker"])
def test_an_option_that_would_mean_something_else_is_refused(
    database: Database, command: tuple[str, ...], option: tuple[str, str], instead: str
) -> None:
    """A worker of procrastinate's queue "bulk" would wait for ever for tasks that nobody puts there."""
    assert instead in refusal(database.environment(), (*command, *option))


def test_wrong_settings_are_named_by_procrastinates_command(database: Database) -> None:
    """procrastinate only imports the app, and all the same each wrong variable has its line."""
    said = refusal(database.environment(**WRONG), PROCRASTINATE)
    assert sorted(said.splitlines()) == sorted(WRONG_TEXT.splitlines())


def test_wrong_settings_are_a_mistake_of_the_user_for_our_own_command(database: Database) -> None:
    """`email-worker worker` says the same, and ends with status 2 as all commands of ours do."""
    said = refusal(database.environment(**WRONG), EMAIL_WORKER, status=2)
    assert sorted(said.splitlines()) == sorted(WRONG_TEXT.splitlines())


Limit = Callable[[int], dict[str, str]]


@pytest.fixture
def limited(db: Connection) -> Iterator[Limit]:
    """Makes a role that may have so many connections; returns the settings to be it."""
    roles: list[str] = []

    def limited_to(connections: int) -> dict[str, str]:
        role = f"email_test_limited_{connections}"
        db.execute(f"DROP ROLE IF EXISTS {role}".encode())
        db.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'limited' CONNECTION LIMIT {connections}".encode())
        for objects in ("TABLES", "SEQUENCES"):
            db.execute(f"GRANT ALL ON ALL {objects} IN SCHEMA public TO {role}".encode())
        roles.append(role)
        return {"DB_USER": role, "DB_PASSWORD": "limited"}

    yield limited_to
    eventually(
        lambda: value(
            db, "SELECT count(*) = 0 FROM pg_stat_activity WHERE starts_with(usename, 'email_test_limited_')"
        ),
        "their sessions are gone",
    )
    for role in roles:
        db.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_too_few_connections_are_told_with_the_setting(database: Database, limited: Limit) -> None:
    """Whichever of its 8 connections it does not get, a worker names the setting that makes it need fewer.

    It does so as it ends, with status 1 and without a traceback, or as a warning when it can work all the same.
    """
    told: dict[int, bool] = {}
    with ExitStack() as stack:
        environments = {n: database.environment(WORKER_CONCURRENCY=2, **limited(n)) for n in (3, 4, 5, 7)}
        workers = {n: stack.enter_context(running_worker(environment)) for n, environment in environments.items()}

        def all_have_spoken() -> bool:
            told.update({n: "WORKER_CONCURRENCY" in worker.log_text() for n, worker in workers.items()})
            return all(told[n] or worker.process.poll() is not None for n, worker in workers.items())

        with suppress(AssertionError):
            eventually(all_have_spoken, "each names the setting or ends", seconds=15)
        assert told == dict.fromkeys(workers, True)
        for worker in workers.values():
            assert worker.process.poll() in (None, 1)
            assert "Traceback" not in worker.log_text()


def test_a_full_server_is_told_with_the_setting(database: Database, limited: Limit) -> None:
    """Not even the first connection is to be had: the words say how many a worker needs."""
    role = limited(3)
    dsn = make_conninfo(database.server.dsn(database.name), user=role["DB_USER"], password=role["DB_PASSWORD"])
    with ExitStack() as others:
        for _ in range(3):
            others.enter_context(psycopg.connect(dsn))
        said = refusal(database.environment(**role), PROCRASTINATE)
    needed = "a worker needs up to WORKER_CONCURRENCY + 7 = 17: lower WORKER_CONCURRENCY, or raise max_connections"
    assert needed in said


def test_a_worker_holds_no_more_connections_than_it_says(database: Database, db: Connection) -> None:
    """WORKER_CONCURRENCY + 7 at most, each under a name that tells what it is for."""
    insert = "INSERT INTO email_jobs (job_id, type, template, recipient_email, content, subject)"
    db.execute(
        f"{insert} SELECT 'j-' || n, 'newsletter', 'newsletter', 'ann@example.com', 'c', 's'"
        " FROM generate_series(1, 300) AS n"
    )
    held = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND starts_with(application_name, 'email-worker ') AND right(application_name, 4) = ' w-1'"
    )
    most = 0
    # Nobody listens at that port: each batch costs a try and no time.
    settings = {
        "WORKER_NAME": "w-1",
        "WORKER_CONCURRENCY": 3,
        "WORKER_BATCH_SIZE": 10,
        "SMTP_PORT": 1,
        "EMAIL_BREAKER_FAILURES": 0,
    }
    with running_worker(database.environment(**settings)) as worker:

        def all_tried() -> bool:
            nonlocal most
            most = max(most, value(db, held))
            assert worker.process.poll() is None, worker.log_text()
            return bool(value(db, "SELECT count(*) = 0 FROM email_jobs WHERE retry_count = 0"))

        eventually(all_tried, "every job was tried once")
    assert 0 < most <= 9


def test_a_worker_that_sends_by_smtp_alone_loads_no_sdk(database: Database) -> None:
    """Neither those of other providers nor the clients of Redis and Kafka: they cost memory and time at the start."""
    code = (
        "import asyncio, sys\n"
        "from worker.app import app\n"
        "from worker.process import WorkerProcess\n"
        "async def make(): return WorkerProcess(app, app.settings, app.signs)\n"
        "asyncio.run(make())\n"
        "heavy = 'boto3 sendgrid urllib3 redis confluent_kafka cryptography grpc dns'.split()\n"
        "print(sorted(set(heavy) & set(sys.modules)))"
    )
    done = run(database.environment(), "-c", code)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
