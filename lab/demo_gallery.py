"""Reads the mails that arrived, with the standard library's parser, and writes the page that shows them.

A mail of each type is shown whole; of the others the page has a line each, so that it stays small.
"""

import email.policy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from email.utils import parseaddr
from functools import lru_cache
from pathlib import Path

from lab.demo_account import Account
from lab.demo_page import Ended, Example, Line, page
from lab.demo_stage import Folders
from lab.demo_state import JobRow, Record
from lab.sink_process import LedgerEntry

# The headers alone, without the policy that models each field: 15 times faster, and a list needs no more.
_HEADERS = BytesHeaderParser()
_WHOLE = BytesParser(policy=email.policy.default)
SHOWN_HEADERS = ("From", "To", "Subject", "Date", "Message-ID", "X-Job-Id", "List-Unsubscribe")


@dataclass(frozen=True)
class _Seen:
    """What the list needs of a file."""

    path: Path
    job_id: str
    subject: str
    to: str
    arrived_at: float


def write_gallery(folders: Folders, record: Record, ledger: Sequence[LedgerEntry], account: Account) -> None:
    """Write index.html."""
    jobs = {job.id: job for job in record.jobs}
    times = [entry.time for entry in ledger]
    first = min(times, default=0.0)
    # The catcher writes its folder and its ledger in the same order.
    seen = [_seen(path, at) for path, at in zip(sorted(folders.mails.glob("*.eml")), times, strict=False)]
    counts: dict[str, int] = {}
    lines = []
    for mail in seen:
        counts[mail.job_id] = counts.get(mail.job_id, 0) + 1
        note = "arrived again" if counts[mail.job_id] > 1 else ""
        lines.append(_line(mail, jobs.get(mail.job_id), note, mail.arrived_at - first, folders.root))
    ended = [
        Ended(job.job_id, job.type, job.status.replace("_", " "), job.error or "")
        for job in record.jobs
        if job.status != "sent"
    ]
    examples = [_example(mail, jobs[mail.job_id], folders.root) for mail in _one_of_each_type(seen, jobs)]
    made_at = datetime.now(UTC).astimezone().strftime("%d %B %Y, %H:%M")
    folders.index.write_text(page(account, examples, lines, ended, made_at), "utf-8")


def _seen(path: Path, arrived_at: float) -> _Seen:
    head, _, _ = path.read_bytes().partition(b"\r\n\r\n")
    message = _HEADERS.parsebytes(head)
    name, address = parseaddr(_decoded(str(message["To"] or "")))
    to = f"{name} <{address}>" if name else address
    return _Seen(path, str(message["X-Job-Id"]), _decoded(str(message["Subject"] or "")), to, arrived_at)


@lru_cache(maxsize=4096)
def _decoded(value: str) -> str:
    return " ".join(str(make_header(decode_header(value))).split())


def _line(mail: _Seen, job: JobRow | None, note: str, after: float, root: Path) -> Line:
    kind = job.type if job else "of no job"
    if job is not None and job.status == "in_doubt":
        note = "in doubt for the worker"
    return Line(mail.path.relative_to(root).as_posix(), f"{after:.2f}", mail.to, mail.subject, kind, note)


def _one_of_each_type(seen: Sequence[_Seen], jobs: dict[str, JobRow]) -> list[_Seen]:
    """The first mail of each type; better one whose reader's name is not plain ASCII."""
    chosen: dict[str, _Seen] = {}
    for mail in seen:
        job = jobs.get(mail.job_id)
        if job is not None and (job.type not in chosen or (chosen[job.type].to.isascii() and not mail.to.isascii())):
            chosen[job.type] = mail
    return [chosen[kind] for kind in sorted(chosen)]


def _example(mail: _Seen, job: JobRow, root: Path) -> Example:
    raw = mail.path.read_bytes()
    message = _WHOLE.parsebytes(raw)
    return Example(
        kind=job.type,
        subject=mail.subject,
        headers=[(name, str(message[name])) for name in SHOWN_HEADERS if message[name]],
        html=_part(message, "html"),
        text=_part(message, "plain"),
        path=mail.path.relative_to(root).as_posix(),
        size=len(raw),
    )


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    return str(part.get_content()) if part is not None else ""
