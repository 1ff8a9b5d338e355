"""What the commands print: tables for people, JSON lines for programs."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any


def print_json(objects: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line; moments as RFC 3339 has them."""
    for item in objects:
        print(json.dumps(item, default=_json_value))


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def print_found(names: Sequence[str], rows: Sequence[Sequence[object]], nothing: str, *, as_json: bool) -> None:
    """Rows with these columns: as a table for people, as JSON with the values themselves for programs."""
    if as_json:
        print_json(dict(zip(names, row, strict=True)) for row in rows)
    else:
        print_table(names, [[shown(value) for value in row] for row in rows], nothing)


def shown(value: object) -> str:
    """A value for people."""
    match value:
        case None:
            return ""
        case datetime():
            return moment(value)
        case _:
            return str(value)


def print_table(names: Sequence[str], rows: Sequence[Sequence[str]], nothing: str) -> None:
    """A table in columns, or `nothing` where there are no rows."""
    if not rows:
        print(nothing)
        return
    widths = [max(len(text) for text in column) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def moment(at: datetime | None) -> str:
    """A moment with its zone, or nothing."""
    return f"{at:%Y-%m-%d %H:%M:%S%z}" if at else ""


def age(seconds: float) -> str:
    """A time as people say it: 42 s, 3 min, 5 h, 2 d; nothing for less than a second."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return ""


def some(text: str) -> int:
    """An argument that says how many: one at least."""
    found = number(text, 2**31)
    if not found:
        raise argparse.ArgumentTypeError("it must be 1 or more")
    return found


def whole(text: str) -> int:
    """An argument that is a whole number of SQL's bigint."""
    return number(text, 2**63)


def number(text: str, limit: int) -> int:
    """An argument that is a whole number below `limit`. Raises what argparse wants to hear."""
    if not text.isdecimal() or int(text) >= limit:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0 to {limit - 1:,}")
    return int(text)
