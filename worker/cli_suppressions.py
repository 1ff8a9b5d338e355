"""The command line's part about who may not be written to: suppressions add, remove, list, import."""

import argparse
import sys
from pathlib import Path
from typing import Any

from worker.cli_output import print_found, some
from worker.db import connect_once
from worker.errors import EmailWorkerError
from worker.job import SuppressionReason
from worker.settings import Settings
from worker.suppressions import (
    COLUMNS,
    SCOPES,
    Listed,
    Suppression,
    list_suppressions,
    make_suppression,
    read_list,
    suppress,
    unsuppress,
)

APPLICATION = "email-worker suppressions"


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `email-worker`."""
    ours = commands.add_parser("suppressions", help="who may not be written to").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add = ours.add_parser("add", help="nobody writes to this address any more")
    add.add_argument("address", metavar="ADDRESS")
    _policy_arguments(add)
    add.add_argument("--expires-at", metavar="MOMENT", default="", help="until then: 2030-01-01T00:00:00Z")
    add.set_defaults(run=_add)
    remove = ours.add_parser("remove", help="this address may be written to again")
    remove.add_argument("address", metavar="ADDRESS")
    remove.add_argument("--scope", choices=SCOPES, help="in this scope only")
    remove.set_defaults(run=_remove)
    listing = ours.add_parser("list", help="the newest entries, or those of one address")
    listing.add_argument("address", metavar="ADDRESS", nargs="?")
    listing.add_argument("--most", type=some, default=50, metavar="N", help="50 at most, unless said otherwise")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list)
    importing = ours.add_parser(
        "import", help=f"a file of addresses, one a line, or CSV with a header of {', '.join(COLUMNS)}"
    )
    importing.add_argument("file", metavar="FILE", help="the file, - for standard input")
    _policy_arguments(importing)
    importing.set_defaults(run=_import)


def _policy_arguments(parser: argparse.ArgumentParser) -> None:
    reasons = [str(reason) for reason in SuppressionReason]
    parser.add_argument("--reason", choices=reasons, default=str(SuppressionReason.MANUAL))
    parser.add_argument("--scope", choices=SCOPES, default="all", help="all, or one category of mail")
    parser.add_argument("--source", metavar="TEXT", help="where it came from")


def _default(parsed: argparse.Namespace) -> Suppression:
    return Suppression("", parsed.reason, parsed.scope, parsed.source)


def _add(parsed: argparse.Namespace, settings: Settings) -> None:
    entry = make_suppression({"address": parsed.address, "expires_at": parsed.expires_at}, _default(parsed))
    with connect_once(settings, APPLICATION) as connection:
        is_new = suppress(connection, [entry])
    print(f"{entry.address}: {'suppressed' if is_new else 'was suppressed already; entry renewed'} ({entry.scope})")


def _remove(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        gone = unsuppress(connection, parsed.address, parsed.scope)
    if not gone:
        raise EmailWorkerError(f"{parsed.address} is not suppressed{f' in {parsed.scope}' if parsed.scope else ''}")
    print(f"{parsed.address}: {gone} {'entry' if gone == 1 else 'entries'} removed")


def _list(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        found = list_suppressions(connection, parsed.address, parsed.most)
    nothing = f"{parsed.address} is not suppressed" if parsed.address else "nobody is suppressed"
    print_found(Listed._fields, found, nothing, as_json=parsed.json)


def _import(parsed: argparse.Namespace, settings: Settings) -> None:
    try:
        raw = sys.stdin.buffer.read() if parsed.file == "-" else Path(parsed.file).read_bytes()
    except OSError as error:
        raise EmailWorkerError(f"cannot read {parsed.file}: {error.strerror}") from None
    entries = read_list(raw, _default(parsed))
    with connect_once(settings, APPLICATION) as connection:
        new = suppress(connection, entries)
    print(f"{new:,} new, {len(entries) - new:,} known already")
