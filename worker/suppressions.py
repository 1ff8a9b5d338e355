"""Suppressions from outside: one by one, and whole lists as other systems export them.

The list is `email_suppressions`; the claim reads it, here it is written and shown. An import is all or nothing: a list
with a wrong line changes nothing, and every wrong line is named.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import psycopg

from worker.audience import EVERYTHING
from worker.db import array_literal, query
from worker.errors import BadSuppression
from worker.headers import ADDRESS
from worker.job import Category, SuppressionReason

SCOPES = (EVERYTHING, *(str(category) for category in Category))
COLUMNS = ("address", "reason", "scope", "source", "expires_at")
# Wrong lines that are worth telling at once.
MOST_TOLD = 20


class Suppression(NamedTuple):
    """An address that nobody writes to; `scope` is all or a category."""

    address: str
    reason: str = SuppressionReason.MANUAL
    scope: str = EVERYTHING
    source: str | None = None
    expires_at: datetime | None = None


class Listed(NamedTuple):
    """A row of `list_suppressions.sql`."""

    address: str
    scope: str
    reason: str
    source: str | None
    created_at: datetime
    expires_at: datetime | None


def suppress(connection: psycopg.Connection[Any], entries: Sequence[Suppression]) -> int:
    """Add these in one statement; returns how many are new."""
    parameters = {
        "addresses": array_literal(entry.address for entry in entries),
        "reasons": array_literal(entry.reason for entry in entries),
        "scopes": array_literal(entry.scope for entry in entries),
        "sources": array_literal(entry.source for entry in entries),
        "expire_at": array_literal(entry.expires_at and entry.expires_at.isoformat() for entry in entries),
    }
    return sum(is_new for (is_new,) in connection.execute(query("suppress"), parameters).fetchall())


def unsuppress(connection: psycopg.Connection[Any], address: str, scope: str | None) -> int:
    """Remove an address from one scope or from all; returns how many entries are gone."""
    row = connection.execute(query("unsuppress"), {"address": address, "scope": scope}).fetchone()
    return int(row[0]) if row else 0


def list_suppressions(connection: psycopg.Connection[Any], address: str | None, most: int) -> list[Listed]:
    """The newest entries, or those of one address."""
    found = connection.execute(query("list_suppressions"), {"address": address, "most": most}).fetchall()
    return [Listed(*row) for row in found]


def read_list(raw: bytes, default: Suppression) -> list[Suppression]:
    """A list of addresses, one a line, or CSV with a header of COLUMNS. Raises BadSuppression with every wrong line."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSuppression(f"not UTF-8 (byte {error.start})") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    columns: Sequence[str] = COLUMNS[:1]
    found: dict[tuple[str, str, str], Suppression] = {}
    wrong: list[str] = []
    for fields in lines:
        if not any(field.strip() for field in fields):
            continue
        if not found and not wrong and fields[0].strip().lower() == COLUMNS[0]:
            columns = [field.strip().lower() for field in fields]
            wrong += [f"line {lines.line_num}: unknown column {name!r}" for name in columns if name not in COLUMNS]
            continue
        try:
            if len(fields) > len(columns):
                raise BadSuppression(
                    f"{len(fields)} fields where there are {len(columns)} columns: is a header missing?"
                )
            entry = make_suppression(dict(zip(columns, fields, strict=False)), default)
        except BadSuppression as error:
            wrong.append(f"line {lines.line_num}: {error}")
        else:
            found[entry.address.lower(), entry.scope, entry.reason] = entry
    if wrong:
        more = [f"and {len(wrong) - MOST_TOLD} more"] if len(wrong) > MOST_TOLD else []
        raise BadSuppression("\n".join([*wrong[:MOST_TOLD], *more]))
    return list(found.values())


def make_suppression(fields: dict[str, str], default: Suppression) -> Suppression:
    """An entry out of texts; what is empty is as in `default`. Raises BadSuppression."""
    given = {name: text.strip() for name, text in fields.items() if name in COLUMNS and text.strip()}
    entry = default._replace(
        address=given.get("address", ""),
        reason=_one_of("reason", given.get("reason", default.reason), [str(reason) for reason in SuppressionReason]),
        scope=_one_of("scope", given.get("scope", default.scope), SCOPES),
        source=given.get("source", default.source),
        expires_at=_moment(given["expires_at"]) if "expires_at" in given else default.expires_at,
    )
    if not ADDRESS.fullmatch(entry.address):
        raise BadSuppression(f"{entry.address[:100]!r} is not an address like ann@example.com")
    return entry


def _one_of(what: str, text: str, choices: Iterable[str]) -> str:
    if text not in choices:
        raise BadSuppression(f"{what} {text[:50]!r} must be {' or '.join(choices)}")
    return text


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise BadSuppression(f"expires_at {text[:50]!r} must be like 2030-01-01T00:00:00Z, with its zone")
    return moment
