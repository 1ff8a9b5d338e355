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
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*" + _END
_ADDRESS = r'^[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]{1,64}@[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]+' + _END
_LOCALE = r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*" + _END
_UUID = r"^[0-9a-fA-F-]{36}" + _END


def _text(rule: str, most: int, pattern: str | None = None, meaning: str | None = None) -> Meta:
    """What a text may be; `rule` is what a producer reads when it is not."""
    least = 0 if pattern == _NO_CONTROLS else 1
    return Meta(min_length=least, max_length=most, pattern=pattern, description=meaning, extra={"rule": rule})


def _line(most: int) -> Meta:
    return _text(f"one line, {most} characters at most", most, _NO_CONTROLS)


def _whole(most: int) -> Meta:
    return Meta(ge=0, le=most, extra={"rule": f"a whole number, 0 to {most}"})


JobId = Annotated[
    str,
    _text(
        "1 to 100 printable characters",
        100,
        r"^[^\x00-\x1f\x7f-\x9f]+" + _END,
        "The producer's name for the job, and its idempotency key: the same one twice is one mail.",
    ),
]
TypeName = Annotated[
    str,
    _text(
        "the name of a mail type, 50 characters at most",
        50,
        None,
        'A type of email_types, or "email": then the template\'s name says which.',
    ),
]
Name = Annotated[str, _text("a name of letters, digits, - and _, 100 at most", 100, _NAME)]
Address = Annotated[str, _text("one address, like ann@example.com, 255 characters at most", 255, _ADDRESS)]
Line100 = Annotated[str, _line(100)]
Line255 = Annotated[str, _line(255)]
Locale = Annotated[str, _text("a language tag such as en or pt-BR", 35, _LOCALE)]
Uuid = Annotated[str, _text("a UUID", 36, _UUID)]
Moment = Annotated[
    datetime, Meta(tz=True, extra={"rule": "an RFC 3339 time with its offset, like 2030-01-01T10:00:00Z"})
]
Retries = Annotated[int, _whole(1000)]
MaxRetries = Annotated[int, _whole(100)]


class Recipient(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Who gets the mail. `userId` is the recipient's name in the producer's own books."""

    email: Address
    name: Line100 | None = None
    user_id: Line100 | None = None


class JobMessage(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One mail to send. Fields that are not known are kept with the job."""

    id: JobId
    type: TypeName
    recipient: Recipient
    template: Name | None = None
    data: Raw | UnsetType = UNSET
    priority: Annotated[Priority, Meta(extra={"rule": f"one of {', '.join(Priority)}"})] | None = None
    scheduled_at: Moment | None = None
    expires_at: Moment | None = None
    retry_count: Retries = 0
    max_retries: MaxRetries | None = None
    locale: Locale | None = None
    subject: Line255 | None = None
    content: str | None = None
    campaign_id: Uuid | None = None
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
        raise BadMessage(f"not JSON: {error if raw.strip() else 'the message is empty'}") from None
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
            raise BadMessage(fault_of_options(error)) from None
    return text


def fault_of_options(error: msgspec.ValidationError) -> str:
    """What is wrong with a job's options, and where; the row's own may be wrong too, which SQL does not look into."""
    return _explain(str(error)).replace("$", "$.options", 1)


def _unknown_fields(fields: dict[str, Raw]) -> dict[str, Any]:
    extra: dict[str, Any] = {key: fields[key] for key in fields.keys() - _FIELDS}
    recipient = _decode_fields(fields["recipient"])
    if len(recipient) > 1 and (unknown := recipient.keys() - _RECIPIENT_FIELDS):
        extra["recipient"] = {key: recipient[key] for key in unknown}
    return extra


# What msgspec says of a value of the right type that is not allowed.
_UNFRIENDLY = ("matching regex", "length", "RFC3339", "timezone", "`int` >=", "`int` <=", "enum")
_AT = re.compile(r"(.*) - at `(\$[^`]*)`", re.DOTALL)


def _explain(said: str) -> str:
    """What msgspec said in the producer's words: the path first, then the rule that was broken."""
    match = _AT.fullmatch(said)
    # Without a path it is about the whole, or about a field that is missing in it.
    what, path = match.groups() if match else (said, "$")
    rule = _RULES.get(path)
    if rule and any(words in what for words in _UNFRIENDLY):
        return f"{path}: must be {rule}"
    if kinds := _EXPECTED.fullmatch(what):
        return f"{path}: must be {_kinds(kinds[1])}, not {_kinds(kinds[2])}"
    if missing := _MISSING.fullmatch(what):
        return f"{path}: the field {missing[1]} is missing"
    return f"{path}: {what[:LONGEST_QUOTE]}"


# msgspec's kinds of values in JSON's words.
_KINDS = {"str": "text", "int": "a whole number", "float": "a fraction", "bool": "true or false"}
_KINDS |= {"array": "a list", "object": "an object", "datetime": "a time"}
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_MISSING = re.compile(r"Object missing required field `([^`]*)`")


def _kinds(said: str) -> str:
    return " or ".join(_KINDS.get(kind, kind) for kind in said.split(" | "))


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
