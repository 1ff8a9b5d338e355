"""Runs the fast SMTP sink (`lab.sink`) as a subprocess, and reads its counters and its ledger."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

START_TIMEOUT = 15.0
ANSWER_TIMEOUT = 30.0
LAB_PARENT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Counts:
    """What the sink has counted since its start."""

    accepted: int
    connections: int
    cpu_seconds: float


@dataclass(frozen=True)
class LedgerEntry:
    """One accepted mail; `job_id` and `message_id` are "-" when the mail had no such header."""

    time: float
    job_id: str
    message_id: str
    recipient: str  # several are joined with commas


class Sink:
    """A running sink, at `host` and `port`; `process` is there for sending it signals."""

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        port: int = 0,
        ledger: Path | None = None,
        maildir: Path | None = None,
        reply_delay: float = 0.0,
        refuse: Sequence[str] = (),
        refuse_first: Sequence[tuple[str, int]] = (),
        without: Sequence[str] = (),
    ) -> None:
        self.port = port
        self.ledger_path = ledger
        self.process: subprocess.Popen[bytes] | None = None
        self._output = b""
        self._options = [
            *(("--ledger", str(ledger)) if ledger else ()),
            *(("--maildir", str(maildir)) if maildir else ()),
            *("--reply-delay", str(reply_delay)),
            *(part for pattern in refuse for part in ("--refuse", pattern)),
            *(part for pattern, times in refuse_first for part in ("--refuse-first", pattern, str(times))),
            *(part for name in without for part in ("--without", name)),
        ]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the process and wait until it listens; after `stop` or `kill` at the same port again."""
        command = [sys.executable, "-m", "lab.sink", "--port", str(self.port), "--until-stdin-closes"]
        search_path = os.pathsep.join(filter(None, (str(LAB_PARENT), os.environ.get("PYTHONPATH"))))
        self._output = b""
        self.process = subprocess.Popen(
            [*command, *self._options],
            # Its standard input closes when this process dies, in whatever way: then the sink exits.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search_path},
            start_new_session=True,  # a Ctrl-C in the terminal is not for the sink
        )
        try:
            self.port = int(self._read_line(START_TIMEOUT).rpartition(b":")[2])
        except BaseException:
            self.kill()
            raise

    def counts(self) -> Counts:
        """The counters now; the sink goes on."""
        return self._counts_after(signal.SIGUSR1)

    def stop(self) -> Counts:
        """Stop the sink in good order and return its last counters."""
        counts = self._counts_after(signal.SIGTERM)
        self._running().wait(ANSWER_TIMEOUT)
        self.kill()
        return counts

    def kill(self) -> None:
        """Kill the process at once, if there is one."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def ledger(self) -> list[LedgerEntry]:
        """The accepted mails so far, oldest first."""
        return [] if self.ledger_path is None else read_ledger(self.ledger_path)

    def _running(self) -> subprocess.Popen[bytes]:
        if self.process is None:
            raise RuntimeError("the sink is not running")
        return self.process

    def _counts_after(self, number: signal.Signals) -> Counts:
        self._running().send_signal(number)
        return Counts(**json.loads(self._read_line(ANSWER_TIMEOUT)))

    def _read_line(self, timeout: float) -> bytes:
        output = self._running().stdout
        assert output is not None
        poll = select.poll()  # select() would fail in a process with many open files
        poll.register(output, select.POLLIN)
        deadline = time.monotonic() + timeout
        while b"\n" not in self._output:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"the sink said nothing within {timeout:g} s")
            chunk = os.read(output.fileno(), 65_536)
            if not chunk:
                raise ChildProcessError(f"the sink exited with code {self._running().wait()}")
            self._output += chunk
        line, _, self._output = self._output.partition(b"\n")
        return line


def read_ledger(path: Path) -> list[LedgerEntry]:
    """The entries of a ledger file; a last line still being written is left out."""
    complete, _, _ = path.read_bytes().rpartition(b"\n")
    return [_entry(line) for line in complete.decode(errors="replace").split("\n") if line]


def _entry(line: str) -> LedgerEntry:
    moment, job_id, message_id, recipient = line.split(" ", 3)
    return LedgerEntry(float(moment), job_id, message_id, recipient)
