"""The settings: every environment variable that this package reads, its type, its limits and what it means.

The environment is read here and nowhere else, a `.env` file in the working folder included; the environment wins.
`settings_docs` says what each means; `docs/configuration.md` and `.env.example` are generated from both.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from worker.errors import SettingsError


class Secret:
    """A text that shows itself only when asked by name."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The secret itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __repr__(self) -> str:
        return "***" if self._text else "(not set)"


Text = Annotated[str, Meta(description="text")]
WorkerName = Annotated[str, Meta(max_length=100, description="text, 100 characters at most")]
Port = Annotated[int, Meta(ge=1, le=65535, description="a port, 1 to 65535")]
Address = Annotated[str, Meta(pattern=r"^[^\s@<>,;]+@[^\s@<>,;]+$", description="one address, like mail@example.com")]
OptionalAddress = Annotated[
    str,
    Meta(pattern=r"^$|^[^\s@<>,;]+@[^\s@<>,;]+$", description="one address, like mail@example.com, or nothing"),
]
Encryption = Literal["none", "starttls", "tls"]
ProviderName = Literal["smtp", "smtp_fallback"]
KafkaName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$", description="letters, digits, dot, _ and -, 249 at most")
]
Partitions = Annotated[
    str,
    Meta(
        pattern=r"^$|^\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*$",
        description="partitions like 0,1,5 or 0-3, or nothing",
    ),
]


def _whole(least: int, most: int) -> Any:
    return Meta(ge=least, le=most, description=f"a whole number, {least} to {most}")


def _seconds(least: float, most: float) -> Any:
    return Meta(ge=least, le=most, description=f"seconds, {least:g} to {most:g}")


def _worker_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What is in force. Field names are the variables' names in lower case; `settings_docs` says what each means."""

    worker_name: WorkerName = msgspec.field(default_factory=_worker_name)
    environment: Literal["development", "staging", "production"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    worker_concurrency: Annotated[int, _whole(2, 100)] = 10
    worker_batch_size: Annotated[int, _whole(1, 1000)] = 50

    db_host: Text = "localhost"
    db_port: Port = 5432
    db_name: Text = "email"
    db_user: Text = "email"
    db_password: Secret = Secret()
    db_ssl_mode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"

    email_provider_primary: ProviderName = "smtp"
    email_provider_fallback: Literal["", "smtp", "smtp_fallback"] = ""
    email_from_address: Address = "noreply@localhost"
    email_from_name: Text = ""
    email_reply_to: OptionalAddress = ""
    email_unsubscribe_url: Text = ""

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
    smtp_connection_mails: Annotated[int, _whole(1, 1_000_000)] = 1000
    smtp_connection_idle_seconds: Annotated[float, _seconds(1, 3600)] = 30.0

    email_job_concurrency: Annotated[int, _whole(1, 200)] = 10
    email_job_batch_size: Annotated[int, _whole(1, 1000)] = 50
    email_job_timeout_seconds: Annotated[float, _seconds(1, 3600)] = 300.0
    email_batch_deadline_seconds: Annotated[float, _seconds(3, 600)] = 30.0
    email_retry_delay_seconds: Annotated[float, _seconds(0, 86400)] = 60.0
    email_max_retries: Annotated[int, _whole(0, 100)] = 3
    email_doubt_seconds: Annotated[float, _seconds(0, 86400)] = 120.0
    email_max_message_bytes: Annotated[int, _whole(10_000, 100_000_000)] = 25_000_000

    email_dead_letter_queue: KafkaName = "email-dlq"

    kafka_bootstrap_servers: Text = ""
    kafka_topic_email_jobs: KafkaName = "email-jobs"
    kafka_topic_email_events: KafkaName = "email-events"
    kafka_group_id: Text = "email-worker"
    kafka_partitions: Partitions = ""
    kafka_session_timeout_seconds: Annotated[float, _seconds(6, 300)] = 10.0
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    kafka_sasl_username: Text = ""
    kafka_sasl_password: Secret = Secret()
    kafka_ssl_ca_location: Text = ""

    redis_host: Text = ""
    redis_port: Port = 6379
    redis_password: Secret = Secret()
    redis_db: Annotated[int, _whole(0, 1000)] = 5
    redis_ssl: bool = False
    redis_list_email_jobs: Text = "email-jobs"
    redis_stream_email_jobs: Text = ""
    redis_status_ttl_seconds: Annotated[int, _whole(1, 31_536_000)] = 86_400
    redis_dead_letters_kept: Annotated[int, _whole(1, 10_000_000)] = 100_000

    ingest_batch_size: Annotated[int, _whole(1, 5000)] = 500


# Deployments hand these on although they are empty, and empty they mean nothing.
EMPTY_IS_UNSET = ("db_", "worker_name")


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises SettingsError with every wrong variable, one line each."""
    given = _environment() if environment is None else environment
    values: dict[str, Any] = {}
    wrong: list[str] = []
    for field in msgspec.structs.fields(Settings):
        variable = field.name.upper()
        text = given.get(variable)
        if text is None or (text == "" and field.name.startswith(EMPTY_IS_UNSET)):
            continue
        try:
            values[field.name] = _convert(text, field.type)
        except msgspec.ValidationError:
            shown = Secret(text) if field.type is Secret else repr(text)
            wrong.append(f"{variable}={shown} is not allowed: it must be {allowed(field.type)}.")
    if not wrong:
        settings = Settings(**values)
        wrong = _contradictions(settings)
    if wrong:
        raise SettingsError("\n".join(wrong))
    return settings


def _environment() -> dict[str, str]:
    """The process environment over the `.env` file of the working folder."""
    if not Path(".env").is_file():
        return dict(os.environ)
    from dotenv import dotenv_values

    return {key: value for key, value in dotenv_values(".env").items() if value is not None} | dict(os.environ)


def _convert(text: str, kind: Any) -> Any:
    if kind is Secret:
        return Secret(text)
    if "\x00" in text or "\n" in text or "\r" in text:
        raise msgspec.ValidationError
    value = msgspec.convert(text.strip(), kind, strict=False)
    if isinstance(value, int) and kind is not bool and not text.strip().isdigit():
        # msgspec takes 1e1 for a whole number; people take it for a mistake.
        raise msgspec.ValidationError
    return value


def allowed(kind: Any) -> str:
    """What a variable of this type may be, in words."""
    if kind is Secret:
        return "one line of text"
    if kind is bool:
        return "true or false"
    if get_origin(kind) is Literal:
        return " or ".join(choice or "(empty)" for choice in get_args(kind))
    return str(kind.__metadata__[0].description)


def _contradictions(settings: Settings) -> list[str]:
    """Settings that are right one by one and wrong together."""
    wrong = []
    if settings.environment == "production" and settings.email_from_address == "noreply@localhost":
        wrong.append("EMAIL_FROM_ADDRESS is not set: in production it must be the sender's address.")
    if settings.email_provider_fallback == settings.email_provider_primary:
        wrong.append(
            f"EMAIL_PROVIDER_FALLBACK={settings.email_provider_fallback!r} is the primary too: "
            "it must be another provider, or empty."
        )
    used = (settings.email_provider_primary, settings.email_provider_fallback)
    if "smtp_fallback" in used and not settings.smtp_fallback_host:
        wrong.append("SMTP_FALLBACK_HOST is not set, but the provider smtp_fallback needs it.")
    wrong += _roads(settings)
    url = settings.email_unsubscribe_url
    if url and not _is_link(url):
        wrong.append(f"EMAIL_UNSUBSCRIBE_URL={url!r} is not allowed: it must be an https:, http: or mailto: address.")
    return wrong


def _roads(settings: Settings) -> list[str]:
    """A road that leads back to where it came from would bring every reject again, for ever."""
    wrong = []
    names = ("kafka_topic_email_jobs", "kafka_topic_email_events", "redis_list_email_jobs", "redis_stream_email_jobs")
    for name in names:
        if getattr(settings, name) == settings.email_dead_letter_queue:
            wrong.append(f"EMAIL_DEAD_LETTER_QUEUE={settings.email_dead_letter_queue!r} is {name.upper()} too.")
    if settings.kafka_topic_email_jobs == settings.kafka_topic_email_events:
        wrong.append(f"KAFKA_TOPIC_EMAIL_EVENTS={settings.kafka_topic_email_events!r} is KAFKA_TOPIC_EMAIL_JOBS too.")
    for part in filter(None, settings.kafka_partitions.split(",")):
        if not listed_partitions(part):
            wrong.append(f"KAFKA_PARTITIONS={settings.kafka_partitions!r} is not allowed: {part} runs backwards.")
    return wrong


def listed_partitions(text: str) -> list[int]:
    """`0,4-6` as [0, 4, 5, 6]."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _is_link(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("https", "http", "mailto") and url.isprintable() and " " not in url
    except ValueError:
        return False


def shown(settings: Settings) -> dict[str, str]:
    """Every variable with its value in force, secrets masked."""
    return {name.upper(): str(getattr(settings, name)) for name in settings.__struct_fields__}
