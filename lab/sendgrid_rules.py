"""What SendGrid documents about a mail/send request, as faults (message, field), and its own OpenAPI document.

The fields are named as in its answers: `personalizations.3.to.0.email`.
"""

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
_ADDRESS = re.compile(r"[!-?A-~]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_RESERVED = frozenset(
    {
        "x-sg-id", "x-sg-eid", "received", "dkim-signature", "content-type", "content-transfer-encoding", "to", "from",
        "subject", "reply-to", "cc", "bcc",
    }
)  # fmt: skip

Fault = tuple[str, str | None]


def faults(body: Mapping[str, Any]) -> list[Fault]:
    """Everything that SendGrid would answer 400 to."""
    return [*_personalizations(body), *_message(body)]


def _personalizations(body: Mapping[str, Any]) -> Iterator[Fault]:
    given = body.get("personalizations", [])
    if not 1 <= len(given) <= MOST_RECIPIENTS:
        yield "The personalizations field is required and must have at least one.", "personalizations"
    people = 0
    for number, one in enumerate(given):
        where = f"personalizations.{number}"
        seen: set[str] = set()
        if not one.get("to"):
            yield "The to array is required for all personalization objects.", f"{where}.to"
        for kind in ("to", "cc", "bcc"):
            for index, person in enumerate(one.get(kind, [])):
                people += 1
                if not _ADDRESS.fullmatch(person["email"]):
                    yield "Does not contain a valid address.", f"{where}.{kind}.{index}.email"
                if person["email"].lower() in seen:
                    yield "Each email address in the personalization block should be unique.", where
                seen.add(person["email"].lower())
        if len(json.dumps(one.get("custom_args", {}))) > MOST_ARGUMENT_BYTES:
            yield "The combined size of custom_args exceeds 10000 bytes.", f"{where}.custom_args"
        for name in one.get("headers", {}):
            if name.lower() in _RESERVED:
                yield "The header name is reserved.", f"{where}.headers.{name}"
        if "template_id" in body and "dynamic_template_data" not in one:
            yield "The template needs its data.", f"{where}.dynamic_template_data"
    if people > MOST_RECIPIENTS:
        yield "There are more than 1000 recipients.", "personalizations"


def _message(body: Mapping[str, Any]) -> Iterator[Fault]:
    if not _ADDRESS.fullmatch(body.get("from", {}).get("email", "")):
        yield "The from email does not contain a valid address.", "from.email"
    if "template_id" in body:
        if not body["template_id"].startswith("d-"):
            yield "The template_id must be a valid GUID.", "template_id"
    else:
        kinds = [part["type"] for part in body.get("content", [])]
        if not kinds or kinds != sorted(kinds, key=["text/plain", "text/html"].index):
            yield "The content must be text/plain, then text/html.", "content"
        if not body.get("subject"):
            yield "The subject is required.", "subject"
        if any(not part["value"] for part in body.get("content", [])):
            yield "The content value must be a string at least one character in length.", "content.0.value"
    categories = body.get("categories", [])
    if len(categories) > 10 or len(set(categories)) < len(categories) or any(len(name) > 255 for name in categories):
        yield "There may be 10 unique categories of 255 characters.", "categories"


def contract_violations(body: Mapping[str, Any]) -> list[str]:
    """Where a request is not what SendGrid's OpenAPI document says; nothing where the document is not there."""
    validator = _contract()
    if validator is None:
        return []
    return [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(body)]


@cache
def _contract() -> Draft202012Validator | None:
    if not CONTRACT.is_file():
        return None
    document = json.loads(CONTRACT.read_text())
    schema = document["components"]["requestBodies"]["PostMailSend"]["content"]["application/json"]["schema"]
    # The document types the message's custom_args as a text; an object is what it means.
    schema["properties"].get("custom_args", {}).pop("type", None)
    return Draft202012Validator(schema | {"components": document["components"]})
