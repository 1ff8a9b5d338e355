"""Fixtures: a Prometheus that reads made-up processes by our rules, and a connection as email_reader has it."""

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from lab.postgres_process import free_tcp_port
from tests.deploy.exposition import served
from tests.deploy.questions import PROMETHEUS, ROOT
from tests.support import Database, eventually

PROGRAM = shutil.which("prometheus")
READER = (ROOT / "sql" / "ops" / "readonly_role.sql").read_bytes()
PASSWORD = "of-the-reader-in-tests"

# As prometheus.yml, with a scrape each second: two make a rate.
CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}/rules.yml", "{rules}/alerts.yml"]
scrape_configs:
  - job_name: email-worker
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{service: worker}}}}]
  - job_name: email-ingest
    static_configs: [{{targets: ["127.0.0.1:{port}"], labels: {{service: kafka-ingest}}}}]
"""


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What it answers to an expression now; an error of its parser fails the test with its words."""
        try:
            return self._ask(expression)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def is_ready(self) -> bool:
        """Whether it has begun, and has made what takes longest: a rate of what was scraped, recorded by a rule."""
        try:
            return bool(self._ask("fleet:email_queue_depth:max and on () email_delivery_success_rate"))
        except OSError:
            return False

    def _ask(self, expression: str) -> list[dict[str, Any]]:
        body = urllib.parse.urlencode({"query": expression}).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/query", body, timeout=10) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


@pytest.fixture(scope="package")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Debian's Prometheus with our rules, and all metrics in it."""
    if PROGRAM is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    folder = tmp_path_factory.mktemp("prometheus")
    port = free_tcp_port()
    with served() as source, (folder / "log").open("wb") as log:
        process = subprocess.Popen(_command(PROGRAM, folder, port, source), stdout=log, stderr=subprocess.STDOUT)
        try:
            server = Prometheus(port)
            eventually(server.is_ready, f"Prometheus has data; its log is {folder / 'log'}")
            yield server
        finally:
            process.kill()
            process.wait()


def _command(program: str, folder: Path, port: int, source: int) -> list[str]:
    configuration = folder / "prometheus.yml"
    configuration.write_text(CONFIGURATION.format(rules=PROMETHEUS, port=source))
    return [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


@pytest.fixture
def reader(database: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection as Grafana has it: logged in as email_reader. The role goes with the test: a server has only one."""
    with database.connect() as owner:
        owner.execute(READER)
        owner.execute(f"ALTER ROLE email_reader LOGIN PASSWORD '{PASSWORD}'")
        dsn = make_conninfo(database.server.dsn(database.name), user="email_reader", password=PASSWORD)
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                yield connection
        finally:
            owner.execute("DROP OWNED BY email_reader")
            owner.execute("DROP ROLE email_reader")
