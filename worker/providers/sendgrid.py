"""Twilio SendGrid, API v3 mail/send: with a dynamic template many mails in one request, without it one by one.

The `sendgrid` package builds the requests; its own transport has no timeout and opens a connection for each, so they go
through `worker.providers.http`. There is one X-Message-Id for a request; a mail is recognised by the custom argument
`attempt_id`.
"""

import re
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from worker.compose import Sender, check_attachment
from worker.errors import ComposeError
from worker.job import Accepted, Failed, Mail, Outcome, Refused, Unavailable, Unknown
from worker.providers.api_mail import ApiMail, Person, api_mail
from worker.providers.base import Quota
from worker.providers.calls import CalledProvider, Entry, Verdict
from worker.providers.http import HttpAnswer, HttpPool
from worker.setting_types import Secret

# The documented limit is 30 MB.
MOST_CALL_BYTES = 20_000_000
MOST_RECIPIENTS = 1000
MOST_CATEGORIES = 10
MOST_CATEGORY_CHARACTERS = 255
# A reset that is further away is a clock that is wrong.
MOST_WAIT_SECONDS = 3600.0
# What an entry takes beside its contents.
ENTRY_BYTES = 500

OK, PAYLOAD_TOO_LARGE, TOO_MANY, GATEWAY_TIMEOUT = (200, 202), 413, 429, 504
REDIRECTION, BAD_REQUEST, FORBIDDEN, SERVER_ERROR = 300, 400, 403, 500

# What SendGrid refuses in a file's name.
_NAME_BREAKERS = re.compile("[;,]")
_FIELD = re.compile(r"personalizations[.\[](\d+)")


class SendGridAccount(msgspec.Struct, frozen=True):
    """Where SendGrid is and who we are."""

    url: str
    api_key: Secret
    template_id: str = ""
    is_sandbox: bool = False


class _Group(msgspec.Struct, frozen=True):
    """What the mails of one request have in common."""

    sender: Person
    reply_to: Person | None
    categories: tuple[str, ...]
    number: int = 0  # What only a whole request can carry goes alone.


class _Said(msgspec.Struct):
    """One error of an answer."""

    message: str = ""
    field: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Said] = []


class SendGridApi:
    """SendGrid as `CalledProvider` needs it."""

    most_bytes = MOST_CALL_BYTES
    most_recipients = MOST_RECIPIENTS

    def __init__(self, account: SendGridAccount, sender: Sender, connections: int) -> None:
        self._account = account
        self._sender = sender
        self._http = HttpPool(connections)

    def entry(self, mail: Mail) -> Entry:
        """See `calls.Api`."""
        parts = api_mail(mail, self._sender)
        goes_alone = not self._account.template_id or bool(mail.options.attachments)
        categories = _categories(mail)
        _check(mail, parts)
        group = _Group(parts.sender, parts.reply_to, categories, mail.job.seq if goes_alone else 0)
        size = ENTRY_BYTES + 2 * (len(mail.content.html) + len(mail.content.text))
        size += sum(len(file.content) for file in mail.options.attachments)
        return Entry(mail, group, parts, size, 1 + len(parts.cc) + len(parts.bcc))

    def call(self, entries: Sequence[Entry], timeout_seconds: float) -> list[Verdict]:
        """See `calls.Api`."""
        answer = self._http.request(
            "POST",
            f"{self._account.url.rstrip('/')}/v3/mail/send",
            {"Authorization": f"Bearer {self._account.api_key.reveal().strip()}", "Content-Type": "application/json"},
            msgspec.json.encode(self._request(entries)),
            timeout_seconds,
        )
        if answer.status in OK:
            message_id = answer.headers.get("x-message-id", "")
            return [Accepted(message_id, f"{answer.status} {message_id}".strip())] * len(entries)
        return _refused_request(answer, len(entries), is_our_sender=entries[0].mail.options.from_address is None)

    def _request(self, entries: Sequence[Entry]) -> dict[str, Any]:
        """The request's JSON, built by SendGrid's own package."""
        from sendgrid.helpers import mail as sg

        group: _Group = entries[0].group  # type: ignore[assignment]
        request = sg.Mail()
        request.from_email = sg.From(group.sender[1], group.sender[0] or None)
        if group.reply_to:
            request.reply_to = sg.ReplyTo(group.reply_to[1], group.reply_to[0] or None)
        # The package inserts at the front, unless told otherwise; and an answer names places.
        for category in reversed(group.categories):
            request.add_category(sg.Category(category))
        for place, entry in enumerate(entries):
            request.add_personalization(self._personalization(entry), place)
        only = entries[0].mail
        if self._account.template_id:
            request.template_id = self._account.template_id
        else:
            request.subject = only.content.subject
            for kind, text in (("text/plain", only.content.text), ("text/html", only.content.html)):
                if text:
                    request.add_content(sg.Content(kind, text))
        for file in reversed(only.options.attachments):
            disposition = "inline" if file.content_id else "attachment"
            name = _NAME_BREAKERS.sub("_", file.filename)
            request.add_attachment(sg.Attachment(file.content, name, file.content_type, disposition, file.content_id))
        if self._account.is_sandbox:
            request.mail_settings = sg.MailSettings(sandbox_mode=sg.SandBoxMode(enable=True))
        built: dict[str, Any] = request.get()
        return built

    def _personalization(self, entry: Entry) -> Any:
        from sendgrid.helpers import mail as sg

        parts: ApiMail = entry.payload
        one = sg.Personalization()
        one.add_to(sg.To(parts.to[1], parts.to[0] or None))
        for name, address in parts.cc:
            one.add_cc(sg.Cc(address, name or None))
        for name, address in parts.bcc:
            one.add_bcc(sg.Bcc(address, name or None))
        for name, value in parts.headers.items():
            one.add_header(sg.Header(name, value))
        one.add_custom_arg(sg.CustomArg("attempt_id", parts.attempt_id))
        if self._account.template_id:
            content = entry.mail.content
            one.dynamic_template_data = {"subject": content.subject, "html": content.html, "text": content.text}
        return one

    def quota(self, timeout_seconds: float) -> Quota | None:
        """See `calls.Api`. SendGrid tells its limits with the answers alone."""
        return None

    def close(self) -> None:
        """See `calls.Api`."""
        self._http.close()


def _categories(mail: Mail) -> tuple[str, ...]:
    categories = tuple(dict.fromkeys(mail.options.tags))
    if len(categories) > MOST_CATEGORIES:
        raise ComposeError(f"options.tags: SendGrid takes {MOST_CATEGORIES} categories, these are more")
    if not all(name.isascii() and 0 < len(name) <= MOST_CATEGORY_CHARACTERS for name in categories):
        raise ComposeError(f"options.tags: SendGrid takes 1 to {MOST_CATEGORY_CHARACTERS} ASCII characters in each")
    return categories


def _check(mail: Mail, parts: ApiMail) -> None:
    """Raise ComposeError for what would cost the other mails of a request another round."""
    names = [name.lower() for name in parts.headers]
    if len(set(names)) < len(names) or any(name.startswith("x-sg-") for name in names):
        raise ComposeError("options.headers: SendGrid takes each name once, and none that begins with X-SG-")
    for file in mail.options.attachments:
        if not check_attachment(file):
            raise ComposeError(f"options.attachments: SendGrid takes no empty file such as {file.filename!r}")


def _refused_request(answer: HttpAnswer, entries: int, *, is_our_sender: bool) -> list[Verdict]:
    """The end of a request that was not taken. One 400 refuses all of it, because of those that it names."""
    said = _errors(answer)
    words = f"{answer.status} {'; '.join(error.message for error in said)}".strip()
    everybody: Verdict = _common_fate(answer, said, words, is_our_sender=is_our_sender)
    if everybody is not None:
        return [everybody] * entries
    if entries == 1:
        return [Refused(words)]
    verdicts: list[Verdict] = [None] * entries
    if answer.status != PAYLOAD_TOO_LARGE:
        for error in said:
            number = _FIELD.search(error.field or "")
            is_about_size = "custom_args" in f"{error.field} {error.message}"
            if number and int(number[1]) < entries and not is_about_size:
                verdicts[int(number[1])] = Refused(f"{answer.status} {error.message}")
    return verdicts


def _common_fate(answer: HttpAnswer, said: list[_Said], words: str, *, is_our_sender: bool) -> Outcome | None:
    """What the answer means for every mail of the request; None when it is about some of them."""
    if answer.status == GATEWAY_TIMEOUT or answer.status < REDIRECTION:
        # A gateway that waited in vain for what it had passed on; or a success of a kind that nobody has described.
        return Unknown(words)
    if answer.status == TOO_MANY:
        return Failed(words, is_providers_fault=True, retry_after_seconds=_wait_seconds(answer), is_throttled=True)
    if answer.status >= SERVER_ERROR:
        return Failed(words, is_providers_fault=True)
    if answer.status == FORBIDDEN and "from address" in words.lower():
        # A producer's sender is no fault of the provider: its mails alone pay for it.
        return Failed(words, is_providers_fault=is_our_sender)
    if "credits exceeded" in words.lower() or answer.status not in (BAD_REQUEST, PAYLOAD_TOO_LARGE):
        # A key that is none, a host that is another: no mail's fault.
        return Unavailable(words)
    fields = {(error.field or "").partition(".")[0] for error in said}
    if "template_id" in fields:
        return Unavailable(words)
    if "from" in fields:
        return Failed(words, is_providers_fault=is_our_sender)
    return None


def _errors(answer: HttpAnswer) -> list[_Said]:
    try:
        return msgspec.json.decode(answer.body, type=_Errors).errors
    except msgspec.DecodeError:
        return []


def _wait_seconds(answer: HttpAnswer) -> float:
    """From `X-RateLimit-Reset`, in Unix seconds."""
    reset = answer.headers.get("x-ratelimit-reset", "")
    return min(MOST_WAIT_SECONDS, max(0.0, int(reset) - time.time())) if reset.isdecimal() else 0.0


def make_sendgrid(
    name: str, account: SendGridAccount, sender: Sender, connections: int, per_call: int, answer_seconds: float
) -> CalledProvider:
    """The provider, as configured."""
    return CalledProvider(name, SendGridApi(account, sender, connections), connections, per_call, answer_seconds)
