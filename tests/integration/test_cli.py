"""The command line: settings shown and refused, and where its errors go."""

import json
from pathlib import Path

import msgspec
import pytest

from tests.integration.command import Command
from tests.integration.office import run
from tests.integration.rows import Connection, rows
from tests.support import Database
from worker import db as worker_db
from worker.db import connection_parameters
from worker.setting_types import Secret
from worker.settings import Settings
from worker.settings_loading import load_settings

SECRETS = {"DB_PASSWORD": "hunter-1", "SMTP_PASSWORD": "hunter-2"}
VARIABLES = [field.name.upper() for field in msgspec.structs.fields(Settings)]


def test_config_shows_what_is_in_force(command: Command) -> None:
    """Every variable with its value, given or default; of secrets only whether they are set."""
    shown = command("config", **SECRETS, WORKER_BATCH_SIZE="7")
    values = {line[:32].strip(): line[32:] for line in shown.out.splitlines()}
    assert list(values) == VARIABLES
    assert values["WORKER_BATCH_SIZE"] == "7"
    assert values["SMTP_PORT"] == "25"
    assert values["DB_PASSWORD"] == values["SMTP_PASSWORD"] == "***"
    assert values["SMTP_FALLBACK_PASSWORD"] == "(not set)"
    assert (shown.status, shown.err) == (0, "")


def test_config_as_json_is_the_same_for_programs(command: Command) -> None:
    """An object with every variable, secrets masked."""
    shown = command("config", "--format", "json", **SECRETS, EMAIL_FROM_NAME="Bücher & Co")
    values = json.loads(shown.out)
    assert list(values) == VARIABLES
    assert values["EMAIL_FROM_NAME"] == "Bücher & Co"
    assert "hunter" not in shown.out


def test_config_as_env_holds_the_defaults(command: Command) -> None:
    """Each line, taken as it is, is allowed and means the default; nothing of the present settings is in it."""
    shown = command("config", "--format", "env", **SECRETS, WORKER_BATCH_SIZE="7")
    lines = [
        line[1:].partition("=") for line in shown.out.splitlines() if line[:1] == "#" and line[1:2] not in ("", " ")
    ]
    values = {name: text for name, _, text in lines}
    assert list(values) == VARIABLES
    assert "hunter" not in shown.out
    read = load_settings(values)
    assert msgspec.structs.replace(read, **_secrets(Settings())) == msgspec.structs.replace(
        Settings(worker_name=read.worker_name), **_secrets(Settings())
    )
    assert read.worker_name, "an empty WORKER_NAME is the default, as it is for DB_HOST"


def _secrets(settings: Settings) -> dict[str, object]:
    """Secrets compare by identity."""
    return {
        field.name: getattr(settings, field.name) for field in msgspec.structs.fields(Settings) if field.type is Secret
    }


def test_config_as_markdown_explains_every_variable(command: Command) -> None:
    """A table with one line for each, and no value of a secret."""
    shown = command("config", "--format", "markdown", **SECRETS)
    table = [line.split(" | ") for line in shown.out.splitlines() if line.startswith("| `")]
    assert [cells[0] for cells in table] == [f"| `{variable}`" for variable in VARIABLES]
    assert all(len(cells) == 4 and len(cells[3]) > 10 for cells in table)
    assert "hunter" not in shown.out


def test_a_dotenv_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    """What the environment does not say comes from the .env file of the working folder."""
    (tmp_path / ".env").write_text("WORKER_BATCH_SIZE=7\nWORKER_CONCURRENCY=8\n")
    shown = run({"WORKER_CONCURRENCY": "9"}, "-m", "worker.cli", "config", "--format", "json", folder=tmp_path)
    values = json.loads(shown.stdout)
    assert (values["WORKER_BATCH_SIZE"], values["WORKER_CONCURRENCY"]) == ("7", "9")


@pytest.mark.parametrize("arguments", [("config",), ("migrate",), ("template", "lint"), ("template", "sync")])
def test_wrong_settings_end_every_command_with_status_2(command: Command, arguments: tuple[str, ...]) -> None:
    """One line for each wrong variable, with what was given and what is allowed."""
    ended = command(*arguments, WORKER_BATCH_SIZE="0", SMTP_ENCRYPTION="ssl")
    assert ended.status == 2
    assert ended.err.splitlines() == [
        "email-worker: wrong settings",
        "WORKER_BATCH_SIZE='0' is not allowed: it must be a whole number, 1 to 1000.",
        "SMTP_ENCRYPTION='ssl' is not allowed: it must be none or starttls or tls.",
    ]


@pytest.mark.parametrize(
    ("variable", "settings"),
    [
        ("EMAIL_FROM_ADDRESS", {"ENVIRONMENT": "production"}),
        ("EMAIL_PROVIDER_FALLBACK", {"EMAIL_PROVIDER_FALLBACK": "smtp"}),
        ("SMTP_FALLBACK_HOST", {"EMAIL_PROVIDER_FALLBACK": "smtp_fallback"}),
        ("EMAIL_UNSUBSCRIBE_URL", {"EMAIL_UNSUBSCRIBE_URL": "example.org/out"}),
        ("SMTP_HOST", {"SMTP_HOST": "mail\r\nQUIT"}),
        ("WORKER_NAME", {"WORKER_NAME": "w" * 101}),
    ],
)
def test_settings_that_cannot_work_are_refused(command: Command, variable: str, settings: dict[str, str]) -> None:
    """What would fail later, or contradicts another setting, is told at the start with the variable's name.

    The journal keeps 100 characters of a worker's name: a longer one would let nothing be sent.
    """
    ended = command("config", **settings)
    assert ended.status == 2
    assert ended.err.startswith(f"email-worker: wrong settings\n{variable}")


@pytest.mark.parametrize("arguments", [(), ("nope",), ("config", "--format", "yaml"), ("template",)])
def test_a_command_that_does_not_exist_is_status_2(command: Command, arguments: tuple[str, ...]) -> None:
    """The usage is shown, and no traceback."""
    ended = command(*arguments)
    assert ended.status == 2
    assert ended.err.startswith("usage: email-worker")


@pytest.mark.parametrize("arguments", [("migrate",), ("template", "sync")])
def test_a_database_that_is_away_is_status_1_in_words(
    command: Command, database: Database, arguments: tuple[str, ...]
) -> None:
    """Where it looked, what it heard, and what to check."""
    ended = command(*arguments, **database.environment(DB_PORT=1))
    assert ended.status == 1
    assert ended.err.startswith("email-worker: cannot connect to Postgres at ")
    assert ended.err.endswith("Check DB_HOST, DB_PORT, DB_NAME, DB_USER, DB_PASSWORD and DB_SSL_MODE.\n")


@pytest.mark.parametrize("arguments", [("migrate",), ("template", "sync")])
def test_a_pooler_that_drops_the_session_settings_is_refused(
    command: Command, database: Database, db: Connection, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """PgBouncer with ignore_startup_parameters = options lets us in, and would keep the lock of a migrate for good."""
    without = {"options": ""}
    monkeypatch.setattr(
        worker_db, "connection_parameters", lambda *given, **named: connection_parameters(*given, **named) | without
    )
    ended = command(*arguments, **database.environment())
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("email-worker: the database connection goes through a pooler")
    assert rows(db, "SELECT * FROM email_templates") == []


def test_a_database_that_does_not_exist_is_named(command: Command, database: Database, db: Connection) -> None:
    """Postgres's own words are part of the message."""
    ended = command("migrate", **database.environment(DB_NAME="no_such_database"))
    assert ended.status == 1
    assert 'database "no_such_database" does not exist' in ended.err
