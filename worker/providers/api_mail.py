"""A mail as the providers' APIs take it: names, addresses and headers as texts, checked as the composer checks them."""

import msgspec

from worker import headers
from worker.compose import Sender, check_header, named, unsubscribe_url
from worker.errors import ComposeError
from worker.job import Content, Mail

# SES refuses longer ones, name and encoding included.
MOST_MAILBOX_CHARACTERS = 320

Person = tuple[str, str]  # (name or "", address)


class ApiMail(msgspec.Struct, frozen=True):
    """Who a mail is from and for, and its headers beside those that the provider writes itself."""

    sender: Person
    reply_to: Person | None
    to: Person
    cc: tuple[Person, ...]
    bcc: tuple[Person, ...]
    headers: dict[str, str]
    attempt_id: str


def api_mail(mail: Mail, sender: Sender) -> ApiMail:
    """The parts of a mail. Raises ComposeError with the words that the composer would use.

    An address comes once: in `to` rather than in `cc`, and there rather than in `bcc`.
    """
    job, options = mail.job, mail.options
    for part in mail.content.subject, mail.content.html, mail.content.text:
        if not part.isascii():
            headers.encode(part, "the content")
    given = _person(options.from_address or sender.address, "options.from" if options.from_address else "the sender")
    reply_to = options.reply_to or sender.reply_to
    to = (job.recipient_name or "", _ascii(headers.wire_address(job.recipient_email, "recipient_email")))
    seen = {to[1].lower()}
    return ApiMail(
        (given[0] or sender.name, given[1]),
        _person(reply_to, "reply_to") if reply_to else None,
        to,
        _new([_person(text, "options.cc") for text in options.cc], seen),
        _new([_person(text, "options.bcc") for text in options.bcc], seen),
        _headers(mail, sender),
        f"{job.id}-{mail.attempt}",
    )


def _person(text: str, what: str) -> Person:
    name, address = named(text, what)
    return name, _ascii(address, what)


def _ascii(address: str, what: str = "recipient_email") -> str:
    if not address.isascii():
        raise ComposeError(f"{what}: this provider takes only ASCII before the @")
    return address


def _new(people: list[Person], seen: set[str]) -> tuple[Person, ...]:
    found = []
    for person in people:
        if person[1].lower() not in seen:
            seen.add(person[1].lower())
            found.append(person)
    return tuple(found)


def _headers(mail: Mail, sender: Sender) -> dict[str, str]:
    found = {"X-Job-Id": mail.job.id, "Auto-Submitted": "auto-generated"}
    if mail.can_opt_out and (url := unsubscribe_url(sender.unsubscribe_url, mail.job)):
        found["List-Unsubscribe"] = f"<{url}>"
        if url.lower().startswith("https:"):
            found["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    for name, value in mail.options.headers.items():
        check_header(name, value)
        found[name] = value
    return found


def mailbox(person: Person, what: str) -> str:
    """`Name <address>` as one line of ASCII; a name that is too long is left out."""
    name, address = person
    text = headers.mailbox(name, address, what).decode("ascii").replace("\r\n", "")
    return text if len(text) <= MOST_MAILBOX_CHARACTERS else address


def template_data(content: Content) -> str:
    """The three parts as the JSON that a template of `{{subject}}`, `{{html}}` and `{{text}}` is filled from."""
    return msgspec.json.encode(content).decode("utf-8")
