"""The dashboards' questions as Grafana asks them: with its variables and macros put in."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent.parent / "deploy" / "grafana" / "dashboards"
_UNITS = {"s": 1, "m": 60}


def panels(dashboard: str) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard, as it was committed, without the rows that part them."""
    for panel in json.loads((FOLDER / f"{dashboard}.json").read_text())["panels"]:
        if panel["type"] != "row":
            yield panel


def as_asked_of_prometheus(expression: str, rate_interval: str = "1m", interval: str = "15s") -> str:
    """With Grafana's variables put in."""
    return expression.replace("$__rate_interval", rate_interval).replace("$__interval", interval)


def as_asked_of_postgres(statement: str, since: str, until: str, interval: str = "5m") -> str:
    """With Grafana's macros put in, as its data source for Postgres does it: an argument ends at the first bracket."""
    return re.sub(
        r"\$(__\w+)\(([^)]*)\)",
        lambda found: _macro(found[1], [part.strip() for part in found[2].split(",")], since, until),
        statement.replace("$__interval", interval),
    )


def _macro(name: str, arguments: list[str], since: str, until: str) -> str:
    match name, arguments:
        case "__timeFilter", [column]:
            return f"{column} BETWEEN '{since}' AND '{until}'"
        case "__timeGroupAlias", [column, interval]:
            seconds = int(interval[:-1]) * _UNITS[interval[-1]]
            return f'floor(extract(epoch from {column})/{seconds})*{seconds} AS "time"'
        case "__timeFrom", [""]:
            return f"'{since}'"
        case "__timeTo", [""]:
            return f"'{until}'"
        case _:
            raise ValueError(f"Grafana has no macro {name} of {arguments}, or this file does not know it")
