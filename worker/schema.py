"""Whether a database has this version's schema, as `worker.migrate` records it in `email_schema`."""

from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection

from worker.db import SQL_FOLDER, query
from worker.errors import SchemaMismatch

# The name under which functions, views and triggers are recorded, all together.
API = "api"

# Name -> checksum of what was applied.
Record = dict[str, str]

_NO_SCHEMA = "the database has no schema yet. Run: email-worker migrate"


def migration_files() -> list[Path]:
    """Our migrations, oldest first."""
    return sorted((SQL_FOLDER / "migrations").glob("*.sql"))


async def check_schema(connection: AsyncConnection[Any]) -> None:
    """Raise SchemaMismatch unless the database has exactly this version's migrations."""
    cursor = await connection.execute(query("find_table"), {"name": "email_schema"})
    if await cursor.fetchone() != (True,):
        raise SchemaMismatch(_NO_SCHEMA)
    cursor = await connection.execute(query("read_schema_record"))
    _refuse_older(dict(await cursor.fetchall()))


def check_schema_now(connection: psycopg.Connection[Any]) -> None:
    """The same, for those who can wait."""
    if not has_table(connection, "email_schema"):
        raise SchemaMismatch(_NO_SCHEMA)
    _refuse_older(read_record(connection))


def has_table(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether there is a table of this name."""
    return connection.execute(query("find_table"), {"name": name}).fetchone() == (True,)


def read_record(connection: psycopg.Connection[Any]) -> Record:
    """What has been applied to the database."""
    return dict(connection.execute(query("read_schema_record")).fetchall())


def _refuse_older(record: Record) -> None:
    refuse_newer(record)
    missing = [file.name for file in migration_files() if file.name not in record]
    if missing or API not in record:
        raise SchemaMismatch(
            f"the database lacks {', '.join(missing) or 'functions and views'}. Run: email-worker migrate"
        )


def refuse_newer(record: Record) -> None:
    """Raise SchemaMismatch when a newer version has migrated the database."""
    known = {file.name for file in migration_files()}
    newer = sorted(name for name in record if name[:4].isdigit() and name not in known)
    if newer:
        raise SchemaMismatch(
            f"the database has migrations that this version does not know ({', '.join(newer)}): "
            "a newer version has migrated it. Run that version, or a newer one."
        )
