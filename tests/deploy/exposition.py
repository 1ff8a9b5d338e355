"""A worker and an ingestor as Prometheus sees them: every metric of the contract, served from this process.

The numbers are of a bad day, so that alerts have something to say; counters grow with each scrape.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from tests.deploy.contract import COUNTERS, GAUGES, HISTOGRAMS

DAY = 86400
OUTCOMES = ("sent", "retry_scheduled", "snoozed", "dead", "suppressed", "expired", "in_doubt")
ATTEMPTS = ("accepted", "refused", "failed", "unknown", "not_sent", "unavailable")
STATUSES = ("pending", "due", "sent", "dead", "cancelled", "suppressed", "expired", "in_doubt")

_scrapes = count(1)


def exposition(scrape: int) -> str:
    """All metrics, in Prometheus's text format, as they are at the n-th scrape."""
    lines = [*_counters(scrape * 100), *_histograms(scrape * 100), *_gauges()]
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == COUNTERS | GAUGES | HISTOGRAMS
    return "\n".join(lines) + "\n"


def _counters(n: int) -> Iterator[str]:
    yield from _family(
        "counter",
        "email_jobs_processed_total",
        {f'type="{kind}",outcome="{outcome}"': n for kind in ("newsletter", "welcome-email") for outcome in OUTCOMES},
    )
    attempts = {f'provider="{name}",outcome="{outcome}"': n for name in ("smtp", "ses") for outcome in ATTEMPTS}
    yield from _family("counter", "email_delivery_attempts_total", attempts)
    yield from _family("counter", "email_retries_total", {'type="newsletter"': n})
    yield from _family("counter", "email_template_renders_total", {'template="newsletter"': n})
    limits = ("provider smtp", "domain", "recipient", "ceiling")
    yield from _family("counter", "email_rate_limited_total", {f'bucket="{name}"': n for name in limits})
    yield from _family("counter", "email_suppressed_total", {'reason="hard_bounce"': n, 'reason="unsubscribe"': n})
    roads = [(road, result) for road in ("kafka", "redis_list") for result in ("accepted", "duplicate", "rejected")]
    messages = {f'source="{road}",result="{result}"': n for road, result in roads}
    yield from _family("counter", "email_ingest_messages_total", messages)
    yield from _family("counter", "process_cpu_seconds_total", {"": n / 1000})


def _histograms(n: int) -> Iterator[str]:
    for name in sorted(HISTOGRAMS):
        label = 'provider="smtp",' if name == "email_delivery_duration_seconds" else ""
        yield f"# TYPE {name} histogram"
        yield from (f'{name}_bucket{{{label}le="{limit}"}} {n}' for limit in ("0.1", "1.0", "+Inf"))
        own = f"{{{label.rstrip(',')}}}" if label else ""
        yield f"{name}_sum{own} {n / 20}"
        yield f"{name}_count{own} {n}"


def _gauges() -> Iterator[str]:
    now = time.time()
    queues = ("transactional", "bulk")
    values: dict[str, dict[str, float]] = {
        "email_queue_depth": {f'queue="{queue}",status="{status}"': 40 for queue in queues for status in STATUSES},
        "email_queue_oldest_due_seconds": {f'queue="{queue}"': 5000 for queue in queues},
        "email_books_difference": {"": 1},
        "email_in_doubt": {"": 2},
        "email_events_last_hour": {'event="bounced"': 1e6, 'event="complained"': 1e6, 'event="opened"': 20},
        "email_paused": {'kind="type",name="newsletter"': 1},
        "email_event_relay_lag_seconds": {"": 400},
        "email_provider_breaker_state": {'provider="smtp"': 0, 'provider="ses"': 2},
        "email_provider_quota_used_ratio": {'provider="ses"': 0.9},
        "email_certificate_expires_timestamp_seconds": {'provider="smtp"': now + 10 * DAY},
        "email_dkim_key_expires_timestamp_seconds": {"": now + 10 * DAY},
        "email_ingest_lag": {'source="kafka"': 2000, 'source="redis_list"': 3000},
        "email_event_loop_lag_seconds": {"": 0.2},
        "email_build_info": {'version="0.4.0"': 1},
        "process_resident_memory_bytes": {"": 9e7},
        "process_open_fds": {"": 40},
        "process_start_time_seconds": {"": now - DAY},
    }
    for name, series in values.items():
        yield from _family("gauge", name, series)


def _family(kind: str, name: str, series: Mapping[str, float]) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{{{labels}}} {value}" if labels else f"{name} {value}" for labels, value in series.items())


class _Process(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        answer = exposition(next(_scrapes)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """A scrape is nothing to tell of."""


@contextmanager
def served() -> Iterator[int]:
    """Serve it on a port of 127.0.0.1, which is yielded."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Process) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
