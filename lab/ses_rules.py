"""What Amazon SES v2 documents about a request, checked without the provider's help.

The shapes are botocore's service model (required members, lengths, patterns, closed lists), which botocore's own
validator looks at too. What the model leaves out is written here: the number of entries and destinations, tags,
addresses, templates, sizes.
"""

import base64
import binascii
import email.policy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from email.parser import BytesParser
from email.utils import parseaddr
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, Shape, StringShape, StructureShape
from botocore.validate import ParamValidator

from lab.ses_conduct import BULK, SINGLE, Request

MOST_ENTRIES = 50
MOST_DESTINATIONS = 50
MOST_TAG_CHARACTERS = 256
MOST_ADDRESS_CHARACTERS = 320  # with the name
MOST_LOCAL_CHARACTERS = 64
MOST_MESSAGE_BYTES = 40 * 2**20
# "Each input JSON file can be up to 1 MB in size" where the template is inline.
MOST_INLINE_BYTES = 2**20
MOST_HEADER_CHARACTERS = 996
LONGEST_LINE = 998

_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_TAG = re.compile(r"[A-Za-z0-9_-]+")
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)+")
# SES writes these itself, from the other parameters.
_OWN_HEADERS = frozenset(
    {"bcc", "cc", "content-disposition", "content-type", "date", "from", "message-id", "mime-version"}
    | {"reply-to", "return-path", "subject", "to"}
)


@cache
def _shape(operation: str) -> StructureShape:
    model = botocore.session.get_session().get_service_model("sesv2")
    shape = model.operation_model(operation).input_shape
    assert isinstance(shape, StructureShape)
    return shape


def call_fault(request: Request) -> str:
    """Why SES would refuse the whole request with BadRequestException, or nothing."""
    return next(_call_faults(request), "")


def _call_faults(request: Request) -> Iterator[str]:
    shape = _shape(request.operation)
    report = ParamValidator().validate(dict(request.body), shape)
    if report.has_errors():
        yield report.generate_report()
        return
    yield from _model_faults(shape, request.body, request.operation)
    body = request.body
    yield from _address_faults([body.get("FromEmailAddress", ""), *body.get("ReplyToAddresses", ())])
    yield from _tag_faults(body.get("DefaultEmailTags", ()))
    if request.operation == BULK:
        yield from _bulk_faults(request)
    elif request.operation == SINGLE:
        yield from _single_faults(body)


def _model_faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """What botocore's validator lets pass because the service checks it: unknown names, lengths, patterns, enums."""
    if isinstance(shape, StructureShape):
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{path}.{name} is not in the service model"
            else:
                yield from _model_faults(shape.members[name], inner, f"{path}.{name}")
        return
    most = shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield f"{path}: {len(value)} is more than the {most} that the service model allows"
    if isinstance(shape, ListShape):
        for index, inner in enumerate(value):
            yield from _model_faults(shape.member, inner, f"{path}[{index}]")
    elif isinstance(shape, StringShape):
        pattern = shape.metadata.get("pattern")
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} does not match {pattern}"
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not one of {shape.enum}"


def _bulk_faults(request: Request) -> Iterator[str]:
    template = request.body["DefaultContent"].get("Template", {})
    content = template.get("TemplateContent")
    if not 1 <= len(request.entries) <= MOST_ENTRIES:
        yield f"{len(request.entries)} entries: 1 to {MOST_ENTRIES} are allowed"
    if not content or not content.get("Subject") or not (content.get("Html") or content.get("Text")):
        yield "the inline template needs a subject and a body"
        return
    for part in content.values():
        if "{{" in _VARIABLE.sub("", part):
            yield "an inline template knows {{name}} and nothing else"
    if request.size > MOST_INLINE_BYTES:
        yield f"a request with an inline template has {request.size} bytes, {MOST_INLINE_BYTES} are allowed"
    if data_fault(template.get("TemplateData", "{}"), ()):
        yield "TemplateData is not an object in JSON"
    for entry in request.entries:
        yield from _tag_faults(entry.get("ReplacementTags", ()))
        yield from _header_faults(entry.get("ReplacementHeaders", ()))


def _single_faults(body: Mapping[str, Any]) -> Iterator[str]:
    yield from _destination_faults(body.get("Destination", {}))
    yield from _tag_faults(body.get("EmailTags", ()))
    content = body["Content"]
    if len(content.keys() & {"Raw", "Simple"}) != 1:
        yield "Content is either Raw or Simple; the lab takes no other"
    elif "Raw" in content:
        yield from _raw_faults(content["Raw"]["Data"])
    else:
        yield from _header_faults(content["Simple"].get("Headers", ()))


def _raw_faults(data: str) -> Iterator[str]:
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        yield "Raw.Data is not base64"
        return
    if len(raw) > MOST_MESSAGE_BYTES:
        yield f"Email size {len(raw)} is over the limit"
    message = BytesParser(policy=email.policy.default).parsebytes(raw)
    if any(part.defects for part in message.walk()):
        yield "the raw message is not well-formed"
    if "From" not in message:
        yield "Missing required header 'From'."
    if "Bcc" in message:
        yield "the raw message shows Bcc to everybody"
    if max(map(len, raw.split(b"\r\n"))) > LONGEST_LINE or b"\n" in raw.replace(b"\r\n", b""):
        yield "the raw message has a line that is too long, or ends without CR LF"


def entry_fault(body: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """Why SES would answer INVALID_PARAMETER for this entry of a bulk, or nothing."""
    for fault in _destination_faults(entry["Destination"]):
        return fault
    template = body["DefaultContent"]["Template"]["TemplateContent"]
    wanted = {name for part in template.values() for name in _VARIABLE.findall(part)}
    data = replacement_data(entry)
    if fault := data_fault(data, wanted):
        return fault
    return "the message is too large" if len(data) > MOST_MESSAGE_BYTES else ""


def replacement_data(entry: Mapping[str, Any]) -> str:
    """The JSON text that fills the template for one entry."""
    content = entry.get("ReplacementEmailContent", {})
    return str(content.get("ReplacementTemplate", {}).get("ReplacementTemplateData", "{}"))


def data_fault(data: str, wanted: Iterable[str]) -> str:
    """What is wrong with template data, or nothing."""
    try:
        found = json.loads(data)
    except ValueError:
        return "the template data are not JSON"
    if not isinstance(found, dict):
        return "the template data are not an object"
    # SES would accept it, and lose the mail in a rendering failure that only an event tells of.
    missing = sorted(name for name in wanted if not isinstance(found.get(name), str))
    return f"the template data do not give {missing}" if missing else ""


def render(template: str, data: Mapping[str, str]) -> str:
    """A template with its variables replaced, once and without escaping, as SES does."""
    return _VARIABLE.sub(lambda found: data[found[1]], template)


def _destination_faults(destination: Mapping[str, Any]) -> Iterator[str]:
    people = [person for kind in ("To", "Cc", "Bcc") for person in destination.get(f"{kind}Addresses", ())]
    if not 1 <= len(people) <= MOST_DESTINATIONS:
        yield f"Recipient count {len(people)}: 1 to {MOST_DESTINATIONS} are allowed"
    yield from _address_faults(people)


def _address_faults(people: Iterable[str]) -> Iterator[str]:
    for person in people:
        _, address = parseaddr(person)
        local, _, domain = address.rpartition("@")
        if not person.isascii():
            yield "addresses are 7-bit ASCII: names as encoded words, domains in Punycode"
        elif not person.isprintable():
            yield "an address is one line"
        elif len(person) > MOST_ADDRESS_CHARACTERS:
            yield f"Address length is more than {MOST_ADDRESS_CHARACTERS} characters long"
        elif not 1 <= len(local) <= MOST_LOCAL_CHARACTERS or not _DOMAIN.fullmatch(domain):
            yield f"{person!r} is not an address"


def _tag_faults(tags: Iterable[Mapping[str, str]]) -> Iterator[str]:
    for tag in tags:
        for text in (tag["Name"], tag["Value"]):
            if len(text) > MOST_TAG_CHARACTERS or not _TAG.fullmatch(text):
                yield f"the tag text {text!r} is not 1 to {MOST_TAG_CHARACTERS} of A-Z a-z 0-9 _ -"


def _header_faults(headers: Iterable[Mapping[str, str]]) -> Iterator[str]:
    for header in headers:
        if header["Name"].lower() in _OWN_HEADERS:
            yield f"the header {header['Name']} is SES's own"
        if len(header["Name"]) + len(header["Value"]) > MOST_HEADER_CHARACTERS:
            yield f"the header {header['Name']} has more than {MOST_HEADER_CHARACTERS} characters with its name"
