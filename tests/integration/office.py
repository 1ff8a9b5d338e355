"""A post office for tests: a database, a mail sink that keeps what it takes, and a worker between them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from lab.sink_process import LedgerEntry, Sink
from tests.integration.rows import Connection, insert_job, job
from tests.support import Database, Worker, eventually, running_worker

ROOT = Path(__file__).parent.parent.parent
PROCRASTINATE = ("-m", "procrastinate", "--app=worker.app.app", "worker")
EMAIL_WORKER = ("-m", "worker.cli", "worker")
# Both ways to start a worker.
WORKER_COMMANDS = [PROCRASTINATE, EMAIL_WORKER]


def inherited() -> dict[str, str]:
    """The environment without settings of ours that a developer may have exported."""
    kept = ("PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
    return {key: text for key, text in os.environ.items() if key in kept}


def run(environment: Mapping[str, str], *command: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run Python with some arguments to its end: `run(environment, "-m", "worker.cli", "migrate")`."""
    return subprocess.run(
        [sys.executable, *command],
        env={**inherited(), "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@dataclass(frozen=True)
class Office:
    """One running worker with its database and its sink."""

    database: Database
    db: Connection
    sink: Sink
    maildir: Path
    worker: Worker

    def enqueue(self, job_id: str, **columns: object) -> None:
        """Put a job into the queue."""
        insert_job(self.db, job_id, **columns)

    def end_of(self, job_id: str) -> str:
        """Wait for the end of a job, and return its status."""

        def ended() -> str | None:
            if self.worker.process.poll() is not None:
                raise AssertionError(f"the worker exited:\n{self.worker.log_text()[-3000:]}")
            (status,) = job(self.db, ["status"], job_id)
            return None if status == "pending" else status

        try:
            return eventually(ended, f"the end of {job_id}") or ""
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.worker.log_text()[-3000:]}") from None

    def deliver(self, job_id: str, **columns: object) -> EmailMessage:
        """Enqueue a job, and return the one mail that it became."""
        self.enqueue(job_id, **columns)
        return self.delivered(job_id)

    def delivered(self, job_id: str) -> EmailMessage:
        """The one mail that a job became."""
        assert self.end_of(job_id) == "sent", job(self.db, ["error_message"], job_id)
        (mail,) = self.mails(job_id)
        return mail

    def refuse(self, job_id: str, **columns: object) -> str:
        """Enqueue a job that must end as dead without a mail, and return the reason."""
        self.enqueue(job_id, **columns)
        return self.died(job_id)

    def died(self, job_id: str) -> str:
        """Why a job is dead; nothing was delivered for it."""
        assert self.end_of(job_id) == "dead"
        assert self.mails(job_id) == []
        (reason,) = job(self.db, ["error_message"], job_id)
        return str(reason)

    def mails(self, job_id: str) -> list[EmailMessage]:
        """Every mail that the sink has of a job, oldest first."""
        (wanted,) = job(self.db, ["id"], job_id)
        # The sink numbers its files in the order of its ledger.
        numbers = [number for number, entry in enumerate(self.sink.ledger(), 1) if entry.job_id == str(wanted)]
        return [parse(self.maildir / f"{number:06d}.eml") for number in numbers]

    def envelopes(self, job_id: str) -> list[LedgerEntry]:
        """What the sink noted of each of a job's mails."""
        (wanted,) = job(self.db, ["id"], job_id)
        return [entry for entry in self.sink.ledger() if entry.job_id == str(wanted)]


def parse(file: Path) -> EmailMessage:
    """A stored mail, read by the standard library."""
    mail = message_from_bytes(file.read_bytes(), policy=policy.default)
    assert isinstance(mail, EmailMessage)
    return mail


def part(mail: EmailMessage, kind: str) -> str:
    """The text of a mail's part, `html` or `plain`."""
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content())


@contextmanager
def open_office(database: Database, folder: Path, sink: Sink, **settings: object) -> Iterator[Office]:
    """A worker at work on a database, sending to a sink that keeps its mails in `folder`."""
    environment = database.environment(SMTP_PORT=sink.port, **settings)
    with database.connect() as db, running_worker(environment) as worker:
        yield Office(database, db, sink, folder, worker)
