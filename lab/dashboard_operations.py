"""The dashboard for whoever is on call: everything from Prometheus.

What only the process that reads the queue exports is asked for with `max by`; counters are added up over all processes.
`email_delivery_success_rate` and the dead letters of an hour are recorded by deploy/prometheus/rules.yml.
"""

from grafana_foundation_sdk.builders.dashboard import Dashboard

from lab.dashboard_parts import Ask, graph, number, page, states, with_section

WORKERS = 'job="email-worker"'
PROCESSES = 'job=~"email-worker|email-ingest"'
QUANTILES = (0.5, 0.95, 0.99)
BREAKERS = {0: ("closed", "green"), 1: ("half-open", "yellow"), 2: ("open", "red")}
PAUSES = {0: ("runs", "green"), 1: ("paused", "orange")}


def operations() -> Dashboard:
    """Now, delivery, queue, providers, roads, processes."""
    dashboard = page(
        "email-operations",
        "Email: operations",
        "Whether mail leaves, how fast, and what stands in its way. docs/runbook.md says what to do.",
        since="now-3h",
        refresh="30s",
    )
    _now(dashboard)
    _delivery(dashboard)
    _queue(dashboard)
    _providers(dashboard)
    _roads(dashboard)
    _processes(dashboard)
    return dashboard


def _now(dashboard: Dashboard) -> None:
    panels = [
        number("Workers", f"sum(up{{{WORKERS}}})", "short", "Processes that answer Prometheus."),
        number(
            "Oldest due, transactional",
            'max(email_queue_oldest_due_seconds{queue="transactional"})',
            "s",
            "How long the oldest transactional mail has been due.",
            limits=(60, 300),
        ),
        number(
            "Oldest due, bulk",
            'max(email_queue_oldest_due_seconds{queue="bulk"})',
            "s",
            "How long the oldest bulk mail has been due.",
            limits=(900, 3600),
        ),
        number(
            "Dead in the last hour",
            f'sum(email_jobs_processed:increase1h{{outcome="dead"}}) or 0 * sum(up{{{WORKERS}}})',
            "short",
            "Mails that were given up.",
            limits=(1, 10),
        ),
        number(
            "In doubt", "max(email_in_doubt)", "short", "May or may not have been sent; somebody decides.", limits=(1,)
        ),
        number("Books difference", "max(email_books_difference)", "short", "Must be 0.", limits=(1,)),
    ]
    with_section(dashboard, "Now", panels)


def _delivery(dashboard: Dashboard) -> None:
    panels = [
        graph(
            "Jobs settled",
            [Ask(f"sum by (outcome) ({_rate('email_jobs_processed_total')})", "{{outcome}}")],
            "ops",
            "Jobs a second, by what was settled about them.",
        ),
        graph(
            "Success rate",
            [Ask("email_delivery_success_rate", "{{provider}}")],
            "percentunit",
            "Accepted, of what was handed over in five minutes.",
        ),
        graph(
            "Attempts",
            [Ask(f"sum by (provider, outcome) ({_rate('email_delivery_attempts_total')})", "{{provider}} {{outcome}}")],
            "ops",
            "Hand-overs a second, by what the provider said.",
        ),
        graph(
            "Latency of providers",
            [_quantile(part, "email_delivery_duration_seconds", "provider") for part in QUANTILES],
            "s",
            "From the hand-over of a mail to the answer.",
        ),
        graph(
            "Retries",
            [Ask(f"sum by (type) ({_rate('email_retries_total')})", "{{type}}")],
            "ops",
            "Mails a second that are to be tried again later.",
        ),
        graph(
            "Steps of a batch, 95 %",
            [_quantile(0.95, f"email_{step}_duration_seconds", name=step) for step in ("claim", "render", "settle")],
            "s",
            "Time for one batch.",
        ),
        graph(
            "Jobs in a batch",
            [Ask(f"sum({_rate('email_batch_size_sum')}) / sum({_rate('email_batch_size_count')})", "average")],
            "short",
            "Small batches: the queue is nearly empty, or a limit lets few through.",
        ),
        graph(
            "Rendered",
            [Ask(f"sum by (template) ({_rate('email_template_renders_total')})", "{{template}}")],
            "ops",
            "Mails a second, by template.",
        ),
        graph(
            "Feedback of the last hour",
            [Ask("max by (event) (email_events_last_hour)", "{{event}}")],
            "short",
            "What recipients and their servers told: deliveries, bounces, complaints, clicks.",
        ),
    ]
    with_section(dashboard, "Delivery", panels)


def _queue(dashboard: Dashboard) -> None:
    panels = [
        graph(
            "Queue depth",
            [Ask('max by (queue, status) (email_queue_depth{status=~"pending|due"})', "{{queue}} {{status}}")],
            "short",
            "Pending jobs, and those of them that are due.",
        ),
        graph(
            "Oldest due",
            [Ask("max by (queue) (email_queue_oldest_due_seconds)", "{{queue}}")],
            "s",
            "How long the oldest due job has waited.",
        ),
        graph(
            "Doubts, books",
            [Ask("max(email_in_doubt)", "in doubt"), Ask("max(email_books_difference)", "books difference")],
            "short",
            "Both should be 0.",
        ),
        graph(
            "Jobs by their end",
            [
                Ask(
                    'max by (status) (sum by (status, instance) (email_queue_depth{status!~"pending|due"}))',
                    "{{status}}",
                )
            ],
            "short",
            "Jobs in the table that have come to an end.",
            width=12,
        ),
        states(
            "Paused",
            Ask("max by (kind, name) (email_paused)", "{{kind}} {{name}}"),
            "What is paused.",
            PAUSES,
            width=12,
        ),
    ]
    with_section(dashboard, "Queue", panels)


def _providers(dashboard: Dashboard) -> None:
    panels = [
        states(
            "Breakers",
            Ask("max by (provider) (email_provider_breaker_state)", "{{provider}}"),
            "The worst of all workers: each has breakers of its own.",
            BREAKERS,
        ),
        graph(
            "Held up by a limit",
            [Ask(f"sum by (bucket) ({_rate('email_rate_limited_total')})", "{{bucket}}")],
            "ops",
            "Mails a second that a rate limit or a ceiling made wait.",
        ),
        graph(
            "Suppressed",
            [Ask(f"sum by (reason) ({_rate('email_suppressed_total')})", "{{reason}}")],
            "ops",
            "Mails a second that were not sent for the recipient's sake.",
        ),
        graph(
            "Quota used",
            [Ask("max by (provider) (email_provider_quota_used_ratio)", "{{provider}}")],
            "percentunit",
            "Mails of the last day over the account's daily quota.",
            width=12,
        ),
        graph(
            "Time until it expires",
            [
                Ask("min by (provider) (email_certificate_expires_timestamp_seconds > 0) - time()", "{{provider}}"),
                Ask("min(email_dkim_key_expires_timestamp_seconds > 0) - time()", "DKIM key"),
            ],
            "s",
            "Certificates of the providers' servers, and our DKIM key.",
            width=12,
        ),
    ]
    with_section(dashboard, "Providers and limits", panels)


def _roads(dashboard: Dashboard) -> None:
    ingested = f"sum by (source, result) ({_rate('email_ingest_messages_total')})"
    # As in rules.yml: Kafka's ingestors share the lag, those at Redis all see the same.
    lag = 'sum by (source) (email_ingest_lag{source="kafka"}) or max by (source) (email_ingest_lag{source!="kafka"})'
    panels = [
        graph("Messages", [Ask(ingested, "{{source}} {{result}}")], "ops", "Messages a second that came in."),
        graph("Ingest lag", [Ask(lag, "{{source}}")], "short", "Messages that wait at their source."),
        graph(
            "Relay lag",
            [Ask("max(email_event_relay_lag_seconds)", "events")],
            "s",
            "Age of the oldest event that Kafka has not got.",
        ),
    ]
    with_section(dashboard, "Ways in and out", panels)


def _processes(dashboard: Dashboard) -> None:
    panels = [
        graph(
            "Event loop lag",
            [Ask("email_event_loop_lag_seconds", "{{service}} {{instance}}")],
            "s",
            "How late the loop is; some milliseconds when it is full.",
        ),
        graph(
            "Memory",
            [Ask(f"process_resident_memory_bytes{{{PROCESSES}}}", "{{service}} {{instance}}")],
            "bytes",
            "Resident memory of each process.",
        ),
        graph(
            "CPU",
            [Ask(_rate("process_cpu_seconds_total", PROCESSES), "{{service}} {{instance}}")],
            "percentunit",
            "Part of one core. At 1 a worker has no more to give: start another.",
        ),
        graph(
            "Open files",
            [Ask(f"process_open_fds{{{PROCESSES}}}", "{{service}} {{instance}}")],
            "short",
            "Connections and files.",
        ),
        graph(
            "Age of the processes",
            [Ask(f"time() - process_start_time_seconds{{{PROCESSES}}}", "{{service}} {{instance}}")],
            "s",
            "A saw: something starts them again and again.",
        ),
        graph(
            "Versions",
            [Ask("count by (version) (email_build_info)", "{{version}}")],
            "short",
            "Processes of each version.",
        ),
    ]
    with_section(dashboard, "Processes", panels)


def _rate(counter: str, labels: str = "") -> str:
    selector = f"{{{labels}}}" if labels else ""
    return f"rate({counter}{selector}[$__rate_interval])"


def _quantile(part: float, histogram: str, label: str = "", name: str = "") -> Ask:
    by = f"le, {label}" if label else "le"
    expr = f"histogram_quantile({part}, sum by ({by}) ({_rate(f'{histogram}_bucket')}))"
    return Ask(expr, f"{{{{{label}}}}} {part:.0%}" if label else name)
