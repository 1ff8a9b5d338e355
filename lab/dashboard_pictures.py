"""Draws docs/pictures/*.svg: the questions of the dashboards, answered after a real run (`make pictures`).

Not Grafana's own pictures: no Grafana has rendered the dashboards. The panels, their questions and their units are
those of deploy/grafana/dashboards; the charts are lab/charts.py's, and say so.
"""

import math
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.charts import Chart, measured, page
from lab.dashboard_questions import as_asked_of_postgres, as_asked_of_prometheus, panels
from lab.observed_run import (
    CAMPAIGN_AT,
    KILL_AT,
    ROOT,
    SECONDS,
    SERVER_COMES_AT,
    SERVER_GOES_AT,
    Run,
    observed_run,
)

PICTURES = ROOT / "docs" / "pictures"
OPERATIONS = (
    "Jobs settled", "Queue depth", "Oldest due",
    "Attempts", "Latency of providers", "Breakers",
    "Success rate", "Rendered", "CPU",
    "Steps of a batch, 95 %", "Memory", "Event loop lag",
)  # fmt: skip
BUSINESS = (
    "Since midnight UTC", "Sent, by type", "Ends of jobs", "Dead letters, by cause", "Slowest types", "Providers",
    "Reputation, by provider",
)  # fmt: skip
RATE_INTERVAL, INTERVAL = "10s", "10s"
NOTES = (
    "Charts of the answers to the dashboard's own questions, from one run of four minutes. Not a picture of Grafana.",
    f"A campaign at {CAMPAIGN_AT} s, behind a rate limit; the first mail server away from {SERVER_GOES_AT} to "
    f"{SERVER_COMES_AT} s; a worker killed at {KILL_AT} s.",
)


def main() -> None:
    """Let it run, ask, draw."""
    with tempfile.TemporaryDirectory(prefix="email-pictures-") as folder, observed_run(Path(folder)) as run:
        PICTURES.mkdir(exist_ok=True)
        for name, title, draw, across in (
            ("operations", "Email: operations", _operations, 3),
            ("business", "Email: what became of the mails", _business, 2),
        ):
            file = PICTURES / f"{name}.svg"
            file.write_text(page(title, NOTES, list(draw(run)), SECONDS, across))
            print(file.relative_to(ROOT))


def _chosen(dashboard: str, titles: Sequence[str]) -> Iterator[dict[str, Any]]:
    found = {panel["title"]: panel for panel in panels(dashboard)}
    yield from (found[title] for title in titles)


def _operations(run: Run) -> Iterator[Chart]:
    for panel in _chosen("operations", OPERATIONS):
        series = {}
        for target in panel["targets"]:
            asked = as_asked_of_prometheus(target["expr"], RATE_INTERVAL, INTERVAL)
            for answer in run.range(asked):
                points = [(float(at) - run.began, float(value)) for at, value in answer["values"]]
                name = _name(target.get("legendFormat", ""), answer["metric"])
                series[name] = [(at, value) for at, value in points if not math.isnan(value)]
        if panel["type"] == "state-timeline":
            yield Chart(panel["title"], "bands", series=series, states=_states(panel))
        else:
            yield Chart(panel["title"], "lines", panel["fieldConfig"]["defaults"].get("unit", "short"), series=series)


def _name(legend: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        legend = legend.replace("{{" + label + "}}", value)
    return legend


def _states(panel: dict[str, Any]) -> dict[int, tuple[str, str]]:
    (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
    return {int(value): (named["text"], named["color"]) for value, named in mapping["options"].items()}


def _business(run: Run) -> Iterator[Chart]:
    since, until = (datetime.fromtimestamp(at, UTC).isoformat() for at in (run.began, run.began + SECONDS))
    with run.connect() as connection:
        connection.execute((ROOT / "sql" / "ops" / "readonly_role.sql").read_bytes())
        connection.execute("SET ROLE email_reader")
        for panel in _chosen("business", BUSINESS):
            asked = as_asked_of_postgres(panel["targets"][0]["rawSql"], since, until, INTERVAL)
            cursor = connection.execute(asked.encode())
            names = [column.name for column in cursor.description or []]
            yield _answered(panel, names, cursor.fetchall(), run.began)


def _answered(panel: dict[str, Any], names: list[str], rows: list[tuple[Any, ...]], began: float) -> Chart:
    if panel["type"] == "timeseries":
        series: dict[str, list[tuple[float, float]]] = {}
        for at, name, value in rows:
            series.setdefault(str(name), []).append((float(at) - began, float(value)))
        return Chart(panel["title"], "bars", series=series)
    units = {
        override["matcher"]["options"]: override["properties"][0]["value"]
        for override in panel.get("fieldConfig", {}).get("overrides", [])
    }
    texts = [[_text(value, units.get(name, "")) for name, value in zip(names, row, strict=True)] for row in rows]
    kind, columns = ("figures", 2) if panel["type"] == "stat" else ("table", 1 if len(names) < 6 else 2)
    return Chart(panel["title"], kind, columns=columns, names=names, rows=texts)


def _text(value: object, unit: str) -> str:
    match value:
        case None:
            return ""
        case int() if not unit:
            return f"{value:,}"
        case datetime():
            return f"{value:%H:%M:%S}"
        case int() | float():
            return measured(float(value), unit)
        case _ if unit:
            return measured(float(str(value)), unit)
        case _:
            return str(value)


if __name__ == "__main__":
    main()
