"""What cannot become a mail is refused at the INSERT, in words, and harms nothing else."""

import json

import psycopg
import pytest

from tests.integration.rows import Connection, column, insert_job, rows

CHECK = "23514"
TOO_LONG = "22001"
NO_JSON = "22P02"
NUL_IN_JSON = "22P05"
NUL_IN_TEXT = "22021"

# What is given, the SQLSTATE, and the words that the producer reads.
REFUSALS: dict[str, tuple[dict[str, object], str, str]] = {
    "unknown type": ({"type": "nope"}, "EM001", 'unknown email type "nope" in job "bad"'),
    "type with a line end": ({"type": "newsletter\r\n"}, "EM001", "unknown email type"),
    "started as sent": ({"status": "sent"}, "EM004", 'job "bad" must start as pending, not as sent'),
    "empty job_id": ({"job_id": ""}, CHECK, "job_id must be 1 to 100 printable characters"),
    "job_id with a line end": ({"job_id": "bad\r\nx"}, CHECK, "job_id must be 1 to 100 printable characters"),
    "job_id of 101": ({"job_id": "x" * 101}, TOO_LONG, "too long for type character varying(100)"),
    "template with a line end": ({"template": "a\r\n"}, CHECK, "template must be a name of letters, digits, - and _"),
    "template with a path": ({"template": "../x"}, CHECK, "template must be a name of letters, digits, - and _"),
    "template of the layout": ({"template": "_layout"}, CHECK, "template must be a name of letters, digits, - and _"),
    "locale with a line end": ({"locale": "en\r\n"}, CHECK, "locale must be a language tag such as en or pt-BR"),
    "locale with a path": ({"locale": "en/../x"}, CHECK, "locale must be a language tag such as en or pt-BR"),
    "address without @": ({"recipient_email": "ann"}, CHECK, "recipient_email must be one address"),
    "address without a host": ({"recipient_email": "ann@"}, CHECK, "recipient_email must be one address"),
    "two addresses": ({"recipient_email": "a@b.c,d@e.f"}, CHECK, "recipient_email must be one address"),
    "address with a name": ({"recipient_email": "Ann <a@b.c>"}, CHECK, "recipient_email must be one address"),
    "address with a line end": (
        {"recipient_email": "a@b.c\r\nBcc: eve@example.com"},
        CHECK,
        "recipient_email must be one address",
    ),
    "address of 300": (
        {"recipient_email": "a" * 60 + "@" + ("b" * 47 + ".") * 4 + "c" * 47},
        TOO_LONG,
        "too long for type character varying(255)",
    ),
    "name with a line end": ({"recipient_name": "Ann\r\nBcc: x"}, CHECK, "recipient_name must be one line"),
    "subject with a line end": ({"subject": "Hi\r\nBcc: x"}, CHECK, "subject must be one line"),
    "subject with a C1 control": ({"subject": "Hi\x85there"}, CHECK, "subject must be one line"),
    "subject of 256": ({"subject": "x" * 256}, TOO_LONG, "too long for type character varying(255)"),
    "content of 1 MB": ({"content": "x" * 1_000_001}, CHECK, "content must be under 1 MB"),
    "data as a list": ({"data": "[1]"}, CHECK, "data must be a JSON object"),
    "data as null": ({"data": "null"}, CHECK, "data must be a JSON object"),
    "data that are no JSON": ({"data": "{"}, NO_JSON, "invalid input syntax for type json"),
    "data of 1 MB": ({"data": json.dumps({"x": "y" * 1_000_000})}, CHECK, "data must be under 1 MB"),
    "NUL in data": ({"data": '{"x": "\\u0000"}'}, NUL_IN_JSON, "unsupported Unicode escape sequence"),
    "half a surrogate in data": ({"data": '{"x": "\\ud800"}'}, NO_JSON, "invalid input syntax for type json"),
    "NUL in options": ({"options": '{"cc": ["\\u0000"]}'}, NUL_IN_JSON, "unsupported Unicode escape sequence"),
    "half a surrogate in options": ({"options": '{"x": "\\udc00"}'}, NO_JSON, "invalid input syntax for type json"),
    "options as a text": ({"options": '"cc"'}, CHECK, "options must be a JSON object"),
    "options of 30 MB": (
        {"options": json.dumps({"attachments": [{"content": "QUJD" * 7_500_000}]})},
        CHECK,
        "options with attachments must be under 25 MB",
    ),
    "scheduled in the year 1": (
        {"scheduled_at": "0001-01-01 00:00Z"},
        CHECK,
        "scheduled_at must lie between the years 2000 and 2100",
    ),
    "scheduled in 9999": (
        {"scheduled_at": "9999-12-31 00:00Z"},
        CHECK,
        "scheduled_at must lie between the years 2000 and 2100",
    ),
    "scheduled for ever": (
        {"scheduled_at": "infinity"},
        CHECK,
        "scheduled_at must lie between the years 2000 and 2100",
    ),
    "expires in 9999": ({"expires_at": "9999-12-31 00:00Z"}, CHECK, "expires_at must lie between"),
    "negative max_retries": ({"max_retries": -1}, CHECK, "max_retries must be 0 to 100"),
    "max_retries of 101": ({"max_retries": 101}, CHECK, "max_retries must be 0 to 100"),
    "negative retry_count": ({"retry_count": -1}, CHECK, "retry_count must be 0 to 1000"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_bad_job_is_refused_in_words(shared_db: Connection, case: str) -> None:
    """The INSERT fails with a code to branch on and a sentence to read; the transaction's other jobs can stay."""
    columns, code, words = REFUSALS[case]
    with shared_db.transaction(force_rollback=True):
        insert_job(shared_db, "good")
        with pytest.raises(psycopg.Error) as refusal, shared_db.transaction():
            insert_job(shared_db, **({"job_id": "bad"} | columns))  # type: ignore[arg-type]
        assert refusal.value.sqlstate == code, refusal.value
        assert words in (refusal.value.diag.message_primary or "")
        insert_job(shared_db, "good too")
        assert column(shared_db, "SELECT job_id FROM email_jobs ORDER BY seq") == ["good", "good too"]


@pytest.mark.parametrize("case", ["unknown type", "address without @", "template with a path", "data as a list"])
def test_email_enqueue_refuses_the_same(shared_db: Connection, case: str) -> None:
    """The function lets the table's own errors through."""
    columns, code, words = REFUSALS[case]
    given = {"type": "welcome-email", "template": None, "recipient_email": "ann@example.com", "data": "{}"} | columns
    with pytest.raises(psycopg.Error, match=words) as refusal:
        shared_db.execute(
            "SELECT email_enqueue(job_id => 'bad', type => %(type)s, template => %(template)s,"
            " recipient_email => %(recipient_email)s, data => %(data)s)",
            given,
        )
    assert refusal.value.sqlstate == code
    assert rows(shared_db, "SELECT job_id FROM email_jobs") == []


def test_an_unknown_type_comes_with_a_hint(shared_db: Connection) -> None:
    """The hint is a statement that shows what is known, and that statement runs."""
    with pytest.raises(psycopg.Error) as refusal:
        insert_job(shared_db, type="nope")
    hint = refusal.value.diag.message_hint
    assert hint == "SELECT type, description FROM email_types shows the known ones."
    assert len(rows(shared_db, "SELECT type, description FROM email_types")) == 15


def test_no_text_of_a_job_holds_a_nul(shared_db: Connection) -> None:
    """Postgres text has none: the driver refuses it before it is sent."""
    with pytest.raises(psycopg.DataError, match="NUL"):
        insert_job(shared_db, subject="a\x00b")


@pytest.mark.parametrize(
    "address",
    [
        "a@b",
        "o'neil+tag@mail.example.com",
        "jörg@müller.example",
        "a" * 64 + "@example.com",
        "ann@" + ".".join(["b" * 60] * 4),
    ],
)
def test_unusual_addresses_are_taken(shared_db: Connection, address: str) -> None:
    """The check keeps out what is no address, and nothing else."""
    with shared_db.transaction(force_rollback=True):
        insert_job(shared_db, recipient_email=address)
        assert column(shared_db, "SELECT recipient_email FROM email_jobs") == [address]


def test_options_within_the_limit_are_taken(shared_db: Connection) -> None:
    """20 MB of attachments are a job."""
    with shared_db.transaction(force_rollback=True):
        insert_job(shared_db, options=json.dumps({"attachments": [{"content": "QUJD" * 5_000_000}]}))
        assert column(shared_db, "SELECT length(options #>> '{attachments,0,content}') FROM email_jobs") == [20_000_000]
