"""email-worker health and send-test, against what answers, what does not, and what answers wrongly."""

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lab.redis import RedisServer
from lab.scripted_smtp import ScriptedServer, in_thread
from lab.sendgrid_server import SendGridServer
from lab.ses_server import SesServer
from lab.sink_process import Sink
from lab.smtp_script import Script
from tests.integration.command import Command, Ended
from tests.providers.ses_service import KEYS
from tests.support import Database


def checks(ended: Ended) -> dict[str, dict[str, Any]]:
    """The JSON lines by their part."""
    return {check["part"]: check for check in map(json.loads, ended.out.splitlines())}


def test_a_healthy_house(command: Command, database: Database, limits_redis: RedisServer, sink: Sink) -> None:
    """Postgres, Redis and, when asked, the provider; each with its time."""
    environment = database.environment(SMTP_PORT=sink.port, **limits_redis.environment())
    ended = command("health", **environment)
    assert ended.status == 0
    assert [line.split()[:2] for line in ended.out.splitlines()] == [["ok", "postgres"], ["ok", "redis"]]
    found = checks(command("health", "--json", "--providers", **environment))
    assert list(found) == ["postgres", "redis", "smtp"]
    assert found["smtp"]["said"] == "NOOP answered, PIPELINING"
    assert all(check["is_well"] and check["milliseconds"] > 0 for check in found.values())


def test_each_ill_part_says_what_to_do(command: Command, database: Database) -> None:
    """Nobody listens there: every part is asked all the same, and the status is 1."""
    environment = database.environment(
        REDIS_HOST="127.0.0.1", REDIS_PORT=1, SMTP_PORT=1, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
    )
    ended = command("health", "--json", "--providers", **environment)
    assert ended.status == 1
    found = checks(ended)
    assert {part: check["is_well"] for part, check in found.items()} == {
        "postgres": True,
        "redis": False,
        "kafka": False,
        "smtp": False,
    }
    assert all(check["advice"].startswith("check ") for check in found.values() if not check["is_well"])
    text = command("health", "--providers", **environment).out
    assert "ILL  smtp" in text
    assert "check SMTP_HOST" in text


def test_a_database_without_our_schema_is_ill(command: Command, database: Database) -> None:
    """As is one that is not there."""
    with database.connect() as connection:
        connection.execute("DROP TABLE email_schema")
    ended = command("health", **database.environment())
    assert ended.status == 1
    assert "the database has no schema yet. Run: email-worker migrate" in ended.out
    assert "cannot connect to Postgres" in command("health", **database.environment(DB_PORT=1)).out


def test_a_server_that_does_not_take_noop_is_ill(command: Command, database: Database) -> None:
    """It answers, and says no."""
    with in_thread(ScriptedServer(Script(noop="421 4.3.2 go away"))) as server:
        ended = command("health", "--providers", **database.environment(SMTP_PORT=server.port))
    assert ended.status == 1
    assert "NOOP: 421 4.3.2 go away" in ended.out


async def test_apis_are_asked_for_what_the_key_may(command: Command, database: Database) -> None:
    """SES tells its quota, SendGrid its scopes; a wrong key is told without the key."""
    async with SesServer(keys=KEYS) as ses, SendGridServer("SG.right") as sendgrid:
        ((access, secret),) = KEYS.items()
        environment = database.environment(
            EMAIL_PROVIDER_PRIMARY="ses",
            EMAIL_PROVIDER_FALLBACK="sendgrid",
            AWS_SES_ENDPOINT_URL=ses.url,
            AWS_SES_ACCESS_KEY=access,
            AWS_SES_SECRET_KEY=secret,
            SENDGRID_API_HOST=sendgrid.url,
        )
        asked = partial(command, "health", "--json", "--providers", **environment)
        well = await asyncio.to_thread(asked, SENDGRID_API_KEY="SG.right")
        ill = await asyncio.to_thread(asked, SENDGRID_API_KEY="SG.wrong")
    assert well.status == 0, well.out
    assert checks(well)["ses"]["said"] == "0 mails within a day of 50,000, 14 a second"
    assert checks(well)["sendgrid"]["said"] == "the key may send mail"
    assert ill.status == 1
    assert checks(ill)["sendgrid"]["said"] == "the key was answered with 401"
    assert "SG." not in ill.out + ill.err


def test_a_test_mail_goes_out_at_once(command: Command, database: Database, tmp_path: Path) -> None:
    """Past the queue; the answer and its time are told."""
    with Sink(ledger=tmp_path / "ledger", refuse=("no@*",)) as sink:
        environment = database.environment(SMTP_PORT=sink.port)
        sent = command("send-test", "ann@example.com", **environment)
        assert (sent.status, sent.out.startswith("smtp: accepted after 0.")) == (0, True), sent
        refused = command("send-test", "no@example.com", **environment)
        assert (refused.status, refused.out.startswith("smtp: refused after ")) == (1, True), refused
        assert [entry.recipient for entry in sink.ledger()] == ["ann@example.com"]


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        (("nonsense",), {}, "'nonsense' is not an address like ann@example.com"),
        (("a@b.example", "--provider", "ses"), {}, "ses is not among the providers of the settings: smtp"),
        (
            ("a@b.example",),
            {"EMAIL_ALLOWED_RECIPIENTS": "*@qa.example"},
            "does not allow a@b.example",
        ),
    ],
)
def test_a_test_mail_that_may_not_go_is_told_why(
    command: Command, database: Database, arguments: tuple[str, ...], settings: dict[str, str], words: str
) -> None:
    """Before anything is sent."""
    ended = command("send-test", *arguments, **database.environment(**settings))
    assert (ended.status, words in ended.err) == (1, True), ended


def test_demo_and_bench_belong_to_the_source(
    command: Command, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed alone, they say where they are."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = command("demo", **database.environment())
    assert (ended.status, "clone it, then make demo" in ended.err) == (1, True)
