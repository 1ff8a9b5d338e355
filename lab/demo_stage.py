"""The demo's processes and folders: an embedded Postgres, a mail catcher, workers; all gone when the stage closes.

The workers are real `procrastinate worker` processes, told everything by their environment.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg.conninfo import conninfo_to_dict

from lab.demo_jobs import BUSY, FULL, GONE
from lab.postgres import PostgresServer
from lab.sink_process import LAB_PARENT, Sink
from worker.migrate import migrate

DATABASE = "demo"
SENDER = {"EMAIL_FROM_ADDRESS": "bookings@tickets.example.com", "EMAIL_FROM_NAME": "Acme Tickets"}

# The brakes. The catcher takes its time for each mail and each worker has few connections, so that a person can watch
# and a killed worker has mail in hand. Together they limit a worker to CONNECTIONS / REPLY_DELAY mails a second.
REPLY_DELAY_SECONDS = 0.02
CONNECTIONS = 3
# More retries than any refusal at *@full.example has patience for.
ALWAYS = 1000

STOP_SECONDS = 8.0
LOG_LINES_SHOWN = 15
# What a worker needs of this process's environment; no setting that somebody may have exported.
INHERITED = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "TMPDIR",
)


class DemoFailedError(RuntimeError):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class Folders:
    """Where the demo leaves what it made."""

    root: Path

    @property
    def mails(self) -> Path:
        """One .eml file for each mail that arrived."""
        return self.root / "mails"

    @property
    def logs(self) -> Path:
        """The workers' logs, and the catcher's ledger."""
        return self.root / "logs"

    @property
    def ledger(self) -> Path:
        """What the catcher took, a line a mail."""
        return self.logs / "catcher-ledger.txt"

    @property
    def index(self) -> Path:
        """The page to look at."""
        return self.root / "index.html"

    def empty(self) -> None:
        """Remove what an earlier demo left, and nothing else that may be there."""
        try:
            for folder in (self.mails, self.logs):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            self.index.unlink(missing_ok=True)
        except OSError as error:
            raise DemoFailedError(f"cannot write to {self.root}: {error.strerror}") from None


@dataclass(frozen=True)
class Worker:
    """A worker process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


class Stage:
    """Everything that runs. Opened step by step, so that each can be told; `close` ends all of it."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root)
        self.workers: dict[str, Worker] = {}
        self.killed: str | None = None
        self._stack = ExitStack()
        self._environment: dict[str, str] = {}
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None
        self._sink: Sink | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A second Ctrl-C must not leave half of it running.
        before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            for worker in self.workers.values():
                worker.process.kill()
                worker.process.wait()
            self._stack.close()
        finally:
            for number, handler in before:
                signal.signal(number, handler)

    @property
    def db(self) -> psycopg.Connection[tuple[Any, ...]]:
        """The demo's own autocommit connection."""
        assert self._connection is not None
        return self._connection

    @property
    def sink(self) -> Sink:
        """The mail catcher."""
        assert self._sink is not None
        return self._sink

    def start_postgres(self) -> str:
        """Start it, make the database and its schema; returns the server's version."""
        server = self._stack.enter_context(PostgresServer())
        server.create_database(DATABASE)
        dsn = server.dsn(DATABASE)
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
        self._connection = self._stack.enter_context(psycopg.connect(dsn, autocommit=True))
        parts = conninfo_to_dict(dsn)
        self._environment = {
            "DB_HOST": str(parts["host"]),
            "DB_PORT": str(parts["port"]),
            "DB_NAME": DATABASE,
            "DB_USER": str(parts["user"]),
        }
        return self._connection.info.parameter_status("server_version") or ""

    def start_catcher(self) -> int:
        """Start the mail catcher; returns its port."""
        sink = Sink(
            ledger=self.folders.ledger,
            maildir=self.folders.mails,
            reply_delay=REPLY_DELAY_SECONDS,
            refuse=[f"*@{GONE}"],
            refuse_first=[(f"*@{BUSY}", 1), (f"*@{FULL}", ALWAYS)],
        )
        self._sink = self._stack.enter_context(sink)
        return sink.port

    def start_worker(self) -> str:
        """Start one more worker; returns its name."""
        name = f"worker-{len(self.workers) + 1}"
        log = self.folders.logs / f"{name}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "procrastinate", "--app=worker.app.app", "worker"],
                env={**inherited(), **self._environment, **self._settings(name)},
                cwd=self.folders.logs,  # where no .env of somebody's lies
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we end the workers in our own order
            )
        self.workers[name] = Worker(name, process, log)
        return name

    def _settings(self, name: str) -> Mapping[str, str]:
        return SENDER | {
            "WORKER_NAME": name,
            "WORKER_CONCURRENCY": "6",
            "WORKER_BATCH_SIZE": "25",
            "EMAIL_JOB_CONCURRENCY": str(CONNECTIONS),
            "EMAIL_RETRY_DELAY_SECONDS": "2",
            "EMAIL_DOUBT_SECONDS": "3",
            "EMAIL_UNSUBSCRIBE_URL": "https://tickets.example.com/unsubscribe/{id}",
            "SMTP_HOST": self.sink.host,
            "SMTP_PORT": str(self.sink.port),
            "SMTP_ENCRYPTION": "none",
        }

    def kill_worker(self, name: str) -> None:
        """End it as a power cut would."""
        self.killed = name
        self.workers[name].process.kill()
        self.workers[name].process.wait()

    def stop_workers(self) -> None:
        """Ask the workers to finish, and wait for them. Raises DemoFailedError for one that does not end well."""
        living = [worker for worker in self.workers.values() if worker.name != self.killed]
        for worker in living:
            worker.process.terminate()
        for worker in living:
            try:
                status = worker.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                raise DemoFailedError(f"{worker.name} did not stop within {STOP_SECONDS:g} s{_tail(worker)}") from None
            if status:
                raise DemoFailedError(f"{worker.name} stopped with exit status {status}{_tail(worker)}")

    def check_workers(self) -> None:
        """Raise DemoFailedError when a worker ended that nobody killed."""
        for worker in self.workers.values():
            status = worker.process.poll()
            if status is not None and worker.name != self.killed:
                raise DemoFailedError(f"{worker.name} ended by itself with exit status {status}{_tail(worker)}")


def inherited() -> dict[str, str]:
    """This process's environment without settings, and with the path to the worker's code."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (str(LAB_PARENT), kept.get("PYTHONPATH"))))
    return kept


def _tail(worker: Worker) -> str:
    lines = worker.log.read_text("utf-8", "replace").splitlines()[-LOG_LINES_SHOWN:]
    return f"; the end of its log:\n{chr(10).join(lines)}"
