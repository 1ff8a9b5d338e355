"""The command line's part about what comes in: enqueue, schema, rejects, ingest offsets."""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from worker import enqueue, events, message, rejects
from worker.cli_output import moment, number, print_found, some, whole
from worker.db import connect_once, query
from worker.errors import EmailWorkerError, KafkaUnusable
from worker.intake import Result
from worker.kafka import log_ends
from worker.settings import Settings

BAR = 30


def add_commands(commands: Any) -> None:
    """Add the commands to the parser of `email-worker`."""
    _enqueue_parser(
        commands.add_parser("enqueue", help="put a file of messages into the queue, one JSON object a line")
    )
    schema = commands.add_parser("schema", help="print the JSON Schema of messages and events")
    schema.add_argument("what", choices=["job", "event"], nargs="?", default="job")
    schema.set_defaults(run=_schema)
    _rejects_parser(commands.add_parser("rejects", help="messages that could not become jobs"))
    _ingest_parser(commands.add_parser("ingest", help="where Kafka is read on"))


def _enqueue_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a file of JSON lines, - for standard input")
    parser.set_defaults(run=_enqueue)


def _rejects_parser(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    listing = commands.add_parser("list", help="the newest ones, with what is wrong")
    listing.add_argument("--most", type=some, default=50, metavar="N", help="50 at most, unless said otherwise")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=_list_rejects)
    show = commands.add_parser("show", help="one, with its message as it came")
    show.add_argument("number", type=whole, metavar="NUMBER")
    show.add_argument("--raw", action="store_true", help="the message alone, byte by byte: to mend it in a file")
    show.set_defaults(run=_show_reject)
    replay = commands.add_parser("replay", help="put back into the queue what can be a job now")
    replay.add_argument("numbers", type=whole, nargs="*", metavar="NUMBER")
    replay.add_argument("--all", action="store_true", help="every reject")
    replay.add_argument("--with", dest="mended", type=Path, metavar="FILE", help="the mended message of the one NUMBER")
    replay.set_defaults(run=_replay)


def _ingest_parser(parser: argparse.ArgumentParser) -> None:
    offsets = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "offsets", help="what counts is in Postgres; resetting the group in Kafka has no effect"
    )
    commands = offsets.add_subparsers(required=True, metavar="COMMAND")
    show = commands.add_parser("show", help="the next offset of each partition")
    show.add_argument("--json", action="store_true", help="one JSON object a line")
    show.set_defaults(run=_show_offsets)
    reset = commands.add_parser("reset", help="read from another offset on; running ingestors follow within seconds")
    reset.add_argument("topic", metavar="TOPIC")
    reset.add_argument("--partition", type=_partition, metavar="P", help="only this one")
    reset.add_argument("--to", type=whole, default=0, metavar="OFFSET", help="0, the beginning, unless said otherwise")
    reset.set_defaults(run=_reset_offsets)


def _partition(text: str) -> int:
    return number(text, 2**31)


def _enqueue(parsed: argparse.Namespace, settings: Settings) -> None:
    is_file = parsed.file != "-"
    size = Path(parsed.file).stat().st_size if is_file and Path(parsed.file).is_file() else 0
    bar = _Bar(size)
    try:
        with (
            open(parsed.file, "rb") if is_file else nullcontext(sys.stdin.buffer) as stream,
            connect_once(settings, "email-worker enqueue") as connection,
        ):
            counts = enqueue.enqueue_lines(connection, stream, parsed.file if is_file else "standard input", bar.tell)
    except OSError as error:
        raise EmailWorkerError(f"cannot read {parsed.file}: {error.strerror}") from None
    finally:
        bar.end()
    print(", ".join(f"{counts[result]:,} {result}" for result in Result))
    if counts[Result.REJECTED]:
        raise EmailWorkerError("some lines could not become jobs. See: email-worker rejects list")


class _Bar:
    """A progress bar, for whoever looks on."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._is_shown = sys.stderr.isatty()

    def tell(self, progress: enqueue.Progress) -> None:
        if not self._is_shown:
            return
        share = min(1.0, progress.bytes_read / self._size) if self._size else 0.0
        bar = ("█" * round(share * BAR)).ljust(BAR, "░") + f" {share:4.0%}  " if self._size else ""
        sys.stderr.write(f"\r{bar}{progress.counts.total():,} lines ")
        sys.stderr.flush()

    def end(self) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")


def _schema(parsed: argparse.Namespace, _: Settings) -> None:
    print(json.dumps(message.job_schema() if parsed.what == "job" else events.event_schema(), indent=2))


def _list_rejects(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, "email-worker rejects") as connection:
        found = rejects.list_rejects(connection, parsed.most)
    rows = [(r.id, r.received_at, r.bytes, r.source, r.position, r.error) for r in found]
    names = ("id", "received_at", "bytes", "source", "position", "error")
    print_found(names, rows, "no rejects", as_json=parsed.json)


def _show_reject(parsed: argparse.Namespace, settings: Settings) -> None:
    with connect_once(settings, "email-worker rejects") as connection:
        reject = rejects.read_reject(connection, parsed.number)
    if parsed.raw:
        sys.stdout.buffer.write(reject.raw)
        return
    print(f"{reject.source} {reject.position}, received {moment(reject.received_at)}\n{reject.error}\n")
    print(reject.raw.decode(errors="backslashreplace"))


def _replay(parsed: argparse.Namespace, settings: Settings) -> None:
    if parsed.mended and (parsed.all or len(parsed.numbers) != 1):
        raise EmailWorkerError("--with FILE mends one reject: name its number")
    if bool(parsed.numbers) == parsed.all:
        raise EmailWorkerError("name the rejects' numbers, or --all")
    try:
        mended = parsed.mended.read_bytes().strip() if parsed.mended else None
    except OSError as error:
        raise EmailWorkerError(f"cannot read {parsed.mended}: {error.strerror}") from None
    refused = gone = 0
    with connect_once(settings, "email-worker rejects") as connection:
        numbers = rejects.all_numbers(connection) if parsed.all else parsed.numbers
        for number, verdict in rejects.replay(connection, numbers, mended):
            if verdict is None:
                gone += 1
                print(f"{number}: {rejects.GONE}")
                continue
            refused += verdict.result is Result.REJECTED
            print(f"{number}: {verdict.result}" + (f" again: {verdict.error}" if verdict.error else ""))
    problems = [f"{refused} of {len(numbers)} still cannot become jobs, and stay where they are"] if refused else []
    problems += [f"{gone} of {len(numbers)} numbers name no reject"] if gone and not parsed.all else []
    if problems:
        raise EmailWorkerError("; ".join(problems))


def _show_offsets(parsed: argparse.Namespace, settings: Settings) -> None:
    names = ("topic", "partition", "next_offset", "epoch", "updated_at", "topic_id")
    with connect_once(settings, "email-worker ingest") as connection:
        found = connection.execute(query("list_offsets")).fetchall()
    print_found(names, found, "no ingestor has read from Kafka yet", as_json=parsed.json)


def _reset_offsets(parsed: argparse.Namespace, settings: Settings) -> None:
    if parsed.to and settings.kafka_bootstrap_servers:
        _refuse_beyond(parsed, settings)
    parameters = {"topic": parsed.topic, "next_offset": parsed.to, "partition": parsed.partition}
    with connect_once(settings, "email-worker ingest") as connection:
        for partition, was in connection.execute(query("reset_offsets"), parameters).fetchall():
            print(f"{parsed.topic}/{partition}: from {was:,} to {parsed.to:,}")


def _refuse_beyond(parsed: argparse.Namespace, settings: Settings) -> None:
    """A slip of the hand would pass over messages that are not there yet."""
    try:
        ends = log_ends(settings, parsed.topic)
    except KafkaUnusable as error:
        print(f"not compared with the log: {error}", file=sys.stderr)
        return
    beyond = [
        f"partition {partition} ends at {end:,}"
        for partition, end in ends.items()
        if parsed.partition in (None, partition) and parsed.to > end
    ]
    if beyond:
        raise EmailWorkerError(f"{parsed.to:,} lies beyond the log of {parsed.topic}: {', '.join(beyond)}")
