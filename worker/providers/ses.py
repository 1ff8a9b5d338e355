"""Amazon SES, API v2: SendBulkEmail for usual mails, SendEmail with raw bytes for the few that need it.

boto3 serialises, signs and reads; the request itself goes through `worker.providers.http`, by botocore's `before-send`
event, because botocore has one timeout per client and tells trouble before and after the request apart less clearly.
SES replaces Message-ID and Date; the job travels as X-Job-Id, the attempt as the tag `attempt`.
"""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from worker import headers
from worker.compose import Composer, Sender
from worker.errors import AnswerLost
from worker.job import Accepted, Failed, Mail, Outcome, Refused, Unavailable, Unknown
from worker.providers.api_mail import ApiMail, api_mail, mailbox, template_data
from worker.providers.base import Quota
from worker.providers.calls import CalledProvider, Entry, Verdict
from worker.providers.http import HttpPool
from worker.setting_types import Secret

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse

# Documented limits of SendBulkEmail, the first of which is not in the service model.
MOST_ENTRIES = 50
MOST_HEADERS = 15
MOST_HEADER_CHARACTERS = 870
MOST_DATA_CHARACTERS = 262_144
# Of a request with an inline template it is 1 MB.
MOST_CALL_BYTES = 1_000_000
# What an entry takes beside its template's data, copies and headers excepted.
ENTRY_BYTES = 1000
MOST_RECIPIENTS = 50 * MOST_ENTRIES

_TEMPLATE = {"Subject": "{{subject}}", "Html": "{{html}}", "Text": "{{text}}"}
_NOTHING = '{"subject":"","html":"","text":""}'

_REFUSED = frozenset({"MESSAGE_REJECTED", "INVALID_PARAMETER"})
_FAILED = frozenset({"ACCOUNT_THROTTLED", "TRANSIENT_FAILURE", "FAILED"})
# Exceptions of the whole call, by their codes.
_TOO_FAST = frozenset({"TooManyRequestsException", "ThrottlingException", "Throttling"})
_BUSY = _TOO_FAST | {"RequestTimeout"}
_ABOUT_A_MAIL = frozenset({"MessageRejected", "BadRequestException", "ValidationException"})
# Said of an identity, and so of the account's set-up, not of the mail.
_UNVERIFIED = "not verified"
_UNVERIFIED_STATUSES = ("MAIL_FROM_DOMAIN_NOT_VERIFIED", "MailFromDomainNotVerified")
GATEWAY_TIMEOUT = 504
PAYLOAD_TOO_LARGE = 413
TOO_MANY = 429
SERVER_ERROR = 500


class SesAccount(msgspec.Struct, frozen=True):
    """Where SES is and who we are; without keys the usual AWS chain finds them."""

    region: str
    access_key: str = ""
    secret_key: Secret = Secret()
    endpoint_url: str = ""
    configuration_set: str = ""


class _Group(msgspec.Struct, frozen=True):
    """What the mails of one call have in common."""

    sender: str
    reply_to: str
    is_raw: bool
    is_our_sender: bool
    number: int = 0  # Raw mails go alone.


class SesApi:
    """SES as `CalledProvider` needs it."""

    most_bytes = MOST_CALL_BYTES
    most_recipients = MOST_RECIPIENTS

    def __init__(self, account: SesAccount, sender: Sender, connections: int) -> None:
        self._account = account
        self._sender = sender
        self._composer = Composer(sender)
        self._http = HttpPool(connections)
        # The time that is left for the call of each thread.
        self._thread = threading.local()
        self._client = self._make_client()

    def _make_client(self) -> Any:
        import boto3
        from botocore.config import Config

        account = self._account
        session = boto3.Session(
            aws_access_key_id=account.access_key or None,
            aws_secret_access_key=account.secret_key.reveal().strip() or None,
            region_name=account.region,
        )
        client = session.client(
            "sesv2",
            endpoint_url=account.endpoint_url or None,
            # Retries are ours: botocore's default repeats after a read timeout, up to five times in all.
            config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
        )
        client.meta.events.register("before-send.sesv2", self._send)
        return client

    def entry(self, mail: Mail) -> Entry:
        """See `calls.Api`."""
        parts = api_mail(mail, self._sender)
        destination = {"ToAddresses": [mailbox(parts.to, "recipient_email")]}
        if parts.cc:
            destination["CcAddresses"] = [mailbox(person, "options.cc") for person in parts.cc]
        if parts.bcc:
            destination["BccAddresses"] = [mailbox(person, "options.bcc") for person in parts.bcc]
        sender = mailbox(parts.sender, "the sender")
        reply_to = mailbox(parts.reply_to, "reply_to") if parts.reply_to else ""
        tags = [{"Name": "attempt", "Value": parts.attempt_id}]
        data = template_data(mail.content)
        people = 1 + len(parts.cc) + len(parts.bcc)
        is_ours = mail.options.from_address is None
        if _must_be_raw(mail, parts, data):
            content = self._composer.compose(mail, eight_bit=False).content
            raw = {"Destination": destination, "Content": {"Raw": {"Data": content}}, "EmailTags": tags}
            return Entry(mail, _Group(sender, reply_to, True, is_ours, mail.job.seq), raw, len(content), people)
        bulk = {
            "Destination": destination,
            "ReplacementTags": tags,
            "ReplacementEmailContent": {"ReplacementTemplate": {"ReplacementTemplateData": data}},
            "ReplacementHeaders": [{"Name": name, "Value": value} for name, value in parts.headers.items()],
        }
        size = ENTRY_BYTES * (people + len(parts.headers) // 4) + _wire_size(data)
        return Entry(mail, _Group(sender, reply_to, False, is_ours), bulk, size, people)

    def call(self, entries: Sequence[Entry], timeout_seconds: float) -> list[Verdict]:
        """See `calls.Api`."""
        from botocore.exceptions import BotoCoreError, ClientError

        group: _Group = entries[0].group  # type: ignore[assignment]
        self._thread.seconds = timeout_seconds
        common: dict[str, Any] = {"FromEmailAddress": group.sender}
        if self._account.configuration_set:
            common["ConfigurationSetName"] = self._account.configuration_set
        if group.reply_to:
            common["ReplyToAddresses"] = [group.reply_to]
        try:
            if group.is_raw:
                return [Accepted(self._client.send_email(**common, **entries[0].payload)["MessageId"])]
            answer = self._client.send_bulk_email(
                **common,
                DefaultContent={"Template": {"TemplateContent": _TEMPLATE, "TemplateData": _NOTHING}},
                BulkEmailEntries=[entry.payload for entry in entries],
            )
        except ClientError as error:
            return _refused_call(error.response, len(entries), is_our_sender=group.is_our_sender)
        except BotoCoreError as error:
            # Before anything was sent: no credentials, no region, an endpoint that is none.
            return [Unavailable(f"SES cannot be called: {error}")] * len(entries)
        results = answer["BulkEmailEntryResults"]
        if len(results) != len(entries):
            raise AnswerLost(f"SES answered for {len(results)} of {len(entries)} mails")
        return [_entry_outcome(result, is_our_sender=group.is_our_sender) for result in results]

    def quota(self, timeout_seconds: float) -> Quota | None:
        """See `calls.Api`. SES writes -1 where there is no limit."""
        from botocore.exceptions import BotoCoreError, ClientError

        self._thread.seconds = timeout_seconds
        try:
            found = self._client.get_account().get("SendQuota", {})
            rate, day, sent = (float(found[name]) for name in ("MaxSendRate", "Max24HourSend", "SentLast24Hours"))
        except ClientError as error:
            raise AnswerLost(error.response.get("Error", {}).get("Code", "no answer")) from None
        except (BotoCoreError, KeyError, ValueError) as error:
            raise AnswerLost(f"GetAccount: {type(error).__name__}") from None
        return Quota(rate if rate > 0 else None, day if day >= 0 else None, sent)

    def _send(self, request: "AWSPreparedRequest", **_: Any) -> "AWSResponse":
        """botocore's request over our own connection."""
        from botocore.awsrequest import AWSResponse

        fields = {name: _text(value) for name, value in request.headers.items()}
        body = request.body.encode() if isinstance(request.body, str) else request.body
        answer = self._http.request(request.method or "POST", request.url or "", fields, body, self._thread.seconds)
        return AWSResponse(request.url, answer.status, answer.headers, _Read(answer.body))

    def close(self) -> None:
        """See `calls.Api`."""
        self._http.close()


class _Read:
    """A body that was read already, as botocore wants to read it."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> list[bytes]:
        return [self._body]


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _wire_size(text: str) -> int:
    """At most so many bytes has a text inside boto3's JSON, where each byte beyond ASCII may become five more."""
    beyond_ascii = 0 if text.isascii() else len(text.encode()) - len(text)
    return len(text) + text.count('"') + text.count("\\") + 5 * beyond_ascii


def _must_be_raw(mail: Mail, parts: ApiMail, data: str) -> bool:
    """What the template of SendBulkEmail cannot carry."""
    return (
        bool(mail.options.attachments)
        or len(parts.headers) > MOST_HEADERS
        or len(data) > MOST_DATA_CHARACTERS
        or not all(
            headers.is_plain(value) and 0 < len(value) <= MOST_HEADER_CHARACTERS for value in parts.headers.values()
        )
    )


def _entry_outcome(result: dict[str, str], *, is_our_sender: bool) -> Outcome:
    """One entry's end, by BulkEmailStatus."""
    status = result.get("Status", "")
    words = f"{status}: {result['Error']}" if result.get("Error") else status
    if not is_our_sender and _is_unverified(words):
        return Failed(words, is_providers_fault=False)
    if status == "SUCCESS":
        return Accepted(result.get("MessageId", ""), words)
    if status in _REFUSED and _UNVERIFIED not in words:
        return Refused(words)
    if status in _FAILED:
        return Failed(words, is_providers_fault=True, is_throttled=status == "ACCOUNT_THROTTLED")
    # Quota, suspended, paused, not verified, a configuration set that is none: somebody has to mend it.
    return Unavailable(words)


def _is_unverified(words: str) -> bool:
    return _UNVERIFIED in words or words.startswith(_UNVERIFIED_STATUSES)


def _refused_call(response: dict[str, Any], entries: int, *, is_our_sender: bool) -> list[Verdict]:
    """A call's end by exception: nothing of it was taken."""
    code = response.get("Error", {}).get("Code", "")
    words = f"{code}: {response.get('Error', {}).get('Message', '')}".removesuffix(": ")
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    outcome: Verdict
    if status == GATEWAY_TIMEOUT:
        # A gateway that waited in vain for what it had passed on.
        outcome = Unknown(words)
    elif not is_our_sender and _is_unverified(words):
        # A producer's sender, not the account: its mails alone pay for it.
        outcome = Failed(words, is_providers_fault=False)
    elif status >= SERVER_ERROR or code in _BUSY:
        outcome = Failed(words, is_providers_fault=True, is_throttled=status == TOO_MANY or code in _TOO_FAST)
    elif (code in _ABOUT_A_MAIL or status == PAYLOAD_TOO_LARGE) and _UNVERIFIED not in words:
        outcome = Refused(words) if entries == 1 else None
    else:
        outcome = Unavailable(words)
    return [outcome] * entries


def make_ses(
    name: str, account: SesAccount, sender: Sender, connections: int, per_call: int, answer_seconds: float
) -> CalledProvider:
    """The provider, as configured."""
    api = SesApi(account, sender, connections)
    return CalledProvider(name, api, connections, min(per_call, MOST_ENTRIES), answer_seconds)
