"""Events as the rest of the company reads them: versioned JSON; `email-worker schema event` prints its JSON Schema.

They carry no address, no name and no content: what is in a Kafka log cannot be erased. Pure.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from worker.job import Event

VERSION: Literal[1] = 1


class EventMessage(msgspec.Struct, frozen=True, gc=False, rename="camel", omit_defaults=True):
    """What happened to one mail. Comes at least once: `id` tells a repetition; those of one job come in their order."""

    version: Annotated[Literal[1], Meta(description="Of this schema. Fields may be added without a new version.")]
    id: Annotated[str, Meta(description="The event's own id, to recognise a repetition.")]
    event: Event
    job_id: Annotated[str, Meta(description="The producer's job_id, and the key of the Kafka message.")]
    type: Annotated[str, Meta(description="The mail's type.")]
    occurred_at: Annotated[datetime, Meta(tz=True)]
    provider: str | None = None
    message_id: Annotated[str | None, Meta(description="Message-ID for SMTP, the provider's own id elsewhere.")] = None
    attempt: Annotated[int | None, Meta(description="The attempt that it is about.")] = None
    code: Annotated[str | None, Meta(description="SMTP status that the reason held, such as 550 5.1.1.")] = None


_encode = msgspec.json.Encoder().encode


def event_json(columns: Sequence[Any]) -> bytes:
    """The event as it is published, from the columns of `next_events.sql` behind xid and seq, in its order."""
    return _encode(EventMessage(VERSION, *columns))


def event_schema() -> dict[str, Any]:
    """The event as JSON Schema."""
    schema = msgspec.json.schema(EventMessage)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Email event", **schema}
