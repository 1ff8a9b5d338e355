"""Reading what a process serves on its metrics port."""

import re
import urllib.error
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

from tests.support import Worker, eventually

_PORT = re.compile(r"metrics\s+port=(\d+)")


def port_of(worker: Worker) -> int:
    """Where it serves: the first free port of its range."""
    (port,) = eventually(lambda: _PORT.findall(worker.log_text()), "it tells its port")
    return int(port)


def get(port: int, path: str) -> tuple[int, str]:
    """Status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by name and labels."""
    status, text = get(port, "/metrics")
    assert status == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value_of(port: int, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """One sample; None if it is not there."""
    return samples(port).get((name, frozenset((labels or {}).items())))


def by_label(port: int, name: str, *labels: str) -> dict[tuple[str, ...], float]:
    """A family's samples by the values of these labels."""
    found: dict[tuple[str, ...], float] = {}
    for (sample, pairs), value in samples(port).items():
        if sample == name:
            found[tuple(dict(pairs)[label] for label in labels)] = value
    return found
