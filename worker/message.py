"""The job message: what producers put into Kafka, Redis and files, and the only judge of it.

JSON in camelCase. Published as JSON Schema by `email-worker schema job`. What a field may be is said here once; the
database's own constraints are the last judge, and of the same opinion. Pure: bytes in, a job's columns or a reason out.
"""

import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from worker.errors import BadMessage
from worker.job import Options, Priority

# The type of a message that leaves it to the template's name.
GENERIC_TYPE = "email"
# Larger ones cannot be a job: data may have 1 MB, options with attachments 25 MB.
LARGEST_BYTES = 30_000_000
# Reasons quote what was given.
LONGEST_QUOTE = 300

# Python's $ matches before a last line end too.
_END = r"$(?!\n)"
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]*" + _END
JobId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=100,
        pattern=r"^[^\x00-\x1f\x7f-\x9f]+" + _END,
        description="The producer's name for the job, and its idempotency key: the same one twice is one mail.",
        extra={"rule": "1 to 100 printable characters"},
    ),
]
Name = Annotated[
    str,
    Meta(
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*" + _END,
        extra={"rule": "a name of letters, digits, - and _, 100 at most"},
    ),
]
TypeName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=50,
        description='A type of email_types, or "email": then the template\'s name says which.',
        extra={"rule": "the name of a mail type, 50 characters at most"},
    ),
]
Address = Annotated[
    str,
    Meta(
        max_length=255,
        pattern=r'^[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]{1,64}@[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]+' + _END,
        extra={"rule": "one address, like ann@example.com, 255 characters at most"},
    ),
]
PersonName = Annotated[
    str, Meta(max_length=100, pattern=_NO_CONTROLS, extra={"rule": "one line, 100 characters at most"})
]
UserId = Annotated[str, Meta(max_length=100, pattern=_NO_CONTROLS, extra={"rule": "one line, 100 characters at most"})]
Locale = Annotated[
    str,
    Meta(
        max_length=35,
        pattern=r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*" + _END,
        extra={"rule": "a language tag such as en or pt-BR"},
    ),
]
Moment = Annotated[
    datetime, Meta(tz=True, extra={"rule": "an RFC 3339 time with its offset, like 2030-01-01T10:00:00Z"})
]
Subject = Annotated[str, Meta(max_length=255, pattern=_NO_CONTROLS, extra={"rule": "one line, 255 characters at most"})]
Retries = Annotated[int, Meta(ge=0, le=1000, extra={"rule": "a whole number, 0 to 1000"})]
MaxRetries = Annotated[int, Meta(ge=0, le=100, extra={"rule": "a whole number, 0 to 100"})]


class Recipient(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Who gets the mail. `userId` is the recipient's name in the producer's own books."""

    email: Address
    name: PersonName | None = None
    user_id: UserId | None = None


class JobMessage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One mail to send. Fields that are not known are kept with the job."""

    id: JobId
    type: TypeName
    recipient: Recipient
    template: Name | None = None
    data: Raw | UnsetType = UNSET
    priority: Priority | None = None
    scheduled_at: Moment | None = None
    expires_at: Moment | None = None
    retry_count: Retries = 0
    max_retries: MaxRetries | None = None
    locale: Locale | None = None
    subject: Subject | None = None
    content: str | None = None
    campaign_id: Annotated[str, Meta(pattern=r"^[0-9a-fA-F-]{36}" + _END, extra={"rule": "a UUID"})] | None = None
    options: Raw | UnsetType = UNSET


class JobRow(msgspec.Struct, frozen=True, gc=False):
    """The columns of a new job, in the order of `store_jobs.sql`."""

    job_id: str
    type: str
    template: str
    recipient_email: str
    recipient_name: str | None
    recipient_user_id: str | None
    data: str
    priority: str | None
    scheduled_at: str | None
    expires_at: str | None
    retry_count: int
    max_retries: int | None
    locale: str | None
    subject: str | None
    content: str | None
    campaign_id: str | None
    options: str | None
    extra: str | None

    def __repr__(self) -> str:
        """Names the job and nothing of its person or content."""
        return f"<JobRow {self.job_id}>"


_decode = msgspec.json.Decoder(JobMessage).decode
_decode_options = msgspec.json.Decoder(Options).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.encode
_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(JobMessage))
_RECIPIENT_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Recipient))


def read_message(raw: bytes) -> JobRow:
    """A message as a job's columns. Raises BadMessage, which names the field by its path."""
    if len(raw) > LARGEST_BYTES:
        raise BadMessage(f"the message has {len(raw):,} bytes, {LARGEST_BYTES:,} are allowed")
    try:
        message = _decode(raw)
        extra = _unknown_fields(_decode_fields(raw))
        return _row(message, extra)
    except msgspec.ValidationError as error:
        raise BadMessage(_explain(str(error))) from None
    except msgspec.DecodeError as error:
        raise BadMessage(f"not JSON: {error}") from None
    except UnicodeDecodeError as error:
        raise BadMessage(f"not UTF-8 at byte {error.start} of a field") from None
    except RecursionError:
        raise BadMessage("not JSON that can be read: nested too deeply") from None


def read_or_error(raw: bytes) -> JobRow | BadMessage:
    """The same, with the reason as a value."""
    try:
        return read_message(raw)
    except BadMessage as error:
        return error


def _row(message: JobMessage, extra: dict[str, Any]) -> JobRow:
    template = message.template
    if message.type == GENERIC_TYPE:
        if template is None:
            raise BadMessage(f'$.template: required where $.type is "{GENERIC_TYPE}", because it says which type it is')
        kind = template
    else:
        kind = message.type
    recipient = message.recipient
    return JobRow(
        message.id,
        kind,
        template or kind,
        recipient.email,
        recipient.name,
        recipient.user_id,
        _object(message.data, "$.data") or "{}",
        message.priority,
        message.scheduled_at.isoformat() if message.scheduled_at else None,
        message.expires_at.isoformat() if message.expires_at else None,
        message.retry_count,
        message.max_retries,
        message.locale,
        message.subject,
        message.content,
        message.campaign_id,
        _options(message.options),
        _encode(extra).decode() if extra else None,
    )


def _object(raw: Raw | UnsetType, path: str) -> str | None:
    """A JSON object as text, None for null and nothing."""
    if raw is UNSET:
        return None
    text = bytes(raw).decode()
    if text == "null":
        return None
    if text[0] != "{":
        raise BadMessage(f"{path}: must be a JSON object")
    return text


def _options(raw: Raw | UnsetType) -> str | None:
    text = _object(raw, "$.options")
    if text is not None:
        try:
            _decode_options(text)
        except msgspec.ValidationError as error:
            raise BadMessage(_explain(str(error)).replace("$", "$.options", 1)) from None
    return text


def _unknown_fields(fields: dict[str, Raw]) -> dict[str, Any]:
    extra: dict[str, Any] = {key: fields[key] for key in fields.keys() - _FIELDS}
    recipient = _decode_fields(fields["recipient"])
    if len(recipient) > 1 and (unknown := recipient.keys() - _RECIPIENT_FIELDS):
        extra["recipient"] = {key: recipient[key] for key in unknown}
    return extra


_AT = re.compile(r"(.*) - at `(\$[^`]*)`", re.DOTALL)


def _explain(said: str) -> str:
    """msgspec's words with the path first, and our rule instead of a pattern."""
    match = _AT.fullmatch(said)
    if match is None:
        # Without a path it is about the whole, or about a field that is missing in it.
        return f"$: {said[:LONGEST_QUOTE]}"
    what, path = match.groups()
    rule = _RULES.get(path)
    wants_rule = "matching regex" in what or "length" in what or "RFC3339" in what or "timezone" in what
    return f"{path}: must be {rule}" if rule and wants_rule else f"{path}: {what[:LONGEST_QUOTE]}"


def _rules() -> dict[str, str]:
    """Path -> the rule in words, of every field that has one."""
    found: dict[str, str] = {}
    for prefix, struct in (("$", JobMessage), ("$.recipient", Recipient)):
        for field in msgspec.structs.fields(struct):
            for meta in _metas(field.type):
                if meta.extra:
                    found[f"{prefix}.{field.encode_name}"] = meta.extra["rule"]
    return found


def _metas(kind: Any) -> list[Meta]:
    own = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    return own + [meta for part in getattr(kind, "__args__", ()) for meta in _metas(part)]


_RULES = _rules()


def job_schema() -> dict[str, Any]:
    """The message as JSON Schema."""
    schema = msgspec.json.schema(JobMessage)
    for definition in schema["$defs"].values():
        for property_schema in definition.get("properties", {}).values():
            property_schema.pop("rule", None)
    for name in ("data", "options"):
        schema["$defs"]["JobMessage"]["properties"][name] = {"type": ["object", "null"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Email job", **schema}
