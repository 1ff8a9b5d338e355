"""The values that flow through a delivery: jobs, mails, outcomes, settlements.

All are plain values without behaviour. The closed lists repeat the enums of `sql/migrations/0001_vocabulary.sql`;
a test compares the two.
"""

from collections.abc import Callable
from enum import StrEnum

import msgspec


class Priority(StrEnum):
    """Claimed in this order."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Status(StrEnum):
    """Where a job stands. Everything but pending is an end, unless a person requeues."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"


class Queue(StrEnum):
    """Two queues, so that a campaign never stands before a password reset."""

    TRANSACTIONAL = "transactional"
    BULK = "bulk"


class Guarantee(StrEnum):
    """What happens to a mail whose fate a crash or a lost connection left open."""

    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"
    EFFECTIVELY_ONCE = "effectively_once"


class AttemptState(StrEnum):
    """What the journal knows of one hand-over."""

    SENDING = "sending"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


class Event(StrEnum):
    """Facts in email_tracking. Those up to REQUEUED are changes of status."""

    SENT = "sent"
    RETRY_SCHEDULED = "retry_scheduled"
    SNOOZED = "snoozed"
    DEAD = "dead"
    CANCELLED = "cancelled"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    IN_DOUBT = "in_doubt"
    REQUEUED = "requeued"
    DELIVERED = "delivered"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    OPENED = "opened"
    CLICKED = "clicked"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"


class Category(StrEnum):
    """What kind of mail a type is, for those who opt out and those who count."""

    BOOKING = "booking"
    PAYMENT = "payment"
    ACCOUNT = "account"
    MARKETING = "marketing"
    SYSTEM = "system"


class SuppressionReason(StrEnum):
    """Why nobody writes to an address, the strongest first."""

    HARD_BOUNCE = "hard_bounce"
    COMPLAINT = "complaint"
    MANUAL = "manual"
    UNSUBSCRIBE = "unsubscribe"


class Job(msgspec.Struct, frozen=True, gc=False):
    """One claimed row of email_jobs; the fields are the columns of `claim_jobs.sql`, in its order.

    `has_turn`: it has waited for its moment under a rate limit.
    """

    seq: int
    id: str
    job_id: str
    type: str
    template: str
    template_version: int | None
    locale: str | None
    recipient_email: str
    recipient_name: str | None
    subject: str | None
    content: str | None
    data: str | None
    options: str | None
    has_large_options: bool
    priority: str
    guarantee: str
    attempt_no: int
    retry_count: int
    max_retries: int | None
    provider: str | None
    next_attempt_at: object
    has_turn: bool
    is_expired: bool
    suppressions: str | None
    catalog_version: int

    def __repr__(self) -> str:
        """Names the job and nothing of its person or content: this ends up in logs."""
        return f"<Job {self.job_id}>"


class Attachment(msgspec.Struct, frozen=True):
    """A file in base64; with a content_id it is an inline image that HTML names as `cid:…`."""

    filename: str
    content: str
    content_type: str = "application/octet-stream"
    content_id: str | None = None


class Options(msgspec.Struct, frozen=True, rename={"from_address": "from"}):
    """email_jobs.options: what few mails need. Unknown keys are ignored, so that producers may go ahead of us."""

    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    reply_to: str | None = None
    from_address: str | None = None
    headers: dict[str, str] = {}
    attachments: tuple[Attachment, ...] = ()
    tags: tuple[str, ...] = ()


NO_OPTIONS = Options()


class Content(msgspec.Struct, frozen=True, gc=False):
    """What a template made of a job: three texts."""

    subject: str
    html: str
    text: str


class Mail(msgspec.Struct, gc=False):
    """A job on its way out: its content, and the attempt it is on.

    `retries` is what resending it out of a doubt has cost in this claim; `reason` is why it goes to its provider;
    `route` names the providers that it is for, where email_routes says so.
    """

    job: Job
    content: Content
    options: Options
    can_opt_out: bool
    attempt: int
    retries: int = 0
    reason: str = ""
    route: tuple[str, ...] = ()
    is_journaled: bool = False

    def __repr__(self) -> str:
        return f"<Mail {self.job.job_id} attempt {self.attempt}>"


class Accepted(msgspec.Struct, frozen=True):
    """The provider took it, under this id, with these words."""

    message_id: str
    answer: str = ""


class Refused(msgspec.Struct, frozen=True):
    """The provider refused this mail for good; another provider would too."""

    answer: str


class Failed(msgspec.Struct, frozen=True):
    """Definitely not taken, for now. Where the provider is at fault, the fallback may try at once.

    `is_throttled`: the answer says that it was too much, or too fast.
    """

    answer: str
    is_providers_fault: bool
    retry_after_seconds: float = 0.0
    is_throttled: bool = False


class Unknown(msgspec.Struct, frozen=True):
    """Handed over, and the answer never came: it may be on its way."""

    answer: str


TOO_LATE = "no time was left for it, or the worker was stopping"


class NotSent(msgspec.Struct, frozen=True):
    """Nothing of its content was handed over: time was up, or we are stopping."""

    reason: str


class Unavailable(msgspec.Struct, frozen=True):
    """The provider is out, not this mail: later, without using up a retry.

    `has_turn`: a rate limit holds it up until then, and then it goes before those that come new.
    """

    reason: str
    retry_after_seconds: float = 0.0
    has_turn: bool = False


Outcome = Accepted | Refused | Failed | Unknown | NotSent | Unavailable
Answered = Callable[[Mail, Outcome], None]


class JournalRow(msgspec.Struct, frozen=True, gc=False):
    """An attempt that no settle has counted yet, as `read_attempts.sql` returns it."""

    seq: int
    attempt: int
    state: str
    provider: str | None
    answer: str | None
    message_id: str | None
    age_seconds: float


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """What a job's row becomes. `event` None: it only counts its attempt and stays as due as it was.

    `delay_seconds` counts from the settle on; None keeps next_attempt_at. `retries` is added to retry_count.
    `has_turn`: it waits for its turn under a rate limit.
    """

    job: Job
    status: Status
    event: Event | None
    attempt_no: int
    retries: int = 0
    delay_seconds: float | None = None
    provider: str | None = None
    message_id: str | None = None
    error: str | None = None
    has_turn: bool | None = None


class Resend(msgspec.Struct, frozen=True, gc=False):
    """The journal says: not taken, or worth the risk. Send under this attempt number, at the cost of `retries`."""

    attempt: int
    retries: int
