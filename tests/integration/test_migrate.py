"""email-worker migrate: from nothing, again, by many at once, and what it refuses."""

import re

import psycopg
import pytest
from procrastinate.schema import SchemaManager

from tests.integration.command import Command
from tests.integration.office import PROCRASTINATE, run
from tests.integration.rows import Connection, column, rows, value
from tests.support import Database
from worker import migrate as migration
from worker.db import query
from worker.errors import EmailWorkerError
from worker.migrate import migrate, procrastinate_files
from worker.schema import migration_files

MIGRATE = ("-m", "worker.cli", "migrate")
API = "functions, views and triggers"
UP_TO_DATE = "the schema is up to date\n"


def record(db: Connection) -> dict[str, str]:
    """What the database says has been applied."""
    return dict(rows(db, "SELECT name, checksum FROM email_schema"))


def forget_api(db: Connection) -> None:
    """As if sql/api/ had changed since the last migrate."""
    db.execute("UPDATE email_schema SET checksum = 'of an earlier version' WHERE name = 'api'")


def test_an_empty_database_gets_everything_once(empty_database: Database) -> None:
    """The command tells what it applied; the second time there is nothing to do."""
    first = run(empty_database.environment(), *MIGRATE)
    names = ["procrastinate's schema", *(file.name for file in migration_files()), API]
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [f"applied {name}" for name in names]
    second = run(empty_database.environment(), *MIGRATE)
    assert (second.returncode, second.stdout, second.stderr) == (0, UP_TO_DATE, "")
    with empty_database.connect() as db:
        expected = {*(f"procrastinate/{file.name}" for file in procrastinate_files()), "api"}
        assert set(record(db)) == expected | {file.name for file in migration_files()}


# One interpreter that becomes ten: each of them then runs the command.
TEN_MIGRATIONS = """
import os, sys
import psycopg, worker.cli, worker.db, worker.migrate
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        worker.cli.main(["migrate"])
        sys.exit(0)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_ten_processes_at_once_migrate_once(empty_database: Database) -> None:
    """One works, the others wait and find the work done; all succeed."""
    ten = run(empty_database.environment(), "-c", TEN_MIGRATIONS)
    assert (ten.returncode, ten.stderr) == (0, "")
    lines = ten.stdout.splitlines()
    assert lines.count(UP_TO_DATE.strip()) == 9
    assert len([line for line in lines if line.startswith("applied")]) == len(migration_files()) + 2


@pytest.mark.parametrize("program", [MIGRATE, PROCRASTINATE], ids=["migrate", "worker"])
def test_a_newer_schema_is_refused(database: Database, db: Connection, program: tuple[str, ...]) -> None:
    """Neither migrate nor a worker touches a database that a newer version has migrated."""
    db.execute("INSERT INTO email_schema (name, checksum) VALUES ('9999_from_the_future.sql', 'x')")
    forget_api(db)
    before = record(db)
    refusal = run(database.environment(), *program)
    assert refusal.returncode == 1
    assert "9999_from_the_future.sql" in refusal.stderr
    assert "a newer version has migrated it. Run that version, or a newer one." in refusal.stderr
    assert "Traceback" not in refusal.stderr
    assert record(db) == before


def test_an_edited_migration_is_refused(database: Database, db: Connection, command: Command) -> None:
    """History that reads differently than when it was applied stops everything, and the file is named."""
    db.execute("UPDATE email_schema SET checksum = 'of other words' WHERE name = '0002_jobs.sql'")
    forget_api(db)
    before = record(db)
    ended = command("migrate", **database.environment())
    assert ended.status == 1
    assert ended.err.startswith("email-worker: sql/migrations/0002_jobs.sql was applied in another wording.")
    assert record(db) == before


def test_changed_functions_and_views_are_replaced_whole(database: Database, db: Connection) -> None:
    """When sql/api/ differs from what was applied, all of it is put back, in a database that has jobs."""
    db.execute("DROP VIEW email_queue_depth")
    db.execute("CREATE OR REPLACE FUNCTION email_cancel(job_id text) RETURNS text RETURN 'nonsense'")
    forget_api(db)
    with database.connect() as connection:
        assert migrate(connection) == [API]
        assert migrate(connection) == []
    assert rows(db, "SELECT * FROM email_queue_depth") == []
    with pytest.raises(psycopg.Error, match="no job has the job_id"):
        db.execute("SELECT email_cancel('nope')")


def test_a_failing_migration_leaves_nothing_of_itself(empty_database: Database) -> None:
    """Each file is one transaction: after the obstacle is gone, the same command goes on."""
    with empty_database.connect() as db:
        db.execute("CREATE TABLE email_attempts (theirs text)")
        with pytest.raises((psycopg.Error, EmailWorkerError), match="email_attempts"):
            migrate(db)
        assert sorted(name for name in record(db) if name[0] == "0") == ["0001_vocabulary.sql", "0002_jobs.sql"]
        db.execute("DROP TABLE email_attempts")
        assert migrate(db) == [*(file.name for file in migration_files()[2:]), API]


def test_procrastinates_own_schema_is_respected(empty_database: Database) -> None:
    """Where procrastinate is at home already, its tables and their rows stay, and ours come beside them."""
    with empty_database.connect() as db:
        db.execute(SchemaManager.get_schema().encode())
        db.execute("INSERT INTO procrastinate_jobs (queue_name, task_name) VALUES ('theirs', 'somebody''s')")
        applied = migrate(db)
        assert applied == [*(file.name for file in migration_files()), API]
        assert column(db, "SELECT task_name FROM procrastinate_jobs") == ["somebody's"]
        assert migrate(db) == []


def test_a_newer_procrastinate_brings_its_migrations(empty_database: Database, migrated_template: str) -> None:
    """A database migrated with an older procrastinate gets what is new since, and ends as a fresh one does."""
    older, newer = procrastinate_files()[:-4], procrastinate_files()[-4:]
    with empty_database.connect() as db:
        db.execute(query("create_schema_record"))
        for file in older:
            with db.transaction():
                db.execute(file.read_bytes())
                parameters = {"name": f"procrastinate/{file.name}", "checksum": "of that time"}
                db.execute(query("write_schema_record"), parameters)
        applied = migrate(db)
        assert applied[:4] == [f"procrastinate/{file.name}" for file in newer]
        functions = "SELECT proname, prosrc FROM pg_proc WHERE starts_with(proname, 'procrastinate_') ORDER BY 1, 2"
        upgraded = rows(db, functions)
    with Database(empty_database.server, migrated_template).connect() as fresh:
        assert upgraded == rows(fresh, functions)


def test_migrate_without_the_right_to_create_fails_in_words(empty_database: Database, command: Command) -> None:
    """A role that may not create tables reads what it lacks, not a traceback."""
    with empty_database.connect() as db:
        db.execute("DROP ROLE IF EXISTS email_test_reader")
        db.execute("CREATE ROLE email_test_reader LOGIN PASSWORD 'reader'")
        try:
            role = {"DB_USER": "email_test_reader", "DB_PASSWORD": "reader"}
            ended = command("migrate", **empty_database.environment(**role))
        finally:
            db.execute("DROP ROLE email_test_reader")
    assert ended.status == 1
    assert ended.err.startswith("email-worker: ")
    assert "permission denied" in ended.err


def test_a_busy_table_is_no_lost_connection(
    database: Database, db: Connection, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a lock cannot be had in time, the message speaks of the lock, and not of DB_HOST."""
    forget_api(db)
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", b"SET lock_timeout = '1ms'")
    with db.transaction():
        db.execute("LOCK TABLE email_jobs IN ROW EXCLUSIVE MODE")
        ended = command("migrate", **database.environment())
    assert ended.status == 1
    assert "lock" in ended.err
    assert "cannot connect" not in ended.err
    assert "DB_HOST" not in ended.err


def test_two_migrations_wait_for_each_other(
    empty_database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one cannot begin while the first holds its lock, which is the session's; nor does it wait for ever."""
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", b"SET lock_timeout = '1ms'")
    with empty_database.connect() as first, empty_database.connect() as other:
        assert migrate(first)
        ended = command("migrate", **empty_database.environment())
        assert ended.status == 1
        assert ended.err.startswith("email-worker: another process migrates this database, or died at it")
        assert "DB_HOST" not in ended.err
        # The words say how to find it.
        (place,) = re.findall(r"locktype advisory, classid (\d+), objid (\d+)", ended.err)
        holders = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = (%s, %s)"
        assert column(other, holders, *map(int, place)) == [first.info.backend_pid]
        first.close()
        assert migrate(other) == []
        assert value(other, "SELECT count(*) FROM email_types") == 15
