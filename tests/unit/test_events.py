"""Events as Kafka has them for good: versioned JSON that says what happened to a mail, and never to whom."""

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest

from worker.db import query
from worker.events import VERSION, EventMessage, event_json, event_schema
from worker.job import Event

# The columns of `next_events.sql` behind xid and seq, of an event that knows everything.
COLUMNS: dict[str, Any] = {
    "id": "0d1f7f6e-95e2-4b0f-8d3a-3a2f0c9b5e11",
    "event_type": "sent",
    "job_id": "order-17",
    "type": "booking-confirmation",
    "occurred_at": datetime.fromisoformat("2024-01-01T10:00:00.123456+00:00"),
    "provider": "smtp",
    "message_id": "<1@example.org>",
    "attempt": 1,
    "code": "250 2.0.0",
}
PUBLISHED = {
    "version": 1,
    "id": "0d1f7f6e-95e2-4b0f-8d3a-3a2f0c9b5e11",
    "event": "sent",
    "jobId": "order-17",
    "type": "booking-confirmation",
    "occurredAt": "2024-01-01T10:00:00.123456Z",
    "provider": "smtp",
    "messageId": "<1@example.org>",
    "attempt": 1,
    "code": "250 2.0.0",
}
ALWAYS = {"version", "id", "event", "jobId", "type", "occurredAt"}


def published(**changes: Any) -> dict[str, Any]:
    """The event as a consumer reads it."""
    message: dict[str, Any] = json.loads(event_json([*(COLUMNS | changes).values()]))
    return message


def test_an_event_is_published_with_all_that_its_row_tells() -> None:
    """Names in camelCase, the time with its offset, and neither of the relay's own two numbers."""
    assert published() == PUBLISHED


def test_the_query_returns_the_columns_in_that_order() -> None:
    """A row of next_events.sql becomes an event by position."""
    text = query("next_events").decode()
    names = [
        line.rpartition(" AS ")[2].strip(" ,").rpartition(".")[2].removesuffix("::text")
        for line in text[text.index("SELECT") : text.index("FROM email_tracking")].splitlines()[1:]
    ]
    assert names == ["xid", "seq", *COLUMNS]


def test_what_is_not_known_is_left_out() -> None:
    """An event without a hand-over has no provider, attempt or code, and no nulls in their place."""
    assert set(published(provider=None, message_id=None, attempt=None, code=None)) == ALWAYS


@pytest.mark.parametrize("event", Event)
def test_every_event_of_the_table_is_published_in_its_own_word(event: Event) -> None:
    """The relay meets no event that it cannot say."""
    assert published(event_type=str(event))["event"] == event.value


def test_a_strange_job_id_is_one_json_text() -> None:
    """Whatever a producer calls its job, the consumer reads the same name."""
    job_id = 'a"b\\c\u2028é😀'
    assert published(job_id=job_id)["jobId"] == job_id


def test_times_of_other_zones_keep_their_moment() -> None:
    """A session's time zone changes nothing in what is told."""
    moment = datetime.fromisoformat("2024-07-01T12:00:00+02:00")
    assert datetime.fromisoformat(published(occurred_at=moment)["occurredAt"]) == moment


def test_an_event_has_no_place_for_a_person() -> None:
    """No field for an address, a name, a subject, content or free text: a Kafka log cannot be erased.

    Whoever adds a field changes this list, and has thought of that.
    """
    assert {field.encode_name for field in msgspec.structs.fields(EventMessage)} == set(PUBLISHED)


def test_the_schema_describes_what_is_published() -> None:
    """The printed schema has the same fields, says which are always there, and names every event."""
    schema = event_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    message = schema["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    assert set(message["properties"]) == set(PUBLISHED)
    assert set(message["required"]) == ALWAYS
    assert set(schema["$defs"]["Event"]["enum"]) == {*map(str, Event)}
    assert message["properties"]["occurredAt"]["type"] == "string"
    assert "additionalProperties" not in message, "fields may be added without a new version"


def test_the_version_is_1() -> None:
    """Consumers branch on it: another number is another schema, and a deliberate act."""
    assert (VERSION, published()["version"]) == (1, 1)
    assert event_schema()["$defs"]["EventMessage"]["properties"]["version"]["enum"] == [1]
