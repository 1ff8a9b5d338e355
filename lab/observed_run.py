"""Four minutes of mail under the eyes of a Prometheus: what the pictures of the dashboards are made of.

Two workers, two mail servers, a campaign behind a rate limit, and three troubles: the first server goes away for half a
minute, some recipients are refused, one worker is killed. Everything is real and happens on this machine.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from lab.postgres import PostgresServer
from lab.postgres_process import free_tcp_port
from lab.sink_process import Sink
from worker.db import connect_once
from worker.migrate import migrate
from worker.settings_loading import load_settings

ROOT = Path(__file__).parent.parent
SECONDS = 240
SCRAPE_SECONDS = 2
FIRST_PORT = 19_700
# Transactional mails a second, and the campaign.
STEADY, CAMPAIGN_MAILS, RATE = 40, 24_000, 300
CAMPAIGN_AT, SERVER_GOES_AT, SERVER_COMES_AT, KILL_AT = 20, 100, 130, 175
CAMPAIGN = "6f1c2d5e-0000-4000-8000-000000000001"

STEADY_TYPES = {
    "booking-confirmation": 30,
    "payment-confirmation": 25,
    "email-verification": 15,
    "password-reset": 10,
    "booking-reminder": 10,
    "welcome-email": 6,
    "refund-confirmation": 4,
}
REFUSED, BUSY = "gone.example", "busy.example"

_PROMETHEUS = """
global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s}}
rule_files: ["{rules}/rules.yml"]
scrape_configs:
  - job_name: email-worker
    static_configs: [{{targets: [{targets}], labels: {{service: worker}}}}]
"""


@dataclass(frozen=True)
class Run:
    """What can be asked about the run, while its servers are there. It began at that Unix time."""

    postgres: PostgresServer
    prometheus_port: int
    began: float

    def range(self, expression: str) -> list[dict[str, Any]]:
        """Prometheus's answer over the whole run."""
        body = urllib.parse.urlencode(
            {"query": expression, "start": self.began, "end": self.began + SECONDS, "step": SCRAPE_SECONDS}
        ).encode()
        url = f"http://127.0.0.1:{self.prometheus_port}/api/v1/query_range"
        with urllib.request.urlopen(url, body, timeout=30) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """An autocommit connection of the owner."""
        return psycopg.connect(self.postgres.dsn("email"), autocommit=True)


@contextmanager
def observed_run(folder: Path) -> Iterator[Run]:
    """Let it happen, which takes SECONDS; yields when it is over, and ends the servers after that."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer())
        postgres.create_database("email")
        # Refused for good, refused for now, and the rest after a while as a server far away.
        first = Sink(reply_delay=0.02, refuse=[f"*@{REFUSED}"], refuse_first=[(f"*@{BUSY}", 1)])
        stack.enter_context(first)
        second = stack.enter_context(Sink(reply_delay=0.05, refuse=[f"*@{REFUSED}"]))
        settings = _settings(postgres, first, second)
        with connect_once(load_settings(settings), "observed run") as connection:
            migrate(connection)
        prometheus_port = _start_prometheus(folder, stack)
        workers = [_start_worker(settings, folder, name, stack) for name in ("worker-1", "worker-2")]
        run = Run(postgres, prometheus_port, time.time())
        with run.connect() as connection:
            _play(run, connection, first, workers[0], lambda: _start_worker(settings, folder, "worker-3", stack))
        yield run


def _settings(postgres: PostgresServer, first: Sink, second: Sink) -> dict[str, str]:
    return {
        "DB_HOST": postgres.socket_folder,
        "DB_PORT": str(postgres.port),
        "DB_NAME": "email",
        "DB_USER": "postgres",
        "EMAIL_PROVIDER_FALLBACK": "smtp_fallback",
        "SMTP_HOST": first.host,
        "SMTP_PORT": str(first.port),
        "SMTP_ENCRYPTION": "none",
        "SMTP_FALLBACK_HOST": second.host,
        "SMTP_FALLBACK_PORT": str(second.port),
        "SMTP_FALLBACK_ENCRYPTION": "none",
        "EMAIL_BREAKER_SECONDS": "5",
        "EMAIL_RETRY_DELAY_SECONDS": "5",
        "EMAIL_RATE_SMTP": f"{RATE}/s",
        "EMAIL_RATE_SMTP_FALLBACK": f"{RATE}/s",
        "EMAIL_FROM_ADDRESS": "tickets@example.com",
        "METRICS_PORT": str(FIRST_PORT),
        "METRICS_PORT_RANGE": "4",
        "LOG_LEVEL": "WARNING",
    }


def _start_prometheus(folder: Path, stack: ExitStack) -> int:
    program = shutil.which("prometheus")
    if program is None:
        raise SystemExit("prometheus is not installed (Debian: apt install prometheus)")
    port = free_tcp_port()
    targets = ", ".join(f'"127.0.0.1:{FIRST_PORT + number}"' for number in range(4))
    configuration = folder / "prometheus.yml"
    rules = ROOT / "deploy" / "prometheus"
    configuration.write_text(_PROMETHEUS.format(seconds=SCRAPE_SECONDS, rules=rules, targets=targets))
    options = (f"--config.file={configuration}", f"--storage.tsdb.path={folder / 'data'}")
    _start([program, *options, f"--web.listen-address=127.0.0.1:{port}"], {}, folder / "prometheus.log", stack)
    return port


def _start_worker(settings: dict[str, str], folder: Path, name: str, stack: ExitStack) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "procrastinate", "--app=worker.app.app", "worker"]
    own = {"PYTHONPATH": str(ROOT), **settings, "WORKER_NAME": name}
    return _start(command, own, folder / f"{name}.log", stack)


def _start(command: list[str], settings: dict[str, str], log: Path, stack: ExitStack) -> "subprocess.Popen[bytes]":
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, env=inherited | settings, cwd=log.parent, stdout=stream, stderr=subprocess.STDOUT
        )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def _play(
    run: Run,
    db: psycopg.Connection[Any],
    first: Sink,
    victim: "subprocess.Popen[bytes]",
    start_another: Callable[[], object],
) -> None:
    """Second after second: what arrives, and what goes wrong."""
    chance = random.Random(1)
    samples = {path.parent.name: json.loads(path.read_text()) for path in (ROOT / "templates").glob("*/sample.json")}
    for second in range(SECONDS):
        _arrive(db, chance, samples, second)
        if second == CAMPAIGN_AT:
            _announce(db, samples["newsletter"]["data"])
        elif second == SERVER_GOES_AT:
            first.kill()
        elif second == SERVER_COMES_AT:
            first.start()
        elif second == KILL_AT:
            victim.kill()
        elif second == KILL_AT + 10:
            start_another()
        print(f"\r{second + 1} of {SECONDS} s ", end="", file=sys.stderr, flush=True)
        time.sleep(max(0.0, run.began + second + 1 - time.time()))
    print(file=sys.stderr)


def _arrive(db: psycopg.Connection[Any], chance: random.Random, samples: dict[str, Any], second: int) -> None:
    number = max(1, round(STEADY * (1 + 0.3 * chance.uniform(-1, 1))))
    kinds = chance.choices(list(STEADY_TYPES), list(STEADY_TYPES.values()), k=number)
    domains = chance.choices(("example.com", "example.net", REFUSED, BUSY), (70, 27, 1, 2), k=number)
    rows = [
        (f"{kind}-{second}-{n}", kind, kind, f"ann{second}-{n}@{domain}", Jsonb(samples[kind]["data"]))
        for n, (kind, domain) in enumerate(zip(kinds, domains, strict=True))
    ]
    with db.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO email_jobs (job_id, type, template, recipient_email, data) VALUES (%s, %s, %s, %s, %s)", rows
        )


def _announce(db: psycopg.Connection[Any], data: dict[str, Any]) -> None:
    db.execute(
        "INSERT INTO email_jobs (job_id, type, template, recipient_email, data, campaign_id)"
        " SELECT 'news-' || n, 'newsletter', 'newsletter', 'reader' || n || CASE WHEN n %% 150 = 0 THEN %s ELSE"
        " '@example.com' END, %s, %s FROM generate_series(1, %s) AS n",
        (f"@{REFUSED}", Jsonb(data), CAMPAIGN, CAMPAIGN_MAILS),
    )
