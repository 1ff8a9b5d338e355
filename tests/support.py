"""What tests share: a database with its settings, worker processes, and waiting for something to become true."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from lab.postgres import ExternalServer, PostgresServer
from worker.settings import Settings
from worker.settings_loading import load_settings

T = TypeVar("T")


@dataclass(frozen=True)
class Database:
    """One database of a server."""

    server: PostgresServer | ExternalServer
    name: str

    def environment(self, **overrides: object) -> dict[str, str]:
        """The variables that lead a worker here; every further one as given."""
        parts = psycopg.conninfo.conninfo_to_dict(self.server.dsn(self.name))
        own = {
            "DB_HOST": parts["host"],
            "DB_PORT": parts.get("port", 5432),
            "DB_NAME": self.name,
            "DB_USER": parts["user"],
            "DB_PASSWORD": parts.get("password", ""),
            "EMAIL_FROM_ADDRESS": "bookings@example.org",
            "EMAIL_FROM_NAME": "Acme Bookings",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_ENCRYPTION": "none",
        }
        return {key: str(value) for key, value in (own | overrides).items()}

    def settings(self, **overrides: object) -> Settings:
        """The same as settings."""
        return load_settings(self.environment(**overrides))

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection."""
        return psycopg.connect(self.server.dsn(self.name), autocommit=True)


def eventually(condition: Callable[[], T], what: str, seconds: float = 30.0) -> T:
    """Wait until the condition returns something true, and return it; fail naming `what` otherwise."""
    ends = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@dataclass
class Worker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def log_text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")


@contextmanager
def running_worker(environment: Mapping[str, str], *, uvloop: bool = False) -> Iterator[Worker]:
    """A real worker process; killed at the end if it still runs."""
    command = (
        [sys.executable, "-m", "worker.cli", "worker"]
        if uvloop
        else [sys.executable, "-m", "procrastinate", "--app=worker.app.app", "worker"]
    )
    with tempfile.TemporaryDirectory(prefix="worker-log-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env={**_inherited(), **environment}, stdout=stream, stderr=subprocess.STDOUT
            )
        try:
            yield Worker(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def _inherited() -> dict[str, str]:
    """The environment without settings of ours that a developer may have exported."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "TMPDIR")
    return {key: value for key, value in os.environ.items() if key in kept}
