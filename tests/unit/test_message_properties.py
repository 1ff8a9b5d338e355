"""Whatever comes: a job or a reason, and what is good comes back as it was put in. The published schema agrees."""

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.values import any_text, one_line
from worker.errors import BadMessage
from worker.job import Priority
from worker.message import GENERIC_TYPE, JobRow, job_schema, read_or_error

Message = dict[str, Any]

KNOWN_OF_RECIPIENT = ("email", "name", "userId")
# What JSON Schema cannot say, or leaves to us: which text is a time, what stands in options, when a template must be.
OURS = ("$.scheduledAt: must be", "$.expiresAt: must be", "$.options", "$.template: required")

_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text
anything = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=8
)
_objects = st.dictionaries(any_text, anything, max_size=4)
_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", fullmatch=True)
_lines = one_line.map(lambda text: text[:100])
_moments = st.builds(
    lambda seconds, microseconds, minutes: (
        datetime.fromtimestamp(seconds, timezone(timedelta(minutes=minutes))) + timedelta(microseconds=microseconds)
    ).isoformat(),
    st.integers(946_684_800, 4_102_444_799),
    st.integers(0, 999_999),
    st.integers(-1439, 1439),
)
_addresses = st.tuples(
    st.text("abcXYZ019!#$%&'*+-/=?^_`{|}~.ü", min_size=1, max_size=64),
    st.from_regex(r"[a-zé0-9-]{1,63}", fullmatch=True),
).map("@".join)


def unknown_fields(known: Collection[str]) -> st.SearchStrategy[Message]:
    """Fields of other names, with anything in them."""
    return st.dictionaries(any_text.filter(lambda name: name not in known), anything, max_size=2)


_recipients = st.builds(
    lambda known, unknown: known | unknown,
    st.fixed_dictionaries({"email": _addresses}, optional={"name": st.none() | _lines, "userId": st.none() | _lines}),
    unknown_fields(KNOWN_OF_RECIPIENT),
)
_options = st.fixed_dictionaries(
    {},
    optional={
        "cc": st.lists(any_text, max_size=2),
        "headers": st.dictionaries(any_text, any_text, max_size=2),
        "attachments": st.lists(st.fixed_dictionaries({"filename": any_text, "content": any_text}), max_size=2),
        "later": anything,
    },
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "template": st.none() | _names,
    "data": st.none() | _objects,
    "priority": st.none() | st.sampled_from([*map(str, Priority)]),
    "scheduledAt": st.none() | _moments,
    "expiresAt": st.none() | _moments,
    "retryCount": st.integers(0, 1000),
    "maxRetries": st.none() | st.integers(0, 100),
    "locale": st.none() | st.from_regex(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,2}", fullmatch=True),
    "subject": st.none() | _lines,
    "content": st.none() | any_text,
    "campaignId": st.none() | st.uuids().map(str),
    "options": st.none() | _options,
}
_required = {
    "id": _lines.filter(bool),
    "type": _names.map(lambda name: name[:50]).filter(lambda name: name != GENERIC_TYPE),
    "recipient": _recipients,
}
KNOWN = (*_required, *_fields)
messages: st.SearchStrategy[Message] = st.builds(
    lambda known, unknown: unknown | known, st.fixed_dictionaries(_required, optional=_fields), unknown_fields(KNOWN)
)


@st.composite
def changed_messages(draw: st.DrawFn) -> Message:
    """A good message in which something was taken away or replaced by anything."""
    message = draw(messages)
    for _ in range(draw(st.integers(1, 2))):
        place = message["recipient"] if draw(st.booleans()) and isinstance(message.get("recipient"), dict) else message
        name = draw(st.sampled_from(KNOWN if place is message else KNOWN_OF_RECIPIENT))
        if draw(st.integers(0, 3)) == 0:
            place.pop(name, None)
        else:
            place[name] = draw(anything | _fields.get(name, anything))
    return message


@st.composite
def damaged_bytes(draw: st.DrawFn) -> bytes:
    """The bytes of a good message, some of them cut out, doubled or replaced."""
    raw = json.dumps(draw(messages), ensure_ascii=draw(st.booleans())).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(len(raw), start + 20)))
        raw = raw[:start] + draw(st.binary(max_size=6) | st.just(2 * raw[start:end])) + raw[end:]
    return raw


def judged(raw: bytes) -> JobRow | BadMessage:
    """What the reader says, held against all that must be true of it."""
    reading = read_or_error(raw)
    if isinstance(reading, BadMessage):
        texts = [str(reading)]
        assert re.match(r"\$[^:]*: .|not JSON|not UTF-8", str(reading)), reading
    else:
        texts = [value for value in msgspec.structs.astuple(reading) if isinstance(value, str)]
        objects = [json.loads(text) for text in (reading.data, reading.options, reading.extra) if text]
        assert all(isinstance(value, dict) for value in objects)
    # Half of a surrogate pair would be no UTF-8, and no text for Postgres.
    "".join(texts).encode()
    return reading


@given(raw=st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b'{"id":"a","type":"b","recipient":{"email":"a@b","":"\\ud800"}}')
@example(b'{"id":"a","id":1,"type":"b","recipient":{"email":"a@b"}}')
@example(b"[" * 1_000_000)
@example(b'{"id":"a","type":"b","recipient":{"email":"a@b"},"x":' + b'{"x":' * 1_000_000)
def test_any_bytes_are_a_job_or_a_reason(raw: bytes) -> None:
    """No input raises anything but BadMessage."""
    judged(raw)


@given(raw=damaged_bytes())
def test_damaged_messages_are_a_job_or_a_reason(raw: bytes) -> None:
    """Messages with bytes cut out, doubled or replaced, as networks and hurried people make them."""
    judged(raw)


@given(value=anything | changed_messages(), ascii_only=st.booleans())
def test_any_json_is_a_job_or_a_reason(value: Any, ascii_only: bool) -> None:
    """Values of the wrong kind at any place, and JSON that is something else altogether."""
    judged(json.dumps(value, ensure_ascii=ascii_only).encode())


@given(message=messages, ascii_only=st.booleans())
def test_a_good_message_comes_back_as_it_was_put_in(message: Message, ascii_only: bool) -> None:
    """Every field is in its column unchanged, objects as the same JSON, unknown fields where they were."""
    row = judged(json.dumps(message, ensure_ascii=ascii_only).encode())
    assert isinstance(row, JobRow), row
    recipient = message["recipient"]
    same = {
        "job_id": message["id"],
        "type": message["type"],
        "template": message.get("template") or message["type"],
        "recipient_email": recipient["email"],
        "recipient_name": recipient.get("name"),
        "recipient_user_id": recipient.get("userId"),
        "priority": message.get("priority"),
        "retry_count": message.get("retryCount", 0),
        "max_retries": message.get("maxRetries"),
        "locale": message.get("locale"),
        "subject": message.get("subject"),
        "content": message.get("content"),
        "campaign_id": message.get("campaignId"),
    }
    assert {name: getattr(row, name) for name in same} == same
    assert json.loads(row.data) == (message.get("data") or {})
    assert (row.options and json.loads(row.options)) == message.get("options")
    for column, given_text in (
        (row.scheduled_at, message.get("scheduledAt")),
        (row.expires_at, message.get("expiresAt")),
    ):
        assert _moment(column) == _moment(given_text)
    extra = {name: value for name, value in message.items() if name not in KNOWN}
    if inner := {name: value for name, value in recipient.items() if name not in KNOWN_OF_RECIPIENT}:
        extra["recipient"] = inner
    assert json.loads(row.extra or "{}") == extra


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


@given(message=messages | changed_messages())
def test_the_published_schema_agrees(message: Message) -> None:
    """A message is taken exactly if it is valid by the schema, but for what the schema leaves to us."""
    reading = judged(json.dumps(message).encode())
    assert is_valid(schema(), message) == isinstance(reading, JobRow) or str(reading).startswith(OURS), reading


@cache
def schema() -> dict[str, Any]:
    """What `email-worker schema job` prints."""
    return job_schema()


def is_valid(rule: dict[str, Any], value: Any) -> bool:
    """As much of JSON Schema as ours uses."""
    if "$ref" in rule:
        return is_valid(schema()["$defs"][rule["$ref"].removeprefix("#/$defs/")], value)
    if "anyOf" in rule:
        return any(is_valid(some, value) for some in rule["anyOf"])
    if "enum" in rule:
        return value in rule["enum"]
    kinds = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
    match value:
        case None:
            return "null" in kinds
        case str():
            fits = rule.get("minLength", 0) <= len(value) <= rule.get("maxLength", len(value))
            return "string" in kinds and fits and bool(re.search(rule.get("pattern", ""), value))
        case int() if not isinstance(value, bool):
            return "integer" in kinds and rule.get("minimum", value) <= value <= rule.get("maximum", value)
        case dict():
            properties = rule.get("properties", {})
            inside = all(is_valid(properties[name], inner) for name, inner in value.items() if name in properties)
            return "object" in kinds and inside and set(rule.get("required", ())) <= set(value)
    return False
