"""The settings from the environment, and the rules that they must keep, one by one and together.

The environment is read here and nowhere else, a `.env` file in the working folder included; the environment wins.
"""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from worker.errors import SettingsError
from worker.rate import parse_domain_rates
from worker.setting_types import Day, Secret
from worker.settings import Settings, allowed, listed_partitions, provider_names

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
            values[field.name] = _convert(text, field.type, has_lines=field.name == "dkim_private_key")
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


def _convert(text: str, kind: Any, *, has_lines: bool = False) -> Any:
    if "\x00" in text or (not has_lines and ("\n" in text or "\r" in text)):
        raise msgspec.ValidationError
    if kind is Secret:
        return Secret(text)
    value = msgspec.convert(text.strip(), kind, strict=False)
    if isinstance(value, int) and kind is not bool and not text.strip().isdigit():
        # msgspec takes 1e1 for a whole number; people take it for a mistake.
        raise msgspec.ValidationError
    return value


def _contradictions(settings: Settings) -> list[str]:
    """Settings that are right one by one and wrong together."""
    wrong = []
    if settings.environment == "production" and settings.email_from_address == "noreply@localhost":
        wrong.append("EMAIL_FROM_ADDRESS is not set: in production it must be the sender's address.")
    wrong += _providers(settings)
    wrong += _roads(settings)
    try:
        parse_domain_rates(settings.email_rate_domain)
    except SettingsError as error:
        wrong.append(f"EMAIL_RATE_DOMAIN={settings.email_rate_domain!r} is not allowed: {error}")
    url = settings.email_unsubscribe_url
    if url and not _is_link(url):
        wrong.append(f"EMAIL_UNSUBSCRIBE_URL={url!r} is not allowed: it must be an https:, http: or mailto: address.")
    return wrong


def _providers(settings: Settings) -> list[str]:
    wrong = []
    names = provider_names(settings)
    for name in sorted({name for name in names if names.count(name) > 1}):
        wrong.append(
            f"EMAIL_PROVIDER_FALLBACK={settings.email_provider_fallback!r} names {name} for the second time: "
            "each provider is tried once."
        )
    if "smtp_fallback" in names and not settings.smtp_fallback_host:
        wrong.append("SMTP_FALLBACK_HOST is not set, but the provider smtp_fallback needs it.")
    if "sendgrid" in names and not settings.sendgrid_api_key:
        wrong.append("SENDGRID_API_KEY is not set, but the provider sendgrid needs it.")
    if "ses" in names and bool(settings.aws_ses_access_key) != bool(settings.aws_ses_secret_key):
        wrong.append("AWS_SES_ACCESS_KEY and AWS_SES_SECRET_KEY belong together: set both, or neither.")
    wrong += _staging(settings, names)
    has_key = bool(settings.dkim_private_key) + bool(settings.dkim_private_key_file)
    if has_key == 2 or len({bool(settings.dkim_domain), bool(settings.dkim_selector), bool(has_key)}) > 1:
        wrong.append(
            "DKIM_DOMAIN needs DKIM_SELECTOR and either DKIM_PRIVATE_KEY or DKIM_PRIVATE_KEY_FILE: set three, or none."
        )
    if settings.dkim_key_expires and not _is_day(settings.dkim_key_expires):
        wrong.append(f"DKIM_KEY_EXPIRES={settings.dkim_key_expires!r} is not allowed: it must be {allowed(Day)}.")
    for field in ("sendgrid_api_host", "aws_ses_endpoint_url"):
        url = getattr(settings, field)
        if url and not url.startswith(("https://", "http://")):
            wrong.append(f"{field.upper()}={url!r} is not allowed: it must be an https: or http: address.")
    return wrong


def _staging(settings: Settings, names: Sequence[str]) -> list[str]:
    """A system that is not production must not be able to write to customers."""
    servers = {
        "smtp": settings.smtp_host,
        "smtp_fallback": settings.smtp_fallback_host,
        "ses": settings.aws_ses_endpoint_url or "amazonaws.com",
        "sendgrid": settings.sendgrid_api_host,
    }
    is_safe = settings.environment == "production" or settings.email_allowed_recipients or settings.email_redirect_to
    away = [name for name in names if servers[name] and not _is_here(servers[name])]
    if is_safe or not away:
        return []
    return [
        f"ENVIRONMENT={settings.environment!r} could write to customers through {away[0]}: set EMAIL_REDIRECT_TO or "
        "EMAIL_ALLOWED_RECIPIENTS, use a provider on localhost, or set ENVIRONMENT=production."
    ]


def _is_here(server: str) -> bool:
    """Whether a host, or a URL's host, is this machine."""
    host = urlsplit(server).hostname if "://" in server else server
    return host in ("localhost", "::1", "[::1]") or bool(host and re.fullmatch(r"127(\.\d{1,3}){3}", host))


def _roads(settings: Settings) -> list[str]:
    """Kafka and Redis. A road that leads back to where it came from would bring every reject again, for ever."""
    wrong = []
    names = ("kafka_topic_email_jobs", "kafka_topic_email_events", "redis_list_email_jobs", "redis_stream_email_jobs")
    for name in names:
        if getattr(settings, name) == settings.email_dead_letter_queue:
            wrong.append(f"EMAIL_DEAD_LETTER_QUEUE={settings.email_dead_letter_queue!r} is {name.upper()} too.")
    if settings.kafka_topic_email_jobs == settings.kafka_topic_email_events:
        wrong.append(f"KAFKA_TOPIC_EMAIL_EVENTS={settings.kafka_topic_email_events!r} is KAFKA_TOPIC_EMAIL_JOBS too.")
    if settings.redis_list_email_jobs == settings.redis_stream_email_jobs:
        wrong.append(f"REDIS_STREAM_EMAIL_JOBS={settings.redis_stream_email_jobs!r} is REDIS_LIST_EMAIL_JOBS too.")
    if settings.kafka_security_protocol.startswith("SASL") and not (
        settings.kafka_sasl_username and settings.kafka_sasl_password
    ):
        wrong.append(
            f"KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs KAFKA_SASL_USERNAME and "
            "KAFKA_SASL_PASSWORD."
        )
    for part in filter(None, settings.kafka_partitions.split(",")):
        if not listed_partitions(part):
            wrong.append(f"KAFKA_PARTITIONS={settings.kafka_partitions!r} is not allowed: {part} runs backwards.")
    return wrong


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_link(url: str) -> bool:
    try:
        return urlsplit(url).scheme in ("https", "http", "mailto") and url.isprintable() and " " not in url
    except ValueError:
        return False
