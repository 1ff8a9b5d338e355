"""Whether everything that the settings name answers: the database, Redis, Kafka and, when asked, the providers.

Each check has its time and, when it fails, what to do. Providers are called only on demand: their answers cost quota.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import psycopg

from worker.db import connect_once, failed_statement
from worker.errors import EmailWorkerError
from worker.kafka import client_config, describe_topic, make_client
from worker.providers.calls import CalledProvider
from worker.providers.http import HttpPool
from worker.providers.registry import make_provider, sender_of, smtp_server
from worker.providers.smtp_connect import connect
from worker.redis_client import blocking_client
from worker.schema import check_schema_now
from worker.settings import Settings, provider_names

ANSWER_SECONDS = 5.0
OK = 200


class Check(msgspec.Struct, frozen=True):
    """One part: whether it answers, after how many milliseconds, what it said, and what to do if it is ill."""

    part: str
    is_well: bool
    milliseconds: float
    said: str
    advice: str = ""


def check_health(settings: Settings, *, with_providers: bool) -> Iterator[Check]:
    """Every part that the settings name, one after the other."""
    yield _check("postgres", lambda: _postgres(settings))
    if settings.redis_host:
        yield _check("redis", lambda: _redis(settings))
    if settings.kafka_bootstrap_servers:
        yield _check("kafka", lambda: _kafka(settings))
    for name in provider_names(settings) if with_providers else ():
        yield _check(name, partial(_provider, settings, name))


_ADVICE = {
    "postgres": "check DB_HOST and its neighbours, and whether email-worker migrate was run",
    "redis": "check REDIS_HOST, REDIS_PORT, REDIS_PASSWORD and REDIS_SSL",
    "kafka": "check KAFKA_BOOTSTRAP_SERVERS, the security settings and the topics",
    "smtp": "check SMTP_HOST, SMTP_PORT, SMTP_ENCRYPTION, SMTP_USERNAME and SMTP_PASSWORD",
    "smtp_fallback": "check SMTP_FALLBACK_HOST and its neighbours",
    "ses": "check AWS_SES_REGION and the keys; they need the right to ses:GetAccount",
    "sendgrid": "check SENDGRID_API_KEY and SENDGRID_API_HOST",
}


def _check(part: str, ask: Callable[[], str]) -> Check:
    began = time.monotonic()
    try:
        said, is_well = ask(), True
    except EmailWorkerError as error:
        said, is_well = str(error), False
    except Exception as error:  # noqa: BLE001  Whatever a library raises: the other parts are to be asked too.
        # The type alone: a library's text may hold a key.
        said, is_well = type(error).__name__, False
    milliseconds = round((time.monotonic() - began) * 1000, 1)
    return Check(part, is_well, milliseconds, said, "" if is_well else _ADVICE[part])


def _postgres(settings: Settings) -> str:
    with connect_once(settings, "email-worker health") as connection:
        try:
            check_schema_now(connection)
        except psycopg.Error as error:
            raise failed_statement(error) from None
    return "schema up to date"


def _redis(settings: Settings) -> str:
    client = blocking_client(settings, ANSWER_SECONDS)
    try:
        client.ping()
        found: Any = client.info("server")
    finally:
        client.close()
    return f"{found.get('server_name', 'redis')} {found.get('redis_version', '')}".strip()


def _kafka(settings: Settings) -> str:
    from confluent_kafka.admin import AdminClient

    admin = make_client(AdminClient, client_config(settings))
    names = (settings.kafka_topic_email_jobs, settings.kafka_topic_email_events)
    return ", ".join(f"{name}: {describe_topic(admin, name).partitions} partitions" for name in names)


def _provider(settings: Settings, name: Any) -> str:
    match name:
        case "sendgrid":
            return _sendgrid(settings)
        case "ses":
            return asyncio.run(_ses(settings))
        case _:
            return asyncio.run(_smtp(settings, name))


async def _smtp(settings: Settings, name: str) -> str:
    transport, extensions = await connect(name, smtp_server(name, settings), ANSWER_SECONDS)
    answer = asyncio.get_running_loop().create_future()
    transport.set_protocol(_Noop(answer))
    transport.write(b"NOOP\r\n")
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            said = await answer
    except TimeoutError:
        raise EmailWorkerError("connected, but NOOP got no answer") from None
    finally:
        transport.close()
    if not said.startswith(b"250"):
        raise EmailWorkerError(f"NOOP: {said.decode('utf-8', 'replace').strip()[:200]}")
    return "NOOP answered" + (", PIPELINING" if extensions.pipelining else ", no PIPELINING: slower")


class _Noop(asyncio.Protocol):
    """Waits for one line."""

    def __init__(self, answer: "asyncio.Future[bytes]") -> None:
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_result(b"the connection was closed")


async def _ses(settings: Settings) -> str:
    provider = make_provider("ses", settings, sender_of(settings))
    assert isinstance(provider, CalledProvider)
    try:
        quota = await provider.quota()
    finally:
        await provider.close()
    if quota is None:
        return "answered"
    allowed = f"{quota.most_per_day:,.0f}" if quota.most_per_day else "any number"
    pace = f"{quota.most_per_second:g} a second" if quota.most_per_second else "at any pace"
    return f"{quota.sent_last_day:,.0f} mails within a day of {allowed}, {pace}"


def _sendgrid(settings: Settings) -> str:
    headers = {"Authorization": f"Bearer {settings.sendgrid_api_key.reveal()}"}
    url = settings.sendgrid_api_host.rstrip("/") + "/v3/scopes"
    answer = HttpPool(1).request("GET", url, headers, None, ANSWER_SECONDS)
    if answer.status != OK:
        raise EmailWorkerError(f"the key was answered with {answer.status}")
    scopes = msgspec.json.decode(answer.body).get("scopes", [])
    if "mail.send" not in scopes:
        raise EmailWorkerError("the key may not send: it lacks the scope mail.send")
    return "the key may send mail"
