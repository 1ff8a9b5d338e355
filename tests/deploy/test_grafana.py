"""The dashboards: they are what their source says, and every question in them has an answer.

No Grafana runs here. A real Prometheus and a real Postgres are asked what the panels ask, as Grafana would ask it.
"""

import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest

from lab.dashboard_questions import as_asked_of_prometheus
from tests.deploy.conftest import Prometheus
from tests.deploy.questions import (
    DASHBOARDS,
    GRAFANA,
    ROOT,
    Question,
    panels,
    promql,
    read_yaml,
)

# What looks for something that is not there finds nothing while all is there.
QUIET = {
    "alerts.yml: EmailNothingSent",
    "alerts.yml: EmailQueueUnseen",
    "alerts.yml: EmailNoWorker",
    "alerts.yml: EmailIngestorDown",
}


def _stem(path: Path) -> str:
    return path.stem


def test_the_committed_dashboards_are_what_the_builders_write() -> None:
    """Nobody has changed one by hand, or its source without writing it anew."""
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    command = [sys.executable, "-m", "lab.dashboards", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=_stem)
def test_panels_stand_beside_each_other(path: Path) -> None:
    """Each within the 24 columns, none over another, each with a number of its own and a sentence that explains it."""
    shown = panels(path)
    assert len({panel["id"] for panel in shown}) == len(shown)
    for panel in shown:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["type"] == "row" or panel["description"].endswith(".")
    for one, other in combinations(shown, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    across = one["x"] < other["x"] + other["w"] and other["x"] < one["x"] + one["w"]
    return across and one["y"] < other["y"] + other["h"] and other["y"] < one["y"] + one["h"]


@pytest.mark.parametrize("path", DASHBOARDS, ids=_stem)
def test_panels_ask_the_data_sources_that_are_provisioned(path: Path) -> None:
    """By uid and type, for the panel and for each of its questions."""
    provisioned = read_yaml(GRAFANA / "provisioning" / "datasources" / "email.yml")["datasources"]
    sources = [{"type": source["type"], "uid": source["uid"]} for source in provisioned]
    for panel in panels(path):
        if panel["type"] != "row":
            assert panel["datasource"] in sources
            assert [target["datasource"] for target in panel["targets"]] == [panel["datasource"]] * len(
                panel["targets"]
            )


@pytest.mark.parametrize("question", promql(), ids=str)
def test_prometheus_answers(prometheus: Prometheus, question: Question) -> None:
    """Every expression can be read, and where there is data, it finds some; no answer is not a number."""
    answer = prometheus.query(as_asked_of_prometheus(question.text))
    assert bool(answer) is (question.place not in QUIET)
    assert not any(math.isnan(float(series["value"][1])) for series in answer)


@pytest.mark.parametrize("path", DASHBOARDS, ids=_stem)
def test_the_pictures_show_panels_of_the_dashboard(path: Path) -> None:
    """Under their names, and with the remark that no Grafana has drawn them."""
    svg = ElementTree.parse(ROOT / "docs" / "pictures" / f"{path.stem}.svg")
    texts = [(text.get("class"), text.text) for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    _, *titles = [text for kind, text in texts if kind == "title"]
    assert titles
    assert set(titles) <= {panel["title"] for panel in panels(path)}
    assert any("Not a picture of Grafana." in (text or "") for _, text in texts)


def test_the_reader_is_not_the_owner(reader: psycopg.Connection[tuple[Any, ...]]) -> None:
    """Its sessions cannot write, and no question of theirs lasts long."""
    settings = reader.execute(
        "SELECT current_user::text, current_setting('statement_timeout'), current_setting('transaction_read_only')"
    ).fetchone()
    assert settings == ("email_reader", "20s", "on")
