"""The job message: what each field may be, and the words that its producer reads when it is something else."""

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from worker.errors import BadMessage
from worker.job import Priority
from worker.message import LARGEST_BYTES, JobRow, read_message, read_or_error

MINIMAL: dict[str, Any] = {"id": "order-17", "type": "welcome-email", "recipient": {"email": "ann@example.com"}}
UUID = "0d1f7f6e-95e2-4b0f-8d3a-3a2f0c9b5e11"

# As the documentation shows it.
SAMPLE = (
    b'{"id":"job-uuid","type":"email","template":"booking-confirmation",'
    b'"recipient":{"email":"user@example.com","name":"John Doe"},'
    b'"data":{"bookingId":"b-1","eventName":"Concert 2024","ticketCount":2,"totalAmount":150.0},'
    b'"priority":"high","scheduledAt":"2024-01-01T10:00:00Z","retryCount":0,"maxRetries":3}'
)

# Path -> column, then the values that come out as they went in.
TAKEN: dict[str, tuple[str, list[Any]]] = {
    "$.id": ("job_id", ["a", "x" * 100, "é" * 100, "order 17 / ann", "\u2028", '"\\']),
    "$.type": ("type", ["welcome-email", "x" * 50, "no such type"]),
    "$.template": ("template", ["welcome-email", "A", "9_-", "x" * 100]),
    "$.recipient.email": (
        "recipient_email",
        ["a@b", "o'neil+tag@mail.example.com", "jörg@müller.example", "a" * 64 + "@b.c", "a@" + "b" * 253],
    ),
    "$.recipient.name": ("recipient_name", [None, "", "Ann", "安", "x" * 100]),
    "$.recipient.userId": ("recipient_user_id", [None, "", "u-1", "x" * 100]),
    "$.priority": ("priority", [None, *map(str, Priority)]),
    "$.retryCount": ("retry_count", [0, 1, 1000]),
    "$.maxRetries": ("max_retries", [None, 0, 100]),
    "$.locale": ("locale", [None, "en", "pt-BR", "zh_Hant_TW", "x" * 8 + "-" + "y" * 8]),
    "$.subject": ("subject", [None, "", "Hello 😀", "x" * 255]),
    "$.content": ("content", [None, "", "<p>\r\n\tAnn</p>", "x" * 2_000_000]),
    "$.campaignId": ("campaign_id", [None, UUID, UUID.upper()]),
}

JOB_ID = "must be 1 to 100 printable characters"
TYPE = "must be the name of a mail type, 50 characters at most"
NAME = "must be a name of letters, digits, - and _, 100 at most"
ADDRESS = "must be one address, like ann@example.com, 255 characters at most"
LINE_100 = "must be one line, 100 characters at most"
LINE_255 = "must be one line, 255 characters at most"
TAG = "must be a language tag such as en or pt-BR"
MOMENT = "must be an RFC 3339 time with its offset, like 2030-01-01T10:00:00Z"
OBJECT = "must be a JSON object"

TEXT_GOT_INT = "must be text or null, not a whole number"
TIME_GOT_INT = "must be a time or null, not a whole number"
# Path -> the words behind it that the producer reads -> the values that are refused with them.
REFUSED: dict[str, dict[str, list[Any]]] = {
    "$.id": {
        JOB_ID: ["", "x" * 101, "a\r\nb", "a\x00", "\x85"],
        "must be text, not a whole number": [17],
        "must be text, not null": [None],
    },
    "$.type": {TYPE: ["", "x" * 51], "must be text, not null": [None], "must be text, not a list": [[]]},
    "$.template": {NAME: ["", "../x", "_layout", "a b", "a\r\n", "x" * 101], TEXT_GOT_INT: [1]},
    "$.recipient": {
        "must be an object, not null": [None],
        "must be an object, not text": ["ann@example.com"],
        "must be an object, not a list": [[]],
        "the field email is missing": [{}],
    },
    "$.recipient.email": {
        ADDRESS: [
            *("", "ann", "ann@", "@example.com", "a@b@c", "a b@c.d", "a@b.c,d@e.f", "Ann <a@b.c>", "a@b.c\r\nBcc: x"),
            *("a" * 65 + "@b.c", "a@" + "b" * 254),
        ],
        "must be text, not null": [None],
    },
    "$.recipient.name": {LINE_100: ["Ann\nB", "Ann\x85", "x" * 101], TEXT_GOT_INT: [1]},
    "$.recipient.userId": {LINE_100: ["u\nv", "u\x00", "x" * 101], TEXT_GOT_INT: [17]},
    "$.data": {OBJECT: [[], [1], "x", 1, 1.5, True]},
    "$.priority": {
        "must be one of critical, high, normal, low": ["urgent", "HIGH", ""],
        TEXT_GOT_INT: [1],
    },
    "$.scheduledAt": {
        MOMENT: ["", "tomorrow", "2024-01-01", "2024-01-01T10:00:00", "2024-02-30T00:00:00Z", "0000-01-01T00:00:00Z"],
        TIME_GOT_INT: [1704103200],
    },
    "$.expiresAt": {MOMENT: ["never", "2030-01-01T10:00:00", "2030-01-01T10:00:60Z"], TIME_GOT_INT: [0]},
    "$.retryCount": {
        "must be a whole number, 0 to 1000": [-1, 1001, 10**30],
        "must be a whole number, not text": ["0"],
        "must be a whole number, not a fraction": [1.5],
        "must be a whole number, not true or false": [True],
        "must be a whole number, not null": [None],
    },
    "$.maxRetries": {
        "must be a whole number, 0 to 100": [-1, 101],
        "must be a whole number or null, not text": ["3"],
    },
    "$.locale": {TAG: ["", "e", "en/../x", "en\r\n", "x" * 36], TEXT_GOT_INT: [1]},
    "$.subject": {LINE_255: ["Hi\r\nBcc: x", "x" * 256], TEXT_GOT_INT: [1]},
    "$.content": {TEXT_GOT_INT: [1], "must be text or null, not an object": [{}]},
    "$.campaignId": {"must be a UUID": ["", "summer", UUID[1:]], TEXT_GOT_INT: [1]},
    "$.options": {OBJECT: [[], "cc", 1, False]},
}
REFUSED_CASES = [
    (path, value, words) for path, refusals in REFUSED.items() for words, values in refusals.items() for value in values
]


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The smallest message, with this value at a path."""
    match path.split("."):
        case ["$", name]:
            return MINIMAL | {name: value}
        case ["$", "recipient", name]:
            return MINIMAL | {"recipient": MINIMAL["recipient"] | {name: value}}
    raise AssertionError(path)


def read(fields: dict[str, Any]) -> JobRow:
    """Those fields as a job's columns."""
    return read_message(json.dumps(fields).encode())


def refusal(raw: bytes) -> str:
    """The words that a producer reads."""
    with pytest.raises(BadMessage) as refused:
        read_message(raw)
    assert str(read_or_error(raw)) == str(refused.value)
    return str(refused.value)


def test_the_documented_message_becomes_a_job() -> None:
    """Every field of the message that the documentation shows reaches its column."""
    row = read_message(SAMPLE)
    assert row == JobRow(
        job_id="job-uuid",
        type="booking-confirmation",
        template="booking-confirmation",
        recipient_email="user@example.com",
        recipient_name="John Doe",
        recipient_user_id=None,
        data='{"bookingId":"b-1","eventName":"Concert 2024","ticketCount":2,"totalAmount":150.0}',
        priority="high",
        scheduled_at="2024-01-01T10:00:00+00:00",
        expires_at=None,
        retry_count=0,
        max_retries=3,
        locale=None,
        subject=None,
        content=None,
        campaign_id=None,
        options=None,
        extra=None,
    )


def test_three_fields_are_enough() -> None:
    """Id, type and address make a job; data are an empty object, the template is the type's, no retry is used up."""
    row = read(MINIMAL)
    assert {name: value for name, value in msgspec.structs.asdict(row).items() if value is not None} == {
        "job_id": "order-17",
        "type": "welcome-email",
        "template": "welcome-email",
        "recipient_email": "ann@example.com",
        "data": "{}",
        "retry_count": 0,
    }


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, (_, some) in TAKEN.items() for value in some])
def test_a_good_value_is_taken_as_it_is(path: str, value: Any) -> None:
    """Each field, to the ends of its range, comes out as it went in; null is as good as nothing where it may be."""
    assert getattr(read(with_value(path, value)), TAKEN[path][0]) == value


@pytest.mark.parametrize(("path", "value", "words"), REFUSED_CASES)
def test_a_bad_value_is_refused_with_its_path(path: str, value: Any, words: str) -> None:
    """The producer reads which field it is, then what it must be."""
    assert refusal(json.dumps(with_value(path, value)).encode()) == f"{path}: {words}"


@pytest.mark.parametrize("field", ["scheduledAt", "expiresAt"])
@pytest.mark.parametrize(
    "text", ["2024-01-01T10:00:00Z", "2024-01-01t10:00:00.123456+02:00", "2024-01-01 10:00:00-23:59", None]
)
def test_moments_keep_their_offset_and_microseconds(field: str, text: str | None) -> None:
    """What the column gets is the same moment."""
    row = read(MINIMAL | {field: text})
    column = {"scheduledAt": row.scheduled_at, "expiresAt": row.expires_at}[field]
    assert (column and datetime.fromisoformat(column)) == (text and datetime.fromisoformat(text))


@pytest.mark.parametrize("field", ["data", "options"])
def test_objects_are_handed_on_byte_by_byte(field: str) -> None:
    """Data and options are not decoded and written again: numbers and escapes stay as the producer wrote them."""
    text = '{ "a" : 1.10, "b": 1e999, "tags": ["\\u00e9"], "\\"": {} }'
    row = read_message(json.dumps(MINIMAL).encode()[:-1] + f', "{field}": {text}}}'.encode())
    assert getattr(row, field) == text


def test_null_is_nothing_for_objects() -> None:
    """Data that are null are an empty object, options that are null are none."""
    row = read(MINIMAL | {"data": None, "options": None})
    assert (row.data, row.options) == ("{}", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cc": "ann@example.com"}, "$.options.cc: must be a list, not text"),
        ({"reply_to": 1}, "$.options.reply_to: must be text or null, not a whole number"),
        ({"headers": {"X-A": 1}}, "$.options.headers[...]: must be text, not a whole number"),
        ({"attachments": [{}]}, "$.options.attachments[0]: the field filename is missing"),
        (
            {"attachments": [{"filename": "a", "content": 1}]},
            "$.options.attachments[0].content: must be text, not a whole number",
        ),
    ],
)
def test_options_are_judged_inside(options: dict[str, Any], words: str) -> None:
    """A wrong option is refused with its whole path."""
    assert refusal(json.dumps(MINIMAL | {"options": options}).encode()) == words


def test_unknown_options_are_kept() -> None:
    """Producers may go ahead of us."""
    options = {"cc": ["bo@example.com"], "from": "x@y.z", "later": 1}
    assert json.loads(read(MINIMAL | {"options": options}).options or "") == options


def test_the_generic_type_is_the_templates_name() -> None:
    """The type "email" leaves it to the template, which must then be there; a real type may have another template."""
    row = read(MINIMAL | {"type": "email", "template": "password-reset"})
    assert (row.type, row.template) == ("password-reset", "password-reset")
    other = read(MINIMAL | {"template": "welcome-vip"})
    assert (other.type, other.template) == ("welcome-email", "welcome-vip")
    words = '$.template: required where $.type is "email", because it says which type it is'
    for lacking in ({"type": "email"}, {"type": "email", "template": None}):
        assert refusal(json.dumps(MINIMAL | lacking).encode()) == words


def test_unknown_fields_are_kept() -> None:
    """Fields of the message and of the recipient that we do not know stay with the job, nested values whole."""
    row = read(
        MINIMAL
        | {"trace": {"id": [1, None]}, "job_id": "other"}
        | {"recipient": {"email": "ann@example.com", "phone": "1", "user_id": "2"}}
    )
    assert json.loads(row.extra or "") == {
        "trace": {"id": [1, None]},
        "job_id": "other",
        "recipient": {"phone": "1", "user_id": "2"},
    }
    assert row.recipient_user_id is None


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "not JSON: the message is empty"),
        (b"\x00", "not JSON: JSON is malformed: invalid character (byte 0)"),
        (SAMPLE[:-1], "not JSON: Input data was truncated"),
        (SAMPLE + b"x", "not JSON: JSON is malformed: trailing characters"),
        (b"[]", "$: must be an object, not a list"),
        (b"null", "$: must be an object, not null"),
        (b"{}", "$: the field id is missing"),
        (b'{"id":"a"}', "$: the field type is missing"),
        (b'{"id":"a","type":"b"}', "$: the field recipient is missing"),
        (SAMPLE.replace(b"John", b"J\xf6hn"), "not UTF-8 at byte 1 of a field"),
        (SAMPLE.replace(b"Concert", b"\xff"), "not UTF-8 at byte 32 of a field"),
        (SAMPLE.replace(b"b-1", b"\\ud800-"), "not JSON: JSON is malformed: unexpected end of hex escape"),
        (SAMPLE.replace(b"150.0", b"NaN"), "not JSON: JSON is malformed: invalid character"),
        (SAMPLE.replace(b"150.0", b"[" * 100_000 + b"]" * 100_000), "not JSON that can be read: nested too deeply"),
        (b" " * (LARGEST_BYTES + 1), "the message has 30,000,001 bytes, 30,000,000 are allowed"),
    ],
    ids=lambda value: str(value[:40]),
)
def test_what_is_no_message_is_told_apart(raw: bytes, words: str) -> None:
    """Not JSON, not UTF-8, not an object, a missing field, too deep, too large: each in its own words."""
    assert refusal(raw).startswith(words)


def test_a_row_shows_nothing_of_its_content() -> None:
    """A row that ends up in a log names its job, and no address, name or content."""
    row = read(MINIMAL | {"recipient": {"email": "ann@example.com", "name": "Ann"}, "data": {"a": "s3cret"}})
    assert repr(row) == str(row) == "<JobRow order-17>"
