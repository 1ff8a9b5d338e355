"""A SES, and a SendGrid, that only counts, for benchmarks: `python -m lab.ses_server --delay 0.1`.

Its first line of output is its port. It answers every request after the delay, as if each mail were accepted, without
looking at more than the number of entries. SIGUSR1 makes it print {"accepted": n, "requests": n, "cpu_seconds": x} as
one line; SIGTERM or SIGINT makes it print that line and exit with 0.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time

import msgspec
import uvloop
from aiohttp import web


class _Bulk(msgspec.Struct):
    BulkEmailEntries: list[msgspec.Raw] = []


class _Personalized(msgspec.Struct):
    personalizations: list[msgspec.Raw] = []


class Counter:
    """The service and its counters."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._bulk = msgspec.json.Decoder(_Bulk)
        self._personalized = msgspec.json.Decoder(_Personalized)
        self.accepted = 0
        self.requests = 0

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """Accept everything."""
        body = await http.content.read()
        if self._delay:
            await asyncio.sleep(self._delay)
        self.requests += 1
        first = self.accepted
        if http.path.endswith("/mail/send"):
            self.accepted += len(self._personalized.decode(body).personalizations)
            return web.Response(status=202, headers={"X-Message-Id": f"lab-{first}"})
        if not http.path.endswith("/outbound-bulk-emails"):
            self.accepted += http.method == "POST"
            return web.json_response({"MessageId": f"lab-{first}"})
        self.accepted += len(self._bulk.decode(body).BulkEmailEntries)
        results = [{"Status": "SUCCESS", "MessageId": f"lab-{number}"} for number in range(first, self.accepted)]
        return web.Response(
            body=msgspec.json.encode({"BulkEmailEntryResults": results}), content_type="application/json"
        )

    def say(self) -> None:
        """Print the counters as one line."""
        counts = {"accepted": self.accepted, "requests": self.requests, "cpu_seconds": time.process_time()}
        print(json.dumps(counts), flush=True)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m lab.ses_server", description="A SES that only counts.")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port", type=int, default=0, help="0 chooses a free one")
    parser.add_argument("--until-stdin-closes", action="store_true", help="exit when a parent dies")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(Counter(options.delay), options.port, options.until_stdin_closes))


def _stop_at_end_of_input(stopped: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        stopped.set()


async def _serve(counter: Counter, port: int, until_stdin_closes: bool) -> None:
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, counter.say)
    if until_stdin_closes:
        loop.add_reader(sys.stdin.fileno(), _stop_at_end_of_input, stopped)
    handlers = web.Server(counter.answer, access_log=None)
    server = await loop.create_server(handlers, "127.0.0.1", port, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stopped.wait()
    server.close()
    counter.say()
