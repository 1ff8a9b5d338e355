"""The command line's part about jobs: jobs, dead."""

import argparse
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

from worker.cli_output import print_found, print_json, shown, some
from worker.db import connect_once, query
from worker.errors import EmailWorkerError
from worker.job import Queue, Status
from worker.log import mask_address, mask_addresses
from worker.settings import Settings

APPLICATION = "email-worker jobs"
# Of the number and its unit: 9,999 days are 27 years.
MOST_SINCE_LETTERS = 5
_ALWAYS = datetime(2000, 1, 1, tzinfo=UTC)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_JOB_COLUMNS = (
    "job_id", "status", "type", "to", "priority", "retries", "provider", "created_at", "next_attempt_at", "error"
)  # fmt: skip
_SHOWN = (
    "job_id", "status", "type", "template", "to", "queue", "priority", "guarantee", "source", "campaign_id",
    "created_at", "scheduled_at", "expires_at", "next_attempt_at", "attempts", "retries", "most_retries", "provider",
    "message_id", "error",
)  # fmt: skip


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `email-worker`."""
    _jobs_parser(commands.add_parser("jobs", help="look at jobs, send one again, take one back"))
    _dead_parser(commands.add_parser("dead", help="what was given up, and why"))


def _jobs_parser(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the newest ones; reads the whole table")
    listing.add_argument("--status", choices=[str(status) for status in Status])
    listing.add_argument("--type")
    listing.add_argument("--queue", choices=[str(queue) for queue in Queue])
    listing.add_argument("--campaign", type=UUID, metavar="UUID")
    listing.add_argument("--to", metavar="ADDRESS")
    _common(listing)
    listing.set_defaults(run=_list_jobs)
    show = commands.add_parser("show", help="the life of one mail")
    show.add_argument("job_id", metavar="JOB_ID")
    show.add_argument("--json", action="store_true", help="one JSON object")
    show.set_defaults(run=_show_job)
    for name, what in (("requeue", "send finished jobs again"), ("cancel", "take pending jobs back")):
        acting = commands.add_parser(name, help=what)
        acting.add_argument("job_ids", metavar="JOB_ID", nargs="+")
        acting.set_defaults(run=_requeue if name == "requeue" else _cancel)


def _dead_parser(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the newest ones, or how many for each cause")
    listing.add_argument("--causes", action="store_true", help="how many of each")
    listing.add_argument("--type")
    _common(listing)
    listing.set_defaults(run=_list_dead)
    requeue = commands.add_parser("requeue", help="send them again, with all their retries")
    requeue.add_argument("--type", help="only this one")
    requeue.add_argument("--since", type=_since, default=None, metavar="WHEN", help="dead since: 2h, 7d, 2030-01-31")
    requeue.add_argument("--all", action="store_true", help="every dead letter there is")
    requeue.set_defaults(run=_requeue_dead)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=_since, default=_ALWAYS, metavar="WHEN", help="30m, 2h, 7d, or 2030-01-31T10:00Z"
    )
    parser.add_argument("--most", type=some, default=50, metavar="N", help="50 at most, unless said otherwise")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _since(text: str) -> datetime:
    """A moment, or how long ago. Raises what argparse wants to hear."""
    if text[:-1].isdecimal() and len(text) <= MOST_SINCE_LETTERS and text[-1] in _UNITS:
        return datetime.fromtimestamp(time.time(), UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not like 30m, 2h, 7d or 2030-01-31T10:00Z") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _address(settings: Settings, address: str) -> str:
    return address if settings.log_pii else mask_address(address)


def _words(settings: Settings, text: str | None) -> str | None:
    return text if settings.log_pii or text is None else mask_addresses(text)


def _list_jobs(parsed: argparse.Namespace, settings: Settings) -> None:
    parameters = {
        "status": parsed.status,
        "type": parsed.type,
        "queue": parsed.queue,
        "campaign": parsed.campaign,
        "address": parsed.to,
        "since": parsed.since,
        "most": parsed.most,
    }
    with connect_once(settings, APPLICATION) as connection:
        found = connection.execute(query("list_jobs"), parameters).fetchall()
    rows = [
        (job_id, status, kind, _address(settings, to), priority, retries, provider, created,
         due if status == Status.PENDING else None, _words(settings, error))
        for job_id, status, kind, to, priority, retries, provider, created, due, error in found
    ]  # fmt: skip
    print_found(_JOB_COLUMNS, rows, "no such jobs", as_json=parsed.json)


def _show_job(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        row = connection.execute(query("show_job"), {"job_id": parsed.job_id}).fetchone()
        if row is None:
            raise EmailWorkerError(f"no job has the job_id {parsed.job_id!r}. See: email-worker jobs list")
        life = connection.execute(query("timeline"), {"job_id": parsed.job_id}).fetchall()
    values = dict(zip(_SHOWN, row, strict=True))
    values |= {"to": _address(settings, values["to"]), "error": _words(settings, values["error"])}
    if values["status"] != Status.PENDING:
        values["next_attempt_at"] = None
    events = [(at, what, attempt, provider, _words(settings, detail)) for at, what, attempt, provider, detail in life]
    names = ("at", "what", "attempt", "provider", "detail")
    if parsed.json:
        print_json([values | {"life": [dict(zip(names, event, strict=True)) for event in events]}])
        return
    for name, value in values.items():
        if value not in (None, ""):
            print(f"{name:17}{shown(value)}")
    print()
    print_found(names, events, "nothing has happened yet", as_json=False)


def _requeue(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        _each(connection, parsed.job_ids, query("requeue_job"))


def _cancel(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, APPLICATION) as connection:
        _each(connection, parsed.job_ids, query("cancel_job"), _TOO_LATE)


# What email_cancel() says of a job that it could not take back; a status, if it has ended.
_TOO_LATE = {
    "in flight": "a worker has it in hand",
    "in doubt": "a worker died with it, and it may have gone",
    **{str(status): f"too late, it is {status}" for status in Status if status is not Status.CANCELLED},
}


def _each(
    connection: psycopg.Connection[Any], job_ids: list[str], statement: bytes, refusals: Mapping[str, str] | None = None
) -> None:
    """One after the other; what cannot be done is told, and the others are done all the same."""
    refused = 0
    for job_id in job_ids:
        try:
            row = connection.execute(statement, {"job_id": job_id}).fetchone()
            said = str(row[0]) if row else ""
            if refusals and said in refusals:
                refused += 1
                print(f"{job_id}: {refusals[said]}", file=sys.stderr)
            else:
                print(f"{job_id}: {said}")
        except psycopg.errors.DatabaseError as error:
            if not (error.sqlstate or "").startswith("EM"):
                raise
            refused += 1
            print(f"{job_id}: {error.diag.message_primary}", file=sys.stderr)
    if refused:
        raise EmailWorkerError(f"{refused} of {len(job_ids)} could not be changed")


def _list_dead(parsed: argparse.Namespace, settings: Settings) -> None:
    parameters = {"type": parsed.type, "since": parsed.since, "most": parsed.most}
    statement = query("dead_causes") if parsed.causes else query("list_dead")
    with connect_once(settings, APPLICATION) as connection:
        found = connection.execute(statement, parameters).fetchall()
    names: tuple[str, ...] = ("job_id", "type", "template", "provider", "retries", "dead_since", "error")
    if parsed.causes:
        names = ("jobs", "type", "provider", "newest", "cause")
    # What was said of it comes last.
    rows = [(*row[:-1], _words(settings, row[-1])) for row in found]
    print_found(names, rows, "no dead letters", as_json=parsed.json)


def _requeue_dead(parsed: argparse.Namespace, settings: Settings) -> None:
    if not (parsed.type or parsed.since or parsed.all):
        raise EmailWorkerError("name --type or --since, or --all for every dead letter there is")
    with connect_once(settings, APPLICATION) as connection:
        parameters = {"type": parsed.type, "since": parsed.since or _ALWAYS}
        row = connection.execute(query("requeue_dead"), parameters).fetchone()
    print(f"{row[0] if row else 0:,} dead letters are pending again")
