"""The settings: every variable, what it takes and what it refuses, and words that tell an operator what to write."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SettingsError
from worker.setting_types import Secret
from worker.settings import Settings, allowed, shown
from worker.settings_docs import DOCS, env_example, markdown
from worker.settings_loading import load_settings

ROOT = Path(__file__).parent.parent.parent
FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
# What some values need beside them to be free of contradictions.
BESIDE = {
    ("environment", "production"): {"EMAIL_FROM_ADDRESS": "mail@example.com"},
    ("email_provider_primary", "smtp_fallback"): {"SMTP_FALLBACK_HOST": "localhost"},
    ("email_provider_fallback", "smtp_fallback"): {"SMTP_FALLBACK_HOST": "localhost"},
    ("email_provider_fallback", "smtp"): {"EMAIL_PROVIDER_PRIMARY": "smtp_fallback", "SMTP_FALLBACK_HOST": "localhost"},
    ("email_provider_primary", "ses"): {"EMAIL_REDIRECT_TO": "me@example.com"},
    ("email_provider_primary", "sendgrid"): {"EMAIL_REDIRECT_TO": "me@example.com", "SENDGRID_API_KEY": "k"},
    ("email_provider_fallback", "ses,sendgrid"): {"EMAIL_REDIRECT_TO": "me@example.com", "SENDGRID_API_KEY": "k"},
    ("kafka_security_protocol", "SASL_PLAINTEXT"): {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"},
    ("kafka_security_protocol", "SASL_SSL"): {"KAFKA_SASL_USERNAME": "u", "KAFKA_SASL_PASSWORD": "p"},
    ("smtp_host", "mail.example.com"): {"EMAIL_REDIRECT_TO": "me@example.com"},
}
DKIM = {"DKIM_DOMAIN": "example.org", "DKIM_SELECTOR": "mail", "DKIM_PRIVATE_KEY": "k"}
LINES = ["a\nb", "a\rb", "a\x00b"]


def _beside(name: str, text: str) -> dict[str, str]:
    """A variable's value, with what it needs beside it."""
    given = {name.upper(): text, **BESIDE.get((name, text), {})}
    if name == "dkim_private_key_file":
        given = {key: value for key, value in DKIM.items() if key != "DKIM_PRIVATE_KEY"} | given
    elif name.startswith("dkim_"):
        given = DKIM | given
    return given


def _base(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _limits(kind: Any) -> tuple[float, float]:
    meta = kind.__metadata__[0]
    return meta.ge, meta.le


def _good(name: str, kind: Any) -> Iterator[tuple[str, Any]]:
    """Texts of a variable with the values that they stand for."""
    if kind is Secret:
        yield from (("s e c r e t", "s e c r e t"), (" kept ", " kept "))
    elif kind is bool:
        yield from (("true", True), ("false", False), ("1", True), ("0", False), (" True ", True))
    elif name == "kafka_partitions":
        yield from ((text, text) for text in ("", "0", "0,1,5", "0-3", "0-3,8"))
    elif name == "dkim_key_expires":
        yield from ((text, text) for text in ("", "2030-12-31"))
    elif name == "email_rate_domain":
        yield from ((text, text) for text in ("", "20/s", "20/s,example.com=50/s burst 100", "a.example=1/h"))
    elif name == "email_rate_transactional_share":
        yield from (("0", 0.0), ("0.9", 0.9), (" 0.25 ", 0.25))
    elif name.startswith("email_rate_"):
        yield from ((text, text) for text in ("", "14/s", "500/m", "20/h burst 5"))
    elif name.startswith("kafka_topic") or name == "email_dead_letter_queue":
        yield from ((text, text) for text in ("jobs", "a.b_c-D9"))
    elif name == "email_provider_fallback":
        yield from ((text, text) for text in ("", "smtp_fallback", "smtp", "ses,sendgrid"))
    elif name in ("sendgrid_api_host", "aws_ses_endpoint_url"):
        yield from ((text, text) for text in ("https://api.eu.sendgrid.com", "http://localhost:8005"))
    elif name == "email_allowed_recipients":
        yield from ((text, text) for text in ("", "*@example.com", "qa-*@x.org,me@example.com"))
    elif name == "smtp_host":
        yield from (("localhost", "localhost"), ("mail.example.com", "mail.example.com"))
    elif get_origin(kind) is Literal:
        yield from ((choice, choice) for choice in get_args(kind))
    elif _base(kind) in (int, float):
        least, most = _limits(kind)
        yield from ((f"{limit:g}", limit) for limit in (least, most) if limit < 1_000_000)
        yield (f" {most:.0f} ", most)
        if _base(kind) is float:
            yield (f"{least + 0.5}", least + 0.5)
    elif "address" in name or name in ("email_reply_to", "email_redirect_to"):
        yield from ((text, text) for text in ("a@b", "first.last+tag@mail.example.com", "jürgen@münchen.de"))
        if name in ("email_reply_to", "email_redirect_to"):
            yield ("", "")
    elif name == "email_unsubscribe_url":
        yield from ((text, text) for text in ("https://x/{id}?e={email}", "http://x", "mailto:out@x.org", ""))
    else:
        yield from (("text", "text"), ("with space", "with space"), (" stripped ", "stripped"), ("#;'\"", "#;'\""))


def _bad(name: str, kind: Any) -> Iterator[str]:
    """Texts that a variable refuses."""
    yield from LINES
    if kind is bool:
        yield from ("", "maybe", "2", "nope")
    elif name == "kafka_partitions":
        yield from ("a", "1-", "-1", "1,,2", "1;2", "123456")
    elif name.startswith("kafka_topic") or name == "email_dead_letter_queue":
        yield from ("", "a b", "a/b", "x" * 250)
    elif name == "dkim_key_expires":
        yield from ("2030-13-01", "2030-02-30", "31.12.2030", "soon")
    elif name == "email_rate_transactional_share":
        yield from ("1", "-0.1", "nan", "", "half")
    elif name.startswith("email_rate_"):
        yield from ("0/s", "14", "14/x", "14 / s", "14/s burst 0", "1.5/s", "a.example=")
    elif get_origin(kind) is Literal:
        yield from (choice for choice in ("nope", "", "SMTP", " ", "debug") if choice.strip() not in get_args(kind))
    elif _base(kind) in (int, float):
        least, most = _limits(kind)
        yield from (f"{limit:.12g}" for limit in (least - 1, most + 1))
        yield from ("", "ten", "-1", "0x10", "1,5", "nan", "inf", "true", "None", "1 2", "9" * 400)
        if _base(kind) is int:
            yield from (f"{least}.5", f"{most}.0", "1e1", "+5")
    elif "address" in name or name in ("email_reply_to", "email_redirect_to"):
        yield from ("nobody", "@example.com", "a@", "a b@c", "a@b, c@d", "Ann <a@b.c>", "a@b;c@d", "a@@b")
        if name not in ("email_reply_to", "email_redirect_to"):
            yield ""
    elif name == "email_unsubscribe_url":
        yield from ("example.com/u", "ftp://x", "javascript:alert(1)", "https://x/a b", "//x")


@pytest.mark.parametrize("name", FIELDS)
def test_a_variable_takes_what_is_right(name: str) -> None:
    """Every variable takes its choices, its limits and, but for secrets, spaces around it."""
    for text, value in _good(name, FIELDS[name].type):
        found = getattr(load_settings(_beside(name, text)), name)
        assert (found.reveal() if isinstance(found, Secret) else found) == value


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.type is not Secret])
def test_a_variable_refuses_what_is_wrong(name: str) -> None:
    """The message names the variable, repeats the value, and says what is allowed, in one line."""
    for text in _bad(name, FIELDS[name].type):
        if name.startswith("db_") and text == "":
            continue
        with pytest.raises(SettingsError) as caught:
            load_settings({name.upper(): text})
        is_url = name == "email_unsubscribe_url" and text not in LINES
        may_be = "an https:, http: or mailto: address" if is_url else allowed(FIELDS[name].type)
        assert str(caught.value) == f"{name.upper()}={text!r} is not allowed: it must be {may_be}."


@pytest.mark.parametrize("name", [name for name in FIELDS if name.startswith("db_")])
def test_an_empty_variable_of_the_database_is_its_default(name: str) -> None:
    """Deployments hand on DB_ variables that are empty: libpq would take them for its own defaults."""
    assert repr(getattr(load_settings({name.upper(): ""}), name)) == repr(FIELDS[name].default)


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if field.type is Secret])
def test_secrets_show_themselves_only_when_asked(name: str) -> None:
    """Neither the settings' repr, nor their table, nor an error about others holds a password."""
    loaded = load_settings(_beside(name, "hunter2"))
    assert getattr(loaded, name).reveal() == "hunter2"
    assert "hunter2" not in f"{loaded!r} {loaded} {shown(loaded)} {getattr(loaded, name)!s}"
    assert shown(loaded)[name.upper()] == "***"
    assert shown(load_settings({}))[name.upper()] == "(not set)"
    with pytest.raises(SettingsError) as caught:
        load_settings({name.upper(): "hunter2", "DB_PORT": "nope"})
    assert "hunter2" not in str(caught.value)


def test_all_mistakes_are_told_at_once() -> None:
    """One line each, in the order of the settings, so that an operator corrects them in one go."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"SMTP_PORT": "0", "DB_PORT": "x", "LOG_LEVEL": "loud", "SMTP_HOST": "fine"})
    lines = str(caught.value).splitlines()
    assert [line.partition("=")[0] for line in lines] == ["LOG_LEVEL", "DB_PORT", "SMTP_PORT"]


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({"ENVIRONMENT": "production"}, "EMAIL_FROM_ADDRESS"),
        ({"EMAIL_PROVIDER_FALLBACK": "smtp"}, "EMAIL_PROVIDER_FALLBACK"),
        ({"EMAIL_PROVIDER_FALLBACK": "smtp_fallback"}, "SMTP_FALLBACK_HOST"),
        ({"EMAIL_PROVIDER_PRIMARY": "smtp_fallback"}, "SMTP_FALLBACK_HOST"),
        (
            {
                "EMAIL_PROVIDER_PRIMARY": "smtp_fallback",
                "EMAIL_PROVIDER_FALLBACK": "smtp_fallback",
                "SMTP_FALLBACK_HOST": "localhost",
            },
            "EMAIL_PROVIDER_FALLBACK",
        ),
        ({"EMAIL_PROVIDER_FALLBACK": "smtp_fallback,smtp_fallback", "SMTP_FALLBACK_HOST": "::1"}, "EMAIL_PROVIDER_"),
        ({"EMAIL_PROVIDER_FALLBACK": "sendgrid", "EMAIL_REDIRECT_TO": "me@example.com"}, "SENDGRID_API_KEY"),
        (
            {"EMAIL_PROVIDER_FALLBACK": "ses", "AWS_SES_ACCESS_KEY": "a", "EMAIL_REDIRECT_TO": "me@example.com"},
            "AWS_SES_ACCESS_KEY",
        ),
        ({"SENDGRID_API_HOST": "api.sendgrid.com"}, "SENDGRID_API_HOST"),
        ({"SMTP_HOST": "mail.example.com"}, "ENVIRONMENT"),
        ({"DKIM_DOMAIN": "example.org"}, "DKIM_DOMAIN"),
        ({"DKIM_PRIVATE_KEY": "k"}, "DKIM_DOMAIN"),
        (DKIM | {"DKIM_PRIVATE_KEY_FILE": "f"}, "DKIM_DOMAIN"),
        ({"SMTP_HOST": "127.evil.example.com", "ENVIRONMENT": "staging"}, "ENVIRONMENT"),
        ({"EMAIL_PROVIDER_FALLBACK": "ses"}, "ENVIRONMENT"),
        ({"REDIS_STREAM_EMAIL_JOBS": "email-jobs"}, "REDIS_STREAM_EMAIL_JOBS"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"}, "KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_contradictions_are_refused(environment: dict[str, str], variable: str) -> None:
    """Settings that are right one by one and wrong together are one line that names what to change."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environment)
    assert str(caught.value).startswith(variable)
    assert len(str(caught.value).splitlines()) == 1


@given(st.dictionaries(st.sampled_from([name.upper() for name in FIELDS]), st.text(), max_size=6))
def test_any_environment_gives_settings_or_a_settings_error(environment: dict[str, str]) -> None:
    """No value of any variable raises anything else, and each line of the error begins with a variable."""
    try:
        loaded = load_settings(environment)
    except SettingsError as error:
        found = str(error)
    else:
        found = ""
        assert set(shown(loaded)) == {name.upper() for name in FIELDS}
    assert all(line.split("=")[0].split(" ")[0].lower() in FIELDS for line in found.split("\n") if line)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an environment without settings of ours."""
    monkeypatch.chdir(tmp_path)
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_nothing_set_is_the_defaults(folder: Path) -> None:
    """Without a .env file and without variables every setting has its default."""
    assert not list(folder.iterdir())
    loaded = load_settings()
    for name, field in FIELDS.items():
        if name != "worker_name":
            assert repr(getattr(loaded, name)) == repr(field.default)
    assert loaded.worker_name.endswith(f"-{os.getpid()}")


def test_a_dotenv_file_is_read_and_the_environment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The .env file of the working folder counts like variables; a real variable, even an empty one, overrides it."""
    (folder / ".env").write_text(
        "# comment\nEMAIL_REDIRECT_TO=me@example.com\n"
        "SMTP_HOST=from-file\nSMTP_PORT=2525\nexport LOG_LEVEL='DEBUG'\nEMAIL_FROM_NAME=\"Zoë & Co\"\n"
        "SMTP_USERNAME=file-user\nUNKNOWN=1\nDB_HOST\n"
    )
    monkeypatch.setenv("SMTP_PORT", "2626")
    monkeypatch.setenv("SMTP_USERNAME", "")
    loaded = load_settings()
    assert (loaded.smtp_host, loaded.smtp_port, loaded.log_level) == ("from-file", 2626, "DEBUG")
    assert (loaded.email_from_name, loaded.smtp_username, loaded.db_host) == ("Zoë & Co", "", "localhost")


def test_a_mistake_in_the_dotenv_file_is_named(folder: Path) -> None:
    """Where the value comes from makes no difference to the message."""
    (folder / ".env").write_text("SMTP_PORT=many\n")
    with pytest.raises(SettingsError, match=r"^SMTP_PORT='many' is not allowed: it must be a port, 1 to 65535\.$"):
        load_settings()


def test_every_setting_is_documented() -> None:
    """DOCS says of each setting what it means, and of nothing else."""
    assert list(DOCS) == list(FIELDS)
    assert all(text.endswith(".") for text in DOCS.values())


@pytest.mark.parametrize(("file", "made"), [(".env.example", env_example), ("docs/configuration.md", markdown)])
def test_generated_documents_are_fresh(file: str, made: Any) -> None:
    """The files in the repository are what the settings generate now."""
    assert (ROOT / file).read_text("utf-8") == made()


def test_the_example_is_the_defaults(folder: Path) -> None:
    """Uncommented as it is, .env.example changes nothing but the computed name."""
    lines = [line[1:] for line in env_example().splitlines() if line.startswith("#") and line[1:2].isupper()]
    assert len(lines) == len(FIELDS)
    (folder / ".env").write_text("\n".join(line for line in lines if not line.startswith("WORKER_NAME")))
    assert shown(load_settings()) == shown(load_settings({}))
