"""What SendGrid documents about a mail/send request, as faults, and the request's schema from its OpenAPI document.

A fault names its field as SendGrid does, with places counted from 0 between dots: `personalizations.0.to.0.email`
(https://github.com/elbuo8/sendgrid-django/issues/64), `personalizations.0` for an address that comes twice
(https://github.com/sendgrid/sendgrid-csharp/issues/995), `content.0.value`
(https://support.sendgrid.com/hc/en-us/articles/34677918767131). The limits and words are those of
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

CONTRACT = Path(__file__).parent.parent.parent / "shared" / "contracts" / "sendgrid" / "tsg_mail_v3.json"
MOST_RECIPIENTS = 1000
MOST_ARGUMENT_BYTES = 10_000
MOST_CATEGORIES = 10
MOST_CATEGORY_CHARACTERS = 255
MOST_ADDRESS_CHARACTERS = 320
# text/plain first, then text/html, then anything else.
_ORDER = {"text/plain": 0, "text/html": 1}
_ADDRESS = re.compile(r"[!-?A-~]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_HEADER_NAME = re.compile(r"[!-9;-~]+")
_BREAKS = re.compile(r"[;,\r\n]")
_RESERVED = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding", "to", "from",
        "subject", "reply-to", "cc", "bcc",
    }
)  # fmt: skip

# (message, field)
RuleFault = tuple[str, str | None]
Json = Mapping[str, Any]


def faults(body: Json) -> list[RuleFault]:
    """Everything that SendGrid would answer 400 to."""
    try:
        return [*_personalizations(body), *_message(body), *_attachments(body)]
    except (AttributeError, KeyError, TypeError):
        # Of another shape altogether; SendGrid says no more than this
        # (https://github.com/sendgrid/sendgrid-nodejs/issues/288).
        return [("Bad Request", None)]


def is_dynamic(body: Json) -> bool:
    """Whether a dynamic template makes the mails."""
    return str(body.get("template_id", "")).startswith("d-")


def _personalizations(body: Json) -> Iterator[RuleFault]:
    given = body.get("personalizations", [])
    if not given:
        yield (
            "The personalizations field is required and must have at least one personalization.",
            "personalizations",
        )
    if len(given) > MOST_RECIPIENTS:
        yield "The personalization block is limited to 1000 personalizations per API request.", "personalizations"
    if sum(len(one.get(kind, [])) for one in given for kind in ("to", "cc", "bcc")) > MOST_RECIPIENTS:
        yield "There is a limit of 1000 total recipients (to + cc + bcc) per request.", "personalizations"
    for number, one in enumerate(given):
        where = f"personalizations.{number}"
        yield from _people(one, where)
        yield from _headers(one.get("headers", {}), f"{where}.headers")
        yield from _arguments(body, one, where)
        if is_dynamic(body) and "dynamic_template_data" not in one:
            # The lab's own: SendGrid would send a template without its data.
            yield "The dynamic template needs its data.", f"{where}.dynamic_template_data"


def _people(one: Json, where: str) -> Iterator[RuleFault]:
    if not one.get("to"):
        yield (
            "The to array is required for all personalization objects, and must have at least one email object with "
            "a valid email address.",
            f"{where}.to",
        )
    seen: set[str] = set()
    for kind in ("to", "cc", "bcc"):
        for index, person in enumerate(one.get(kind, [])):
            yield from _address(person["email"], f"{where}.{kind}.{index}.email")
            if person["email"].lower() in seen:
                yield (
                    "Each email address in the personalization block should be unique between to, cc, and bcc. We "
                    f"found the first duplicate instance of [{person['email']}] in the {where}.{kind} field.",
                    where,
                )
            seen.add(person["email"].lower())


def _address(address: str, field: str) -> Iterator[RuleFault]:
    if not _ADDRESS.fullmatch(address):
        yield "Does not contain a valid address.", field
    if len(address) > MOST_ADDRESS_CHARACTERS:
        yield "The email exceeds the maximum total length of 320 characters", field


def _headers(given: Json, where: str) -> Iterator[RuleFault]:
    for name, value in given.items():
        if name.lower() in _RESERVED:
            yield "Header cannot be one of the reserved keys.", f"{where}.{name}"
        if not _HEADER_NAME.fullmatch(name):
            yield "Header keys cannot contain non-ASCII characters or empty spaces.", f"{where}.{name}"
        if not isinstance(value, str):
            yield "All values of the headers object must be strings.", f"{where}.{name}"
    if len({name.lower() for name in given}) < len(given):
        yield "The headers cannot contain duplicate keys.", where


def _arguments(body: Json, one: Json, where: str) -> Iterator[RuleFault]:
    merged = body.get("custom_args", {}) | one.get("custom_args", {})
    if any(not isinstance(value, str) for value in merged.values()):
        yield "All values of custom arguments object must be strings", f"{where}.custom_args"
    if _size(merged) > MOST_ARGUMENT_BYTES:
        yield (
            "The combined size of both global and personalization custom arguments may not exceed 10,000 bytes per "
            "personalization.",
            f"{where}.custom_args",
        )
    if _size(one.get("substitutions", {})) > MOST_ARGUMENT_BYTES:
        yield "Substitutions are limited to 10000 bytes per personalization.", f"{where}.substitutions"


def _size(value: Json) -> int:
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _message(body: Json) -> Iterator[RuleFault]:
    if "from" not in body:
        yield "The from object must be provided for every email send.", "from"
    else:
        yield from _address(body["from"]["email"], "from.email")
    if "reply_to" in body:
        yield from _address(body["reply_to"]["email"], "reply_to.email")
    yield from _headers(body.get("headers", {}), "headers")
    yield from _categories(body.get("categories", []))
    if "template_id" in body:
        if not is_dynamic(body):
            # The lab's own: SendGrid knows legacy templates too, and we send none.
            yield "The template_id must be that of a dynamic template.", "template_id"
        return
    yield from _content(body.get("content", []))
    if not body.get("subject") and not all(one.get("subject") for one in body.get("personalizations", [])):
        yield (
            "The subject is required. You can get around this requirement if you use a template with a subject "
            "defined or if every personalization has a subject defined.",
            "subject",
        )


def _content(parts: list[Json]) -> Iterator[RuleFault]:
    if not parts:
        yield "There must be at least one defined content block.", "content"
    places = [_ORDER.get(part["type"], len(_ORDER)) for part in parts]
    if places != sorted(places):
        yield (
            "Following RFC 1341, section 7.2, if either text/html or text/plain are to be sent in your email: "
            "text/plain needs to be first, followed by text/html, followed by any other content.",
            "content",
        )
    for index, part in enumerate(parts):
        if not part["value"]:
            yield "The content value must be a string at least one character in length.", f"content.{index}.value"


def _categories(names: list[str]) -> Iterator[RuleFault]:
    if len(names) > MOST_CATEGORIES:
        yield f"There is a limit of 10 categories for each email that is sent. You provided {len(names)}.", "categories"
    if len(set(names)) < len(names):
        yield "The categories must be a unique list.", "categories"
    for index, name in enumerate(names):
        if len(name) > MOST_CATEGORY_CHARACTERS:
            yield "Each category must not be longer than 255 characters.", f"categories.{index}"
        if not name.isascii():
            yield "Categories can not contain non-ASCII characters.", f"categories.{index}"


def _attachments(body: Json) -> Iterator[RuleFault]:
    for index, file in enumerate(body.get("attachments", [])):
        where = f"attachments.{index}"
        try:
            is_empty = not base64.b64decode(file["content"], validate=True)
        except ValueError:
            is_empty = True
        if is_empty:
            yield "The attachment content must be base64 encoded.", f"{where}.content"
        for key in ("filename", "type", "content_id"):
            if _BREAKS.search(file.get(key, "")):
                yield f"The {key} of your attachment cannot contain ';', ',' or CRLF characters.", f"{where}.{key}"


@cache
def contract() -> Draft202012Validator | None:
    """The schema of a request in SendGrid's OpenAPI document; None where that is not beside the repository."""
    if not CONTRACT.is_file():
        return None
    document = json.loads(CONTRACT.read_text())
    schema = document["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    # The document types the message's custom_args as a text; its description, and SendGrid, mean an object.
    schema["properties"]["custom_args"]["type"] = "object"
    return Draft202012Validator(schema | {"components": document["components"]})


def contract_violations(body: Json) -> list[str]:
    """Where a request is not what the document says; nothing where the document is not there."""
    validator = contract()
    if validator is None:
        return []
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(body)]
