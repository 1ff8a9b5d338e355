"""The command line's part about the queue: pause, resume, and the live view."""

import argparse
import sys
import time
from typing import Any

import psycopg

from worker.cli_output import age, print_found, print_json, print_table
from worker.db import connect_once, query
from worker.errors import EmailWorkerError
from worker.settings import Settings

APPLICATION = "email-worker queue"
KINDS = ("type", "queue", "provider")
LOOK_SECONDS = 1.0
_DEPTH = ("queue", "priority", "pending", "due", "oldest_due_seconds")
_WORKERS = ("worker", "batches", "connections")


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `email-worker`."""
    pause = commands.add_parser("pause", help="stop sending a type, a queue, or by a provider; alone: what is paused")
    pause.add_argument("kind", choices=KINDS, nargs="?", metavar="type|queue|provider")
    pause.add_argument("name", metavar="NAME", nargs="?")
    pause.add_argument("--reason", metavar="TEXT", help="for those who wonder")
    pause.add_argument("--json", action="store_true", help="what is paused, one JSON object a line")
    pause.epilog = "Effective within a second; what is in hand is finished. Jobs stay pending, at no cost."
    pause.set_defaults(run=_pause)
    resume = commands.add_parser("resume", help="end a pause")
    resume.add_argument("kind", choices=KINDS, metavar="type|queue|provider")
    resume.add_argument("name", metavar="NAME")
    resume.set_defaults(run=_resume)
    queue = commands.add_parser("queue", help="what waits, how fast it goes, and who works; live in a terminal")
    queue.add_argument("--once", action="store_true", help="one look")
    queue.add_argument("--json", action="store_true", help="one look, as JSON")
    queue.set_defaults(run=_queue)


def _pause(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        if parsed.kind is None:
            found = connection.execute(query("list_pauses")).fetchall()
            rows = [(kind, name, at, by, reason) for kind, name, reason, by, at in found]
            print_found(("kind", "name", "paused_at", "by", "reason"), rows, "nothing is paused", as_json=parsed.json)
            return
        if parsed.name is None:
            raise EmailWorkerError(f"name the {parsed.kind} to pause")
        given = {"kind": parsed.kind, "name": parsed.name, "reason": parsed.reason}
        row = connection.execute(query("pause"), given).fetchone()
    print(f"{parsed.kind} {parsed.name}: {row[0] if row else ''}")


def _resume(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        row = connection.execute(query("resume"), {"kind": parsed.kind, "name": parsed.name}).fetchone()
    print(f"{parsed.kind} {parsed.name}: {row[0] if row else ''}")


def _queue(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        events, at = _events(connection), time.monotonic()
        if parsed.json:
            print_json([_look(connection) | {"events": events}])
            return
        is_live = sys.stdout.isatty() and not parsed.once
        try:
            while True:
                time.sleep(LOOK_SECONDS)
                before, since = events, at
                events, at = _events(connection), time.monotonic()
                if is_live:
                    print("\x1b[H\x1b[2J", end="")
                _show_queue(_look(connection), (events - before) / (at - since))
                if not is_live:
                    return
        except KeyboardInterrupt:
            print()


def _events(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(query("events_so_far")).fetchone()
    return int(row[0]) if row else 0


def _look(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    depth = connection.execute(query("queue_view")).fetchall()
    workers = connection.execute(query("queue_workers")).fetchall()
    pauses = connection.execute(query("list_pauses")).fetchall()
    return {
        "depth": [dict(zip(_DEPTH, row, strict=True)) for row in depth],
        "workers": [dict(zip(_WORKERS, row, strict=True)) for row in workers],
        "paused": [f"{kind} {name}" for kind, name, *_ in pauses],
    }


def _show_queue(look: dict[str, Any], rate: float) -> None:
    rows = [
        (
            level["queue"],
            level["priority"],
            f"{level['pending']:,}",
            f"{level['due']:,}",
            age(level["oldest_due_seconds"]),
        )
        for level in look["depth"]
        if level["pending"]
    ]
    print_table(("queue", "priority", "pending", "due", "oldest due for"), rows, "nothing waits")
    print(f"\n{rate:,.0f} events a second")
    for paused in look["paused"]:
        print(f"paused: {paused}")
    print()
    workers = [(one["worker"], str(one["batches"]), str(one["connections"])) for one in look["workers"]]
    print_table(("worker", "batches in hand", "connections"), workers, "no worker is connected")
