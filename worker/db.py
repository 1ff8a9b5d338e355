"""Postgres equipment: connection parameters, pools, the statements of `sql/`, array literals.

Every connection carries the same session settings. They are sent with the connection request, so that they cost no
round trip, and a connection that comes back without them runs through a pooler and is refused.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.errors import DatabaseError, DatabaseUnreachable, PoolerInBetween, SchemaMismatch
from worker.settings import Settings

# Nothing in this package waits longer for a connection than this.
CONNECT_SECONDS = 3
POOL_SECONDS = 3.0

# Of a worker, beside one per slot: the journal's, three of procrastinate's, the watchdog's, the keeper's, the limits'.
OTHER_CONNECTIONS = 7

# How long a claim may outlive its batch deadline before Postgres ends the session, and the locks with it.
CLAIM_GRACE_SECONDS = 10

_WHEEL = Path(__file__).parent / "_sql"
SQL_FOLDER = _WHEEL if _WHEEL.is_dir() else Path(__file__).parent.parent / "sql"

# A queue's statistics are always of another moment, so nothing is planned by them: each statement has one good plan,
# found by index and nested loop, and a generic plan keeps planning out of every batch.
_SESSION = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "jit": "off",
    "client_min_messages": "warning",
    # A lost peer is noticed in about 10 s from either side; the defaults take two hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "email_worker.session": "kept",
}
_KEPT = (_SESSION["email_worker.session"],)


@cache
def query(name: str) -> bytes:
    """The statement `sql/queries/{name}.sql`, as bytes, which psycopg takes as trusted."""
    return (SQL_FOLDER / "queries" / f"{name}.sql").read_bytes().rstrip()


def connection_parameters(
    settings: Settings, application: str, session: Mapping[str, str] | None = None, *, planned: bool = False
) -> dict[str, Any]:
    """Keyword arguments for `psycopg.connect`; `planned` leaves the planner its own choice."""
    chosen = _SESSION | dict(session or {})
    if planned:
        chosen = {key: value for key, value in chosen.items() if not key.startswith(("enable_", "plan_"))}
    return {
        "host": settings.db_host,
        "port": settings.db_port,
        "dbname": settings.db_name,
        "user": settings.db_user,
        "password": settings.db_password.reveal() or None,
        "sslmode": settings.db_ssl_mode,
        "connect_timeout": CONNECT_SECONDS,
        "application_name": f"{application} {settings.worker_name}"[:63],
        "options": " ".join(f"-c {key}={value}" for key, value in chosen.items()),
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 10000,
        "prepare_threshold": 1,
    }


def open_pool(
    settings: Settings, application: str, *, most: int, least: int = 1, session: Mapping[str, str] | None = None
) -> AsyncConnectionPool[AsyncConnection[Any]]:
    """A pool of autocommit connections with these session settings, not opened yet."""
    return AsyncConnectionPool(
        kwargs=connection_parameters(settings, application, session) | {"autocommit": True},
        min_size=least,
        max_size=most,
        timeout=POOL_SECONDS,
        reconnect_timeout=POOL_SECONDS,
        configure=check_session,
        name=application,
        open=False,
    )


def claim_session(deadline_seconds: float) -> dict[str, str]:
    """Session settings by which Postgres itself ends a claim whose worker hangs long after the batch's deadline."""
    return {"idle_in_transaction_session_timeout": str(int((deadline_seconds + CLAIM_GRACE_SECONDS) * 1000))}


async def check_session(connection: AsyncConnection[Any]) -> None:
    """Raise PoolerInBetween unless the session settings arrived."""
    cursor = await connection.execute(query("check_session"))
    if await cursor.fetchone() != _KEPT:
        raise PoolerInBetween(_POOLER)


_POOLER = (
    "the database connection goes through a pooler such as PgBouncer, which drops the session settings that it begins "
    "with, whatever its pool mode; in transaction mode LISTEN and session locks do not work either. Connect directly: "
    "let DB_HOST and DB_PORT name Postgres itself."
)


def unreachable(settings: Settings, error: BaseException) -> DatabaseUnreachable | PoolerInBetween:
    """What a failed connection means, in words for whoever has to mend it."""
    text = "; ".join(line.strip() for line in str(error).strip().splitlines()).rstrip(".?")
    where = f"{settings.db_host}:{settings.db_port}/{settings.db_name} as {settings.db_user}"
    if "unsupported startup parameter" in text:
        return PoolerInBetween(_POOLER)
    if isinstance(error, PoolTimeout) or "too many" in text or "remaining connection slots" in text:
        return DatabaseUnreachable(f"Postgres at {where} gave no connection ({text}); {_too_few(settings)}")
    if f'database "{settings.db_name}" does not exist' in text:
        return DatabaseUnreachable(f"Postgres at {where}: {text}. Make it (createdb), or check DB_NAME.")
    return DatabaseUnreachable(
        f"cannot connect to Postgres at {where}: {text}. "
        "Check DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD and DB_SSL_MODE."
    )


async def check_room(connection: AsyncConnection[Any], settings: Settings) -> None:
    """Raise DatabaseUnreachable when the server's limits leave no room for all connections of a worker."""
    cursor = await connection.execute(query("free_connections"))
    row = await cursor.fetchone()
    needed = settings.worker_concurrency + OTHER_CONNECTIONS
    # This one will be closed again.
    if row is not None and row[0] + 1 < needed:
        raise DatabaseUnreachable(
            f"Postgres has room for {max(0, row[0] + 1)} more connections, and {_too_few(settings)}"
        )


def _too_few(settings: Settings) -> str:
    needed = settings.worker_concurrency + OTHER_CONNECTIONS
    return (
        f"a worker needs up to WORKER_CONCURRENCY + {OTHER_CONNECTIONS} = {needed}: lower WORKER_CONCURRENCY, or raise "
        "max_connections in Postgres (or the role's CONNECTION LIMIT)."
    )


def failed_statement(error: psycopg.Error) -> DatabaseError:
    """What a statement of the command line failed for, in words."""
    said = error.diag.message_primary or str(error).strip()
    match error:
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedFunction():
            return SchemaMismatch(f"{said}. Run: email-worker migrate")
        case psycopg.errors.InsufficientPrivilege():
            return DatabaseError(f"{said}. DB_USER must own the tables, and be allowed to CREATE in the schema.")
        case psycopg.errors.LockNotAvailable():
            return DatabaseError(f"a table was busy for too long ({said}). Try again at a quieter time.")
        case _ if (error.sqlstate or "").startswith("EM") and error.diag.message_hint:
            return DatabaseError(f"{said}. {error.diag.message_hint}")
        case _:
            return DatabaseError(said)


def array_literal(values: Iterable[object]) -> str:
    """A Postgres array in text form: `{1,2}`, `{"a b",NULL}`. A tenth of the cost of adapting a list."""
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def connect_once(
    settings: Settings, application: str, session: Mapping[str, str] | None = None
) -> psycopg.Connection[Any]:
    """One plain connection for a thread; raises DatabaseUnreachable or PoolerInBetween in words."""
    parameters = connection_parameters(settings, application, session, planned=True)
    try:
        connection = psycopg.connect(**parameters, autocommit=True)
        found = connection.execute(query("check_session")).fetchone()
    except psycopg.OperationalError as error:
        raise unreachable(settings, error) from None
    if found != _KEPT:
        # A pooler's server connection would keep the lock of a migrate after we are gone.
        connection.close()
        raise PoolerInBetween(_POOLER)
    return connection
