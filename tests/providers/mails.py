"""Mails to send, each recognisable by its number at every step of an SMTP conversation and in its content."""

import re
from collections.abc import Iterable

from worker.job import Content, Job, Mail, Options

_JOB_ID = re.compile(rb"^X-Job-Id: 0{8}-0000-0000-0000-(\d{12})\r$", re.MULTILINE)


def make_mail(
    seq: int,
    *,
    recipient: str | None = None,
    subject: str | None = None,
    text: str = "Hello",
    html: str = "<p>Hello</p>",
    options: Options | None = None,
) -> Mail:
    """A mail from s<seq>@example.org to r<seq>@example.com, with X-Job-Id ending in the number."""
    return Mail(
        _job(seq, recipient or f"r{seq}@example.com"),
        Content(subject or f"Mail {seq}", html, text),
        options or Options(from_address=f"s{seq}@example.org"),
        can_opt_out=False,
        attempt=1,
    )


def make_mails(count: int, first: int = 1) -> list[Mail]:
    """That many plain mails, numbered from `first`."""
    return [make_mail(seq) for seq in range(first, first + count)]


def seqs(mails: Iterable[Mail]) -> set[int]:
    """Their numbers."""
    return {mail.job.seq for mail in mails}


def seq_of_address(address: str) -> int:
    """The number in an address of `make_mail`."""
    return int(address[1:].partition("@")[0])


def seq_of_content(content: bytes) -> int:
    """The number in the X-Job-Id of a message."""
    found = _JOB_ID.search(content)
    assert found, content[:500]
    return int(found[1])


def _job(seq: int, recipient: str) -> Job:
    return Job(
        seq=seq,
        id=f"00000000-0000-0000-0000-{seq:012d}",
        job_id=f"job-{seq}",
        type="booking-confirmation",
        template="booking-confirmation",
        template_version=None,
        locale=None,
        recipient_email=recipient,
        recipient_name=None,
        subject=None,
        content=None,
        data=None,
        options=None,
        has_large_options=False,
        priority="normal",
        guarantee="at_least_once",
        attempt_no=0,
        retry_count=0,
        max_retries=None,
        provider=None,
        next_attempt_at=None,
        has_turn=False,
        is_expired=False,
        suppressions=None,
        catalog_version=1,
    )
