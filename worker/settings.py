"""The settings: every environment variable that this package reads, its type, its limits and what it means.

`settings_loading` reads them from the environment.
`settings_docs` says what each means; `docs/configuration.md` and `.env.example` are generated from both.
"""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

from worker.errors import SettingsError
from worker.setting_types import (
    Address,
    Day,
    DomainRates,
    Encryption,
    KafkaName,
    MetricsPort,
    OptionalAddress,
    Partitions,
    Patterns,
    Port,
    ProviderName,
    Providers,
    RateText,
    Secret,
    Text,
    WorkerName,
    seconds,
    share,
    whole,
)


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force. Field names are the variables' names in lower case; `settings_docs` says what each means."""

    worker_name: WorkerName = msgspec.field(default_factory=_worker_name)
    environment: Literal["development", "staging", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_pii: bool = False
    log_slow_seconds: Annotated[float, seconds(0, 3600)] = 5.0
    metrics_port: MetricsPort = 0
    metrics_port_range: Annotated[int, whole(1, 1000)] = 10
    worker_concurrency: Annotated[int, whole(2, 100)] = 10
    worker_batch_size: Annotated[int, whole(1, 1000)] = 50

    db_host: Text = "localhost"
    db_port: Port = 5432
    db_name: Text = "email"
    db_user: Text = "email"
    db_password: Secret = Secret()
    db_ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"

    email_provider_primary: ProviderName = "smtp"
    email_provider_fallback: Providers = ""
    email_from_address: Address = "noreply@localhost"
    email_from_name: Text = ""
    email_reply_to: OptionalAddress = ""
    email_unsubscribe_url: Text = ""
    email_allowed_recipients: Patterns = ""
    email_redirect_to: OptionalAddress = ""

    smtp_host: Text = "localhost"
    smtp_port: Port = 25
    smtp_username: Text = ""
    smtp_password: Secret = Secret()
    smtp_encryption: Encryption = "starttls"
    smtp_fallback_host: Text = ""
    smtp_fallback_port: Port = 25
    smtp_fallback_username: Text = ""
    smtp_fallback_password: Secret = Secret()
    smtp_fallback_encryption: Encryption = "starttls"
    smtp_connection_mails: Annotated[int, whole(1, 1_000_000)] = 1000
    smtp_connection_idle_seconds: Annotated[float, seconds(1, 3600)] = 30.0

    dkim_domain: Text = ""
    dkim_selector: Text = ""
    dkim_private_key: Secret = Secret()
    dkim_private_key_file: Text = ""
    dkim_key_expires: Day = ""

    sendgrid_api_key: Secret = Secret()
    sendgrid_api_host: Text = "https://api.sendgrid.com"
    sendgrid_template_id: Text = ""
    sendgrid_sandbox_mode: bool = False

    aws_ses_region: Text = "us-east-1"
    aws_ses_access_key: Text = ""
    aws_ses_secret_key: Secret = Secret()
    aws_ses_endpoint_url: Text = ""
    aws_ses_configuration_set: Text = ""

    email_job_concurrency: Annotated[int, whole(1, 200)] = 10
    email_job_batch_size: Annotated[int, whole(1, 1000)] = 50
    email_job_timeout_seconds: Annotated[float, seconds(1, 3600)] = 300.0
    email_batch_deadline_seconds: Annotated[float, seconds(3, 600)] = 30.0
    email_breaker_failures: Annotated[int, whole(0, 100_000)] = 20
    email_breaker_seconds: Annotated[float, seconds(0.1, 3600)] = 30.0
    email_slow_seconds: Annotated[float, seconds(0.1, 3600)] = 15.0
    email_rate_smtp: RateText = ""
    email_rate_smtp_fallback: RateText = ""
    email_rate_ses: RateText = ""
    email_rate_sendgrid: RateText = ""
    email_rate_domain: DomainRates = ""
    email_rate_recipient: RateText = ""
    email_rate_transactional_share: Annotated[float, share()] = 0.2
    email_retry_delay_seconds: Annotated[float, seconds(0, 86400)] = 60.0
    email_max_retries: Annotated[int, whole(0, 100)] = 3
    email_doubt_seconds: Annotated[float, seconds(0, 86400)] = 120.0
    email_max_message_bytes: Annotated[int, whole(10_000, 100_000_000)] = 25_000_000

    retention_days: Annotated[int, whole(0, 36_500)] = 0
    retention_key_days: Annotated[int, whole(1, 36_500)] = 30

    email_dead_letter_queue: KafkaName = "email-dlq"

    kafka_bootstrap_servers: Text = ""
    kafka_topic_email_jobs: KafkaName = "email-jobs"
    kafka_topic_email_events: KafkaName = "email-events"
    kafka_group_id: Text = "email-worker"
    kafka_partitions: Partitions = ""
    kafka_session_timeout_seconds: Annotated[float, seconds(6, 300)] = 10.0
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: Text = ""
    kafka_sasl_password: Secret = Secret()
    kafka_ssl_ca_location: Text = ""

    redis_host: Text = ""
    redis_port: Port = 6379
    redis_password: Secret = Secret()
    redis_db: Annotated[int, whole(0, 1000)] = 5
    redis_ssl: bool = False
    redis_list_email_jobs: Text = "email-jobs"
    redis_stream_email_jobs: Text = ""
    redis_status_ttl_seconds: Annotated[int, whole(1, 31_536_000)] = 86_400
    redis_dead_letters_kept: Annotated[int, whole(1, 10_000_000)] = 100_000

    ingest_batch_size: Annotated[int, whole(1, 5000)] = 500


def allowed(kind: Any) -> str:
    """What a variable of this type may be, in words."""
    if kind is Secret:
        return "one line of text"
    if kind is bool:
        return "true or false"
    if get_origin(kind) is Literal:
        return " or ".join(choice or "(empty)" for choice in get_args(kind))
    return str(kind.__metadata__[0].description)


def provider_names(settings: Settings) -> list[ProviderName]:
    """The providers in the order in which they are tried."""
    fallbacks = filter(None, settings.email_provider_fallback.split(","))
    return [settings.email_provider_primary, *cast(Iterable[ProviderName], fallbacks)]


def dkim_key(settings: Settings) -> Secret:
    """The DKIM key, wherever it is. Raises SettingsError for a file that cannot be read."""
    if not settings.dkim_private_key_file:
        return settings.dkim_private_key
    try:
        return Secret(Path(settings.dkim_private_key_file).read_text())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text"
        raise SettingsError(
            f"DKIM_PRIVATE_KEY_FILE={settings.dkim_private_key_file!r} cannot be read: {why}."
        ) from None


def listed_partitions(text: str) -> list[int]:
    """`0,4-6` as [0, 4, 5, 6]."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def shown(settings: Settings) -> dict[str, str]:
    """Every variable with its value in force, secrets masked."""
    return {name.upper(): str(getattr(settings, name)) for name in settings.__struct_fields__}
