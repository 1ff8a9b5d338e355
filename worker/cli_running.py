"""The command line's part about running it: health, send-test, purge, erase, demo, bench."""

import argparse
import asyncio
import sys
from collections import Counter
from typing import Any

import msgspec

from worker.cli_output import print_json
from worker.db import connect_once
from worker.errors import EmailWorkerError
from worker.headers import ADDRESS
from worker.job import Accepted
from worker.settings import Settings, provider_names


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `email-worker`."""
    health = commands.add_parser("health", help="whether everything that the settings name answers; status 1 if not")
    health.add_argument("--providers", action="store_true", help="call the providers too: NOOP, GetAccount, scopes")
    health.add_argument("--json", action="store_true", help="one JSON object a line")
    health.set_defaults(run=_health)
    test = commands.add_parser("send-test", help="send one mail by a provider, past the queue")
    test.add_argument("address", metavar="ADDRESS")
    test.add_argument("--provider", metavar="NAME", help="EMAIL_PROVIDER_PRIMARY, unless said otherwise")
    test.set_defaults(run=_send_test)
    purge = commands.add_parser("purge", help="remove what is older than RETENTION_DAYS; workers do it each hour")
    purge.set_defaults(run=_purge)
    erase = commands.add_parser("erase", help="remove what is known of one person, in Postgres and Redis")
    erase.add_argument("address", metavar="ADDRESS")
    erase.add_argument("--yes", action="store_true", help="do not ask")
    erase.set_defaults(run=_erase)
    for name, what in (("demo", "2,000 mails and a killed worker"), ("bench", "the table of speeds")):
        lab = commands.add_parser(name, help=f"{what}; from a checkout, as make {name} does")
        lab.set_defaults(run=_lab, module=name)


def _health(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker.health import check_health

    is_well = True
    for check in check_health(settings, with_providers=parsed.providers):
        is_well = is_well and check.is_well
        if parsed.json:
            print_json([msgspec.structs.asdict(check)])
            continue
        print(f"{'ok' if check.is_well else 'ILL':5}{check.part:15}{check.milliseconds:>8,.0f} ms  {check.said}")
        if check.advice:
            print(f"{'':31}{check.advice}")
    if not is_well:
        sys.exit(1)


def _send_test(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker.test_mail import send_test

    names = provider_names(settings)
    name = parsed.provider or settings.email_provider_primary
    if name not in names:
        raise EmailWorkerError(f"{name} is not among the providers of the settings: {', '.join(names)}")
    _check_address(parsed.address)
    outcome, seconds = asyncio.run(send_test(settings, name, parsed.address))
    words = next((value for value in msgspec.structs.astuple(outcome)[::-1] if isinstance(value, str) and value), "")
    print(f"{name}: {type(outcome).__name__.lower()} after {seconds:.2f} s: {words}")
    if not isinstance(outcome, Accepted):
        sys.exit(1)


def _check_address(address: str) -> None:
    if ADDRESS.fullmatch(address) is None:
        raise EmailWorkerError(f"{address[:100]!r} is not an address like ann@example.com")


def _purge(_: argparse.Namespace, settings: Settings) -> None:
    from worker.retention import purge_now

    gone: Counter[str] = Counter()
    with connect_once(settings, "email-worker purge") as connection:
        for what, number in purge_now(connection, settings):
            gone[what] += number
    print(", ".join(f"{number:,} {what}" for what, number in gone.items()) or "nothing is old enough")
    if not settings.retention_days:
        print("RETENTION_DAYS is 0: only types with retention_days of their own, and keys, are purged")


def _erase(parsed: argparse.Namespace, settings: Settings) -> None:
    from worker.erasure import erase

    _check_address(parsed.address)
    if not parsed.yes:
        if not sys.stdin.isatty():
            raise EmailWorkerError("this cannot be taken back: confirm it with --yes")
        if input(f"Erase {parsed.address} for good? [y/N] ").strip().lower() not in ("y", "yes"):
            raise EmailWorkerError("nothing was erased")
    left = 0
    with connect_once(settings, "email-worker erase") as connection:
        for found in erase(connection, settings, parsed.address):
            print(f"{found.number:>8,}  {'NOT erased: ' if found.is_left else ''}{found.what}")
            left += found.number * found.is_left
    print("Not reachable from here: backups, the providers' logs, Kafka until its retention ends.")
    if left:
        sys.exit(1)


def _lab(parsed: argparse.Namespace, _: Settings) -> None:
    from importlib.util import find_spec
    from runpy import run_module

    if find_spec("lab") is None:
        raise EmailWorkerError(f"the {parsed.module} is part of the source: clone it, then make {parsed.module}")
    sys.argv = [parsed.module]
    run_module(f"lab.{parsed.module}", run_name="__main__")
