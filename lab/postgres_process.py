"""Starts, watches and signals the processes of a PostgreSQL server."""

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from lab.postgres_install import Account

POLL_INTERVAL = 0.02
EXIT_TIMEOUT = 10.0
LOG_LINES_SHOWN = 30
PR_SET_PDEATHSIG = 1
# Below the range that the system hands out to outgoing connections: one of those could otherwise take the
# port while the server is stopped for a restart.
TCP_PORTS = range(15_000, 32_000)

# Loaded here because nothing should be imported between fork and exec.
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Status:
    """What /proc tells about a process."""

    alive: bool
    parent: int
    group: int


def spawn(command: list[str], account: Account | None, log: Path) -> subprocess.Popen[bytes]:
    """Start one of PostgreSQL's programs as the account, with its output going to the log."""
    # The parent-death signal comes when the *thread* that forked ends, so only the main thread asks for it.
    in_main_thread = threading.current_thread() is threading.main_thread()
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=_environment(),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the server in our own order
            preexec_fn=_quit_with_parent if in_main_thread else None,  # one system call only
        )


def run(command: list[str], account: Account | None, log: Path) -> int:
    """Run one of PostgreSQL's programs to its end and return its exit code."""
    process = spawn(command, account, log)
    try:
        return process.wait()
    except BaseException:
        _kill_group(process)
        raise


def wait_until_ready(process: subprocess.Popen[bytes], dsn: str, timeout: float) -> None:
    """Return once the server takes connections; raises ChildProcessError or TimeoutError."""
    deadline = time.monotonic() + timeout
    while True:
        if process.poll() is not None:
            raise ChildProcessError(f"PostgreSQL exited with code {process.returncode}")
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"PostgreSQL takes no connections after {timeout:g} s: {error}") from error
        time.sleep(POLL_INTERVAL)


def freeze(process: subprocess.Popen[bytes]) -> None:
    """SIGSTOP the postmaster, then its children: a stopped postmaster cannot fork another one meanwhile."""
    process.send_signal(signal.SIGSTOP)
    for pid in children(process.pid):
        _signal(pid, signal.SIGSTOP)


def thaw(process: subprocess.Popen[bytes]) -> None:
    """SIGCONT the postmaster's children and the postmaster (harmless when they are not stopped)."""
    for pid in children(process.pid):
        _signal(pid, signal.SIGCONT)
    process.send_signal(signal.SIGCONT)


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the postmaster and all of its children, and wait until they are gone."""
    process.send_signal(signal.SIGSTOP)
    pids = children(process.pid)
    process.kill()
    for pid in pids:
        _signal(pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + EXIT_TIMEOUT
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.002)


def children(parent: int) -> list[int]:
    """The processes whose parent is `parent`."""
    return [pid for pid, status in _processes() if status.parent == parent]


def free_tcp_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    for port in random.sample(TCP_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free TCP port on 127.0.0.1")


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        with log.open(errors="replace") as lines:
            return "".join(deque(lines, LOG_LINES_SHOWN))
    except FileNotFoundError:
        return "(no log)\n"


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    # initdb's helpers stay in its process group, and would go on writing into a folder that we delete next.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + EXIT_TIMEOUT
    while any(group == process.pid for group in _living_groups()) and time.monotonic() < deadline:
        time.sleep(0.002)


def _environment() -> dict[str, str]:
    # PGDATA, PGOPTIONS and the like are meant for clients of other servers. A known time zone also spares
    # initdb the search for the system's.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
    return {**inherited, "LC_ALL": "C", "TZ": "UTC"}


def _quit_with_parent() -> None:
    # Runs after the change of user, which would clear the setting. SIGQUIT is the immediate shutdown.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)


def _living_groups() -> Iterator[int]:
    return (status.group for _, status in _processes() if status.alive)


def _processes() -> Iterator[tuple[int, Status]]:
    for name in os.listdir("/proc"):
        if name.isdigit() and (status := _status(int(name))) is not None:
            yield int(name), status


def _status(pid: int) -> Status | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    state, parent, group = stat[stat.rindex(")") + 1 :].split()[:3]
    # A zombie no longer holds anything; in a container nobody may ever collect it.
    return Status(alive=state not in "ZX", parent=int(parent), group=int(group))


def _alive(pid: int) -> bool:
    status = _status(pid)
    return status is not None and status.alive


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
