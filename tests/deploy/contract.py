"""The metrics that our processes serve, by name and type: rules and dashboards may name no other.

A test for the code that serves them should compare it with this list.
"""

COUNTERS = {
    "email_jobs_processed_total",
    "email_delivery_attempts_total",
    "email_retries_total",
    "email_template_renders_total",
    "email_rate_limited_total",
    "email_suppressed_total",
    "email_ingest_messages_total",
    "process_cpu_seconds_total",
}
HISTOGRAMS = {
    "email_delivery_duration_seconds",
    "email_render_duration_seconds",
    "email_claim_duration_seconds",
    "email_settle_duration_seconds",
    "email_batch_size",
}
GAUGES = {
    "email_queue_depth",
    "email_queue_oldest_due_seconds",
    "email_books_difference",
    "email_in_doubt",
    "email_events_last_hour",
    "email_paused",
    "email_event_relay_lag_seconds",
    "email_provider_breaker_state",
    "email_provider_quota_used_ratio",
    "email_certificate_expires_timestamp_seconds",
    "email_dkim_key_expires_timestamp_seconds",
    "email_ingest_lag",
    "email_event_loop_lag_seconds",
    "email_build_info",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_start_time_seconds",
}
# What a query may name: a histogram by its parts, and `up`, which is Prometheus's own.
SERIES = COUNTERS | GAUGES | {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "sum", "count")} | {"up"}
