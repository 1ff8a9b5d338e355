"""What our monitoring asks: every PromQL of rules, alerts and dashboards, every SQL statement of the dashboards."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


@dataclass(frozen=True)
class Question:
    """An expression or a statement, and where it stands."""

    place: str
    text: str

    def __str__(self) -> str:
        return self.place


def rules(file: str) -> list[dict[str, Any]]:
    """The rules of a file, in order."""
    return [rule for group in read_yaml(PROMETHEUS / file)["groups"] for rule in group["rules"]]


def read_yaml(path: Path) -> Any:
    """A file's content."""
    return yaml.safe_load(path.read_text())


def rule_questions() -> list[Question]:
    """Recording rules and alerts."""
    return [
        Question(f"{file}: {rule.get('record') or rule['alert']}", rule["expr"])
        for file in ("rules.yml", "alerts.yml")
        for rule in rules(file)
    ]


def promql() -> list[Question]:
    """Everything that Prometheus is asked."""
    return [*rule_questions(), *_targets("expr")]


def sql() -> list[Question]:
    """Everything that Postgres is asked."""
    return list(_targets("rawSql"))


def panels(path: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, rows among them."""
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


def _targets(key: str) -> Iterator[Question]:
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel.get("targets", []):
                if key in target:
                    yield Question(f"{path.stem}: {panel['title']} {target['refId']}", target[key])


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression names: those of ours, of the process, and `up`."""
    without_strings = re.sub(r'"[^"]*"', '""', expression)
    return set(re.findall(r"(?:\bfleet:)?\b(?:email|process|python)_[\w:]+|\bup\b", without_strings))
