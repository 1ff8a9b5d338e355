"""Bringing a database to this version's schema.

`sql/migrations/` is applied in order, each file once, in its own transaction; `sql/api/` (functions, views, triggers)
is replaced whole when one of its files changed. procrastinate's own schema comes first, by its own migrations. Ten
processes may start this at once: an advisory lock lets one work, and the others find the work done.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
from procrastinate.schema import SchemaManager

from worker.db import SQL_FOLDER, query
from worker.errors import DatabaseError, SchemaMismatch
from worker.schema import API, Record, has_table, migration_files, read_record, refuse_newer

# A table that is busy for longer than this should be migrated at another time. No other migrate is waited for any
# longer: it may have died, and left its session and its lock behind.
LOCK_TIMEOUT = b"SET lock_timeout = '30s'"


def api_files() -> list[Path]:
    """Functions, views and triggers."""
    return sorted((SQL_FOLDER / "api").glob("*.sql"))


def procrastinate_files() -> list[Path]:
    """procrastinate's migrations, oldest first."""
    return sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))


def migrate(connection: psycopg.Connection[Any]) -> list[str]:
    """Apply what is missing; returns the names of what was applied. Raises SchemaMismatch, DatabaseError."""
    connection.execute(LOCK_TIMEOUT)
    _lock(connection)
    connection.execute(query("create_schema_record"))
    record = read_record(connection)
    refuse_newer(record)
    applied = _apply_procrastinate(connection, record)
    for file in migration_files():
        if file.name not in record:
            _apply(connection, [(file.name, _checksum([file]))], file.read_bytes())
            applied.append(file.name)
        elif record[file.name] != _checksum([file]):
            raise SchemaMismatch(
                f"sql/migrations/{file.name} was applied in another wording. A migration is history: "
                "put it back as it was, and write the change as a new file."
            )
    api = _checksum(api_files())
    if record.get(API) != api:
        _apply(connection, [(API, api)], b"\n".join(file.read_bytes() for file in api_files()))
        applied.append("functions, views and triggers")
    return applied


def _lock(connection: psycopg.Connection[Any]) -> None:
    """From now on no other process migrates, until this session ends."""
    try:
        connection.execute(query("lock_migrations"))
    except psycopg.errors.LockNotAvailable:
        raise DatabaseError(
            "another process migrates this database, or died at it and left its session behind. Run this again when "
            "it is done; pg_locks shows its session (locktype advisory, classid 1162690889, objid 0), which "
            "pg_terminate_backend(pid) ends."
        ) from None


def _apply_procrastinate(connection: psycopg.Connection[Any], record: Record) -> list[str]:
    files = procrastinate_files()
    names = [(f"procrastinate/{file.name}", _checksum([file])) for file in files]
    if not any(name in record for name, _ in names):
        # Never recorded: either not there, or put there by procrastinate's own command, which is then up to date.
        is_there = has_table(connection, "procrastinate_jobs")
        schema = b"" if is_there else SchemaManager.get_schema().encode()
        _apply(connection, names, schema)
        return ["procrastinate's schema"] if schema else []
    applied = []
    for file, (name, checksum) in zip(files, names, strict=True):
        if name not in record:
            _apply(connection, [(name, checksum)], file.read_bytes())
            applied.append(name)
    return applied


def _apply(connection: psycopg.Connection[Any], names: Iterable[tuple[str, str]], statements: bytes) -> None:
    with connection.transaction():
        if statements:
            connection.execute(statements)
        for name, checksum in names:
            connection.execute(query("write_schema_record"), {"name": name, "checksum": checksum})


def _checksum(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
