"""A very fast SMTP sink for the benchmark and the kill tests: it takes mails, and can tell which.

Run it as a process: `python -m lab.sink --port 0 --ledger FILE`. Its first line of output is
"listening HOST:PORT". SIGUSR1 makes it print {"accepted": n, "connections": n, "cpu_seconds": x} as one line;
SIGTERM or SIGINT makes it print that line and exit with 0. `lab.sink_process.Sink` does all this for tests.

The ledger has one line for each accepted mail: unix time, X-Job-Id, Message-ID and recipients (joined with
commas; "-" stands for an absent header). A mail is in the ledger before its 250 reply is sent, and before any
--reply-delay, so the ledger knows every mail that a client may believe delivered. It is not synced to disk.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.sink_protocol import SinkProtocol
from lab.sink_state import EXTENSIONS, SinkState

BACKLOG = 1024


def main() -> None:
    """Run the sink until SIGTERM or SIGINT."""
    options = _parser().parse_args()
    state = SinkState(
        extensions=tuple(name for name in EXTENSIONS if name not in options.without),
        ledger=_open_ledger(options.ledger),
        maildir=options.maildir,
        reply_delay=options.reply_delay,
        refuse=tuple(pattern.lower() for pattern in options.refuse),
        refuse_first=tuple((pattern.lower(), int(times)) for pattern, times in options.refuse_first),
        stored=_prepare_maildir(options.maildir),
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(state, options.host, options.port, options.until_stdin_closes))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.sink", description="A fast SMTP sink.")
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="0 chooses a free one")
    add("--ledger", type=Path, help="append one line for each accepted mail to this file")
    add("--maildir", type=Path, help="write each accepted mail to this folder as NNNNNN.eml")
    add("--reply-delay", type=float, default=0.0, help="seconds before the reply to the final dot")
    add("--refuse", action="append", default=[], metavar="PATTERN", help="refuse these recipients: 550")
    add(
        "--refuse-first",
        action="append",
        default=[],
        nargs=2,
        metavar=("PATTERN", "N"),
        help="refuse the first N tries of each of these recipients: 451",
    )
    add("--without", action="append", default=[], choices=EXTENSIONS, help="do not offer this extension")
    add(
        "--until-stdin-closes",
        action="store_true",
        help="exit when standard input ends, as when a parent dies",
    )
    return parser


def _open_ledger(path: Path | None) -> int | None:
    return None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _prepare_maildir(folder: Path | None) -> int:
    """Make the folder, and return the highest number in it: an earlier run's mails are never overwritten."""
    if folder is None:
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    return max((int(path.stem) for path in folder.glob("*.eml") if path.stem.isdigit()), default=0)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


async def _serve(state: SinkState, host: str, port: int, until_stdin_closes: bool) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, _print_counts, state)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_input, stopped)
    server = await loop.create_server(lambda: SinkProtocol(state), host, port, backlog=BACKLOG)
    _say("listening {}:{}".format(*server.sockets[0].getsockname()[:2]))
    gc.freeze()  # nothing made so far is ever garbage: spare the collector looking at it again and again
    await stopped.wait()
    server.close()
    _print_counts(state)


def _stop_at_end_of_input(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stopped.set()


def _print_counts(state: SinkState) -> None:
    counts = {
        "accepted": state.accepted,
        "connections": state.connections,
        "cpu_seconds": time.process_time(),
    }
    _say(json.dumps(counts))


def _say(line: str) -> None:
    # Written without a buffer; nobody may be listening any more when a dead parent is why we stop.
    with contextlib.suppress(BrokenPipeError):
        os.write(sys.stdout.fileno(), line.encode() + b"\n")


if __name__ == "__main__":
    main()
