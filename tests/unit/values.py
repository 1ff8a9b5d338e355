"""Values for unit tests: jobs and mails, and strategies for all that a producer may write into them."""

import base64
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from worker.job import NO_OPTIONS, Attachment, Content, Job, Mail, Options

JOB_ID = "0d1f7f6e-95e2-4b0f-8d3a-3a2f0c9b5e11"

_JOB = Job(
    seq=1,
    id=JOB_ID,
    job_id="order-17",
    type="booking-confirmation",
    template="booking-confirmation",
    template_version=None,
    locale=None,
    recipient_email="ann@example.com",
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


def make_job(**changes: Any) -> Job:
    """A claimed job, with these fields changed."""
    values = {name: getattr(_JOB, name) for name in Job.__struct_fields__}
    return Job(**(values | changes))


def make_mail(
    subject: str = "Hello",
    html: str = "<p>Hello</p>",
    text: str = "Hello",
    options: Options = NO_OPTIONS,
    *,
    can_opt_out: bool = False,
    **job: Any,
) -> Mail:
    """A mail of such a job."""
    return Mail(make_job(**job), Content(subject, html, text), options, can_opt_out, 1)


@dataclass(frozen=True)
class Mailbox:
    """A name and an address, and the address as it must travel."""

    name: str
    address: str
    wire: str

    @property
    def text(self) -> str:
        """As a producer writes it."""
        return f"{self.name} <{self.address}>" if self.name else self.address


# Domains with their ASCII forms, from an independent converter.
_DOMAINS = {
    "example.com": "example.com",
    "a.very.long.sub-domain.of.example.org": "a.very.long.sub-domain.of.example.org",
    "münchen.de": "xn--mnchen-3ya.de",
    "bücher.example": "xn--bcher-kva.example",
    "例え.jp": "xn--r8jz45g.jp",
}
_ATOM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+/=?^_`{|}~-"
_any_character = st.characters(codec="utf-8")
_printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")

# Whatever a str may hold, except halves of surrogate pairs; with much of what breaks mail software.
any_text = st.lists(
    st.one_of(
        st.text(_any_character, max_size=30),
        st.sampled_from(
            [
                "\r", "\n", "\r\n", "\r\n.\r\n", "\n.\n", ".", "..", "\x00", "\x0b\x0c\x85\u2028", " ", "  \n", "\t",
                "=", "=20", "=?utf-8?q?x?=", "=?", "?=", "--=_", "\r\nBcc: eve@example.com\r\n", "ä", "😀", "\u202e",
                "<", '"', "\\", "_", "From ", "x" * 60, "ä" * 60, "x" * 1000, "ä" * 500, "x\n" * 60,
            ]
        ),
    ),
    max_size=8,
).map("".join)  # fmt: skip

one_line = st.lists(
    st.one_of(
        st.text(_printable, max_size=30),
        st.sampled_from(
            [" ", "  ", "=?utf-8?q?x?=", '"', "\\", "ä" * 40, "x" * 90, "😀", "a b c " * 20, "(", ",", "<x>"]
        ),
    ),
    max_size=6,
).map("".join)

# A name in front of `<address>`: spaces around it and one pair of quotes are the notation's, not the name's.
names = one_line.map(lambda text: text.strip(" ")[:100].strip(" ").strip('"').strip(" "))

_ascii_locals = st.lists(st.text(_ATOM, min_size=1, max_size=15), min_size=1, max_size=3).map(".".join)
_other_locals = st.sampled_from(["jürgen", "用户", "a.ñ", "𐍈"])


@st.composite
def mailboxes(draw: st.DrawFn, *, ascii_local: bool = False) -> Mailbox:
    """A mailbox; `ascii_local` for one that needs no SMTPUTF8."""
    local = draw(_ascii_locals if ascii_local else st.one_of(_ascii_locals, _ascii_locals, _other_locals))
    domain, ascii_domain = draw(st.sampled_from(sorted(_DOMAINS.items())))
    wire = f"{local}@{ascii_domain if local.isascii() else domain}"
    return Mailbox(draw(names), f"{local}@{domain}", wire)


filenames = one_line.map(lambda text: text[:255]).filter(bool)
content_ids = st.text("abcXYZ019._@+-", min_size=1, max_size=100)
content_types = st.sampled_from(["application/pdf", "image/png", "text/plain", "text/html", "application/vnd.x+json"])


@dataclass(frozen=True)
class File:
    """An attachment with its bytes."""

    raw: bytes
    attachment: Attachment


@st.composite
def files(draw: st.DrawFn) -> File:
    """An attachment or, with a content id, an inline image."""
    raw = draw(st.binary(max_size=200))
    attachment = Attachment(
        draw(filenames),
        base64.b64encode(raw).decode("ascii"),
        draw(content_types),
        draw(st.none() | content_ids),
    )
    return File(raw, attachment)


custom_headers = st.dictionaries(st.text("abcXYZ019-_.", max_size=38).map("X-".__add__), one_line, max_size=3).filter(
    lambda headers: "x-job-id" not in map(str.lower, headers) and len({*map(str.lower, headers)}) == len(headers)
)
