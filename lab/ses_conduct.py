"""What the local SES sees, and what it can be told to do with it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

BULK = "SendBulkEmail"
SINGLE = "SendEmail"
ACCOUNT = "GetAccount"

# BulkEmailStatus, as the service model lists it.
STATUSES = (
    "SUCCESS",
    "MESSAGE_REJECTED",
    "MAIL_FROM_DOMAIN_NOT_VERIFIED",
    "CONFIGURATION_SET_NOT_FOUND",
    "TEMPLATE_NOT_FOUND",
    "ACCOUNT_SUSPENDED",
    "ACCOUNT_THROTTLED",
    "ACCOUNT_DAILY_QUOTA_EXCEEDED",
    "INVALID_SENDING_POOL_NAME",
    "ACCOUNT_SENDING_PAUSED",
    "CONFIGURATION_SET_SENDING_PAUSED",
    "INVALID_PARAMETER",
    "TRANSIENT_FAILURE",
    "FAILED",
)
# Exceptions of the operations, and those of the gateway before them, with their HTTP status.
EXCEPTIONS = {
    "TooManyRequestsException": 429,
    "LimitExceededException": 400,
    "AccountSuspendedException": 400,
    "SendingPausedException": 400,
    "MessageRejected": 400,
    "MailFromDomainNotVerifiedException": 400,
    "NotFoundException": 404,
    "BadRequestException": 400,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "AccessDeniedException": 403,
    "ServiceUnavailable": 503,
    "InternalFailure": 500,
}


@dataclass(frozen=True)
class Request:
    """One request, read whole. `number` counts from 1."""

    number: int
    operation: str
    body: Mapping[str, Any]
    size: int
    authorization: str

    @property
    def entries(self) -> tuple[Mapping[str, Any], ...]:
        """The mails in it: the entries of a bulk, or the one."""
        if self.operation == BULK:
            return tuple(self.body.get("BulkEmailEntries", ()))
        return (self.body,) if self.operation == SINGLE else ()


@dataclass(frozen=True)
class SesMail:
    """An accepted mail. The texts are rendered; `raw` has the bytes of one that came as such."""

    message_id: str
    sender: str
    reply_to: tuple[str, ...]
    to: tuple[str, ...]
    cc: tuple[str, ...]
    bcc: tuple[str, ...]
    subject: str
    html: str
    text: str
    headers: Mapping[str, str]
    tags: Mapping[str, str]
    configuration_set: str = ""
    raw: bytes | None = None


@dataclass(frozen=True)
class Refusal:
    """An exception for the whole request, one of EXCEPTIONS."""

    code: str
    message: str = ""
    status: int | None = None  # None: the one that belongs to the code

    @property
    def http_status(self) -> int:
        """The status of the answer."""
        return self.status or EXCEPTIONS.get(self.code, 400)

    @property
    def body(self) -> bytes:
        """The answer as JSON; IAM writes its key with a capital."""
        key = "Message" if self.code == "AccessDeniedException" else "message"
        return json.dumps({key: self.message or f"the lab says {self.code}"}).encode()


@dataclass(frozen=True)
class Entries:
    """A status for each entry of a bulk, from its place and itself; None is SUCCESS."""

    judge: Callable[[int, Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Garbage:
    """An answer of status 200 that is not what was agreed."""

    body: bytes


@dataclass(frozen=True)
class Stall:
    """No answer, for ever."""


@dataclass(frozen=True)
class Drop:
    """The connection is reset instead of an answer."""


@dataclass(frozen=True)
class Delay:
    """Wait, then do this."""

    seconds: float
    then: "Act" = None


# None: judge by the rules, and accept.
Act = Refusal | Entries | Garbage | Stall | Drop | Delay | None
Conduct = Callable[[Request], Act]


def accept(_: Request) -> Act:
    """Accept what the rules allow."""
    return None


def all_entries(status: str) -> Entries:
    """The same status for each entry."""
    return Entries(lambda *_: status)
