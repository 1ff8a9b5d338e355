"""The configuration of Prometheus: valid, and each alert fires when it should, is quiet otherwise, and has its manual.

promtool is the judge (Debian: prometheus); what does not need it runs everywhere.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.contract import COUNTERS, GAUGES, HISTOGRAMS, SERIES
from tests.deploy.questions import PROMETHEUS, ROOT, Question, metric_names, promql, read_yaml, rule_questions, rules

PROMTOOL = shutil.which("promtool")
with_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
ALERTS = rules("alerts.yml")
RECORDED = {rule["record"] for rule in rules("rules.yml")}
# These tell of something that is not there, or of a state: there is no figure.
WITHOUT_VALUE = {"EmailQueueUnseen", "EmailPausedForLong"}


def _name(value: object) -> str:
    return value.name if isinstance(value, Path) else str(value)


def _alert(rule: dict[str, Any]) -> str:
    return str(rule["alert"])


def promtool(*arguments: str | Path) -> None:
    """Run it, and show what it says if it is not content."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@with_promtool
def test_the_configuration_is_valid() -> None:
    """prometheus.yml, and the rule files that it names."""
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@with_promtool
@pytest.mark.parametrize("cases", CASES, ids=_name)
def test_alerts_fire_and_are_quiet_as_their_cases_say(cases: Path) -> None:
    """Made-up series over time, and the alerts with their labels and texts at given moments."""
    promtool("test", "rules", cases)


@pytest.mark.parametrize("rule", ALERTS, ids=_alert)
def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(rule: dict[str, Any]) -> None:
    """An alert that never fires is worse than none."""
    checks = [
        check["exp_alerts"]
        for cases in CASES
        for case in read_yaml(cases)["tests"]
        for check in case.get("alert_rule_test", [])
        if check["alertname"] == rule["alert"]
    ]
    assert any(checks), "a case in which it fires"
    assert not all(checks), "a case in which it does not"


@pytest.mark.parametrize("rule", ALERTS, ids=_alert)
def test_an_alert_says_how_bad_it_is_what_it_saw_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """Severity, summary, description with the value, and a section of the runbook that names the alert."""
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert ("$value" in rule["annotations"]["description"]) is (rule["alert"] not in WITHOUT_VALUE)
    path, anchor = rule["annotations"]["runbook_url"].split("#")
    assert f"`{rule['alert']}`" in sections(ROOT / path)[anchor]


def sections(path: Path) -> dict[str, str]:
    """The sections of a Markdown text, by the anchors that GitHub gives them."""
    parts = re.split(r"^## (.+)$", path.read_text(), flags=re.MULTILINE)
    anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in parts[1::2]]
    assert len(set(anchors)) == len(anchors)
    return dict(zip(anchors, parts[2::2], strict=True))


@pytest.mark.parametrize("question", promql(), ids=str)
def test_only_metrics_of_the_contract_are_asked_for(question: Question) -> None:
    """A metric that was renamed leaves no alert behind that can never fire."""
    names = metric_names(question.text)
    assert names
    assert names <= SERIES | RECORDED


def test_every_metric_is_asked_for() -> None:
    """What is measured is shown, or watched."""
    asked = set().union(*(metric_names(question.text) for question in promql()))
    parts = {name: {name, *(f"{name}_{part}" for part in ("bucket", "sum", "count"))} for name in HISTOGRAMS}
    assert [name for name in sorted(COUNTERS | GAUGES) if name not in asked] == []
    assert [name for name, series in parts.items() if not series & asked] == []


def test_every_recorded_series_is_used() -> None:
    """A rule that nobody asks for costs for nothing."""
    used = set().union(*(metric_names(question.text) for question in [*promql(), *rule_questions()]))
    assert used >= RECORDED
