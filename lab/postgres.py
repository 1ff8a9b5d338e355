"""An embedded PostgreSQL server for the tests, the demo and the benchmark.

    with PostgresServer() as server:
        server.create_database("demo")
        psycopg.connect(server.dsn("demo"))

It listens on a unix socket (with `tcp=True` also on 127.0.0.1), keeps PostgreSQL's default durability, and
disappears with the process that started it. Linux only: it reads /proc and uses the parent-death signal.

Run `python -m lab.postgres [--folder F] [--tcp]` to start one by hand until Ctrl-C.

Environment: when TEST_DATABASE_HOST is set, `server_from_environment()` gives an object for a real server
(TEST_DATABASE_HOST, TEST_DATABASE_PORT, TEST_DATABASE_USER, TEST_DATABASE_PASSWORD) with the same `dsn`,
`create_database` and `drop_database`. Its `controllable` is False: a test that stops, kills or freezes the
server has to be skipped then.
"""

import argparse
import atexit
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from lab import postgres_install, postgres_process

UNIX_PORT = 5432
MAX_CONNECTIONS = 200
START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

StopMode = Literal["fast", "immediate"]


class PostgresFailedError(RuntimeError):
    """PostgreSQL did not start; the message carries the end of its log."""


class PostgresServer:
    """One PostgreSQL server in its own data folder; a folder that it made itself is deleted by `close`."""

    controllable = True
    user = "postgres"

    def __init__(
        self, folder: Path | None = None, settings: Mapping[str, str] | None = None, *, tcp: bool = False
    ) -> None:
        self.settings = dict(settings or {})
        self.tcp = tcp
        self.port = postgres_process.free_tcp_port() if tcp else UNIX_PORT
        self._account = postgres_install.unprivileged_account()
        self._binaries = postgres_install.binaries(self._account)
        self._owns_folder = folder is None
        self.folder = folder.resolve() if folder else postgres_install.temporary_folder("lab-pg-", self._account)
        # Always a folder of its own: the path stays short, and others stay out of a server without passwords.
        self.socket_folder = str(postgres_install.temporary_folder("lab-pgs-", self._account))
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._creator = os.getpid()
        atexit.register(self.close)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process is not None and running else None

    def dsn(self, database: str = "postgres") -> str:
        """The libpq connection string of a database, over the unix socket."""
        return make_conninfo("", host=self.socket_folder, port=self.port, user=self.user, dbname=database)

    def tcp_dsn(self, database: str = "postgres") -> str:
        """The libpq connection string of a database, over TCP (for a server made with `tcp=True`)."""
        return make_conninfo("", host="127.0.0.1", port=self.port, user=self.user, dbname=database)

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` when given."""
        create_database(self.dsn(), name, template)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, disconnecting whoever uses it."""
        drop_database(self.dsn(), name)

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Start the server (making its data folder when needed) and wait until it takes connections."""
        if self.pid is not None:
            return
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        self._process = postgres_process.spawn(self._command(), self._account, self.log)
        try:
            postgres_process.wait_until_ready(self._process, self.dsn(), timeout)
        except BaseException as error:
            self.kill()
            if isinstance(error, TimeoutError | ChildProcessError):
                raise self._failure(str(error)) from error
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and keep its data; `immediate` skips the checkpoint, as a crash would."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT if mode == "fast" else signal.SIGQUIT)
        postgres_process.thaw(process)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            postgres_process.kill(process)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop the server and start it again, at the same address."""
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill the postmaster and all of its children at once with SIGKILL; `start` recovers the data."""
        process, self._process = self._process, None
        if process is not None:
            postgres_process.kill(process)

    def freeze(self) -> None:
        """Stop every process of the server in its tracks: connections stay open, and nothing answers."""
        if self._process is not None:
            postgres_process.freeze(self._process)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self._process is not None:
            postgres_process.thaw(self._process)

    def close(self) -> None:
        """Stop the server and delete what is ours; safe to call twice."""
        if os.getpid() != self._creator:  # an exit handler inherited by a forked child
            return
        self.stop("immediate" if self._owns_folder else "fast")
        shutil.rmtree(self.socket_folder, ignore_errors=True)
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": str(self.port),
            "unix_socket_directories": self.socket_folder,
            "max_connections": str(MAX_CONNECTIONS),
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.data), *options]

    def _initialise(self) -> None:
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        postgres_install.give(self.data, self._account)
        if self._account is not None and not postgres_install.reachable(self.data, self._account):
            raise PostgresFailedError(f"the account {self._account.name} cannot enter the folders above {self.data}")
        # The builtin locale gives UTF-8 and the same order everywhere, whatever locales the system has.
        locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        command = [str(self._binaries / "initdb"), "-D", str(self.data), "-U", self.user, *locale]
        options = ["--auth=trust", "--no-sync", "--no-instructions"]
        if postgres_process.run([*command, *options], self._account, self.log) != 0:
            raise self._failure("initdb failed")

    def _failure(self, reason: str) -> PostgresFailedError:
        return PostgresFailedError(f"{reason}; the end of {self.log}:\n{postgres_process.tail(self.log)}")


@dataclass(frozen=True)
class ExternalServer:
    """A real server, named by the environment, with that part of PostgresServer's surface it can offer."""

    host: str
    port: int
    user: str
    password: str | None
    controllable: bool = False

    def dsn(self, database: str = "postgres") -> str:
        """The libpq connection string of a database."""
        return make_conninfo(
            "", host=self.host, port=self.port, user=self.user, password=self.password, dbname=database
        )

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` when given."""
        create_database(self.dsn(), name, template)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, disconnecting whoever uses it."""
        drop_database(self.dsn(), name)


def server_from_environment() -> ExternalServer | None:
    """The real server that TEST_DATABASE_HOST names, or None when that is not set."""
    host = os.environ.get("TEST_DATABASE_HOST")
    if not host:
        return None
    return ExternalServer(
        host=host,
        port=int(os.environ.get("TEST_DATABASE_PORT") or 5432),
        user=os.environ.get("TEST_DATABASE_USER") or "postgres",
        password=os.environ.get("TEST_DATABASE_PASSWORD") or None,
    )


def create_database(dsn: str, name: str, template: str | None = None) -> None:
    """Create a database through the connection string of another one of its server."""
    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def drop_database(dsn: str, name: str) -> None:
    """Drop a database, if it exists, through the connection string of another one of its server."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def main() -> None:
    """Run one server by hand until Ctrl-C (or SIGTERM), after printing how to connect to it."""
    parser = argparse.ArgumentParser(prog="python -m lab.postgres", description=main.__doc__)
    parser.add_argument("--folder", type=Path, help="keep the data in this folder (default: a temporary one)")
    parser.add_argument("--tcp", action="store_true", help="also listen on 127.0.0.1")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with PostgresServer(arguments.folder, tcp=arguments.tcp) as server:
            print(_how_to_connect(server), flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)


def _how_to_connect(server: PostgresServer) -> str:
    host = "127.0.0.1" if server.tcp else server.socket_folder
    return (
        f"PostgreSQL is running (log: {server.log}); Ctrl-C stops it.\n\n"
        f"psql -h {host} -p {server.port} -U {server.user} postgres\n\n"
        f"DB_HOST={host}\nDB_PORT={server.port}\nDB_USER={server.user}"
    )


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
