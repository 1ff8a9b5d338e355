"""A mail to see whether a provider works: sent directly, past the queue and its rules, but never past the audience."""

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

import msgspec

from worker.delivery import audience_of
from worker.errors import EmailWorkerError
from worker.job import NO_OPTIONS, Content, Job, Mail, NotSent, Outcome
from worker.providers.registry import make_provider, sender_of
from worker.setting_types import ProviderName
from worker.settings import Settings

SECONDS = 60.0


class Passage:
    """A hand-over without a journal: nothing is lost if it is not known."""

    is_urgent = True

    def __init__(self) -> None:
        self.deadline = asyncio.get_running_loop().time() + SECONDS
        self.outcome: Outcome = NotSent("no answer was given")

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """See `HandOver`."""
        return list(mails)

    def may_go(self) -> bool:
        """See `HandOver`."""
        return True

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """See `HandOver`."""
        self.outcome = outcome


async def send_test(settings: Settings, name: ProviderName, address: str) -> tuple[Outcome, float]:
    """Send one mail by that provider; returns what it said, and after how many seconds.

    Raises EmailWorkerError when EMAIL_ALLOWED_RECIPIENTS does not allow the address.
    """
    mail = _mail(name, address)
    audience = audience_of(settings)
    if not audience.is_everybody:
        turned = audience.turned(mail.job, NO_OPTIONS)
        if turned is None:
            raise EmailWorkerError(f"EMAIL_ALLOWED_RECIPIENTS does not allow {address}")
        mail.job, mail.options = turned
    provider = make_provider(name, settings, sender_of(settings))
    passage = Passage()
    began = time.monotonic()
    try:
        await provider.send([mail], passage)
    finally:
        await provider.close()
    return passage.outcome, time.monotonic() - began


def _mail(provider: str, address: str) -> Mail:
    values = dict.fromkeys(Job.__struct_fields__) | {
        "seq": 1,
        "id": str(uuid4()),
        "job_id": "send-test",
        "type": "test",
        "template": "test",
        "recipient_email": address,
        "has_large_options": False,
        "has_turn": False,
        "priority": "critical",
        "guarantee": "at_most_once",
        "attempt_no": 0,
        "retry_count": 0,
        "is_expired": False,
        "catalog_version": 0,
    }
    text = f"This mail was sent by email-worker send-test, through {provider}. If you can read it, that works."
    content = Content("Test of email-worker", f"<p>{text}</p>", text)
    return Mail(msgspec.convert(values, Job), content, NO_OPTIONS, can_opt_out=False, attempt=1)
