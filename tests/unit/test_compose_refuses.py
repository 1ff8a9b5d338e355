"""What cannot become a correct message: refused with the field's name, or made correct; never a broken message."""

import base64

import pytest

from tests.unit.bounded import run_bounded
from tests.unit.reading import check_bytes, fields, leaves, parse, text_of
from tests.unit.values import make_mail
from worker.compose import Composer, Sender
from worker.errors import ComposeError
from worker.headers import split_address
from worker.job import Attachment, Mail, Options

SENDER = Sender("bookings@example.org", "Acme Bookings")
COMPOSER = Composer(SENDER)
SURROGATE = "half \ud800 of a pair"
BREAKS = ["\r\nBcc: eve@example.com", "\n", "\r", "\x00", "\x0b", "\x85", "\u2028", SURROGATE]


def file(**changes: str) -> Options:
    """Options with one attachment, with these fields changed."""
    values = {"filename": "a.txt", "content": base64.b64encode(b"x").decode("ascii")} | changes
    return Options(attachments=(Attachment(**values),))


def refusal(options: Options) -> str:
    """Why a mail with these options is refused."""
    with pytest.raises(ComposeError) as caught:
        COMPOSER.compose(make_mail(options=options), eight_bit=True)
    return str(caught.value)


@pytest.mark.parametrize("text", BREAKS)
def test_no_field_of_the_options_takes_a_line_break_or_control_character(text: str) -> None:
    """Names, addresses, header values and names, filenames, types and content ids are refused, naming the field."""
    assert "options.cc" in refusal(Options(cc=(f"Ann{text}Eve <ann@example.com>",)))
    assert "options.bcc" in refusal(Options(bcc=(f"ann{text}@example.com",)))
    assert "options.from" in refusal(Options(from_address=f"ann@example{text}.com"))
    assert "reply_to" in refusal(Options(reply_to=f"Ann{text}Eve <ann@example.com>"))
    assert "X-Campaign" in refusal(Options(headers={"X-Campaign": f"spring{text}sale"}))
    assert "options.headers" in refusal(Options(headers={f"X-Spring{text}": "sale"}))
    assert "options.attachments" in refusal(file(filename=f"a{text}.txt"))
    assert "options.attachments" in refusal(file(content_type=f"text/plain{text}"))
    assert "options.attachments" in refusal(file(content_id=f"id{text}"))


@pytest.mark.parametrize(
    ("mail", "field"),
    [
        (make_mail(SURROGATE), "subject"),
        (make_mail(text=SURROGATE), "text"),
        (make_mail(html=SURROGATE), "html"),
        (make_mail(recipient_name=SURROGATE), "recipient_name"),
        (make_mail(recipient_email="\ud800@example.com"), "recipient_email"),
        (make_mail(options=Options(bcc=("\ud800@example.com",))), "bcc"),
    ],
    ids=["subject", "text", "html", "recipient_name", "recipient_email", "bcc"],
)
def test_half_of_a_surrogate_pair_is_refused_by_the_fields_name(mail: Mail, field: str) -> None:
    """A template can make one (`"\\ud800"` is a Jinja literal); the error says where it is."""
    with pytest.raises(ComposeError, match=f"(?i){field}"):
        COMPOSER.compose(mail, eight_bit=True)


@pytest.mark.parametrize(
    "name",
    [
        "From", "sender", "TO", "Cc", "bcc", "Reply-To", "Subject", "Date", "Message-ID", "MIME-Version", "Return-Path",
        "Received", "Auto-Submitted", "List-Unsubscribe", "List-Unsubscribe-Post", "X-Job-Id", "DKIM-Signature",
        "Content-Type", "content-transfer-encoding", "Resent-To", "ARC-Seal",
    ],
)  # fmt: skip
def test_the_workers_own_headers_are_reserved(name: str) -> None:
    """A producer cannot write what the worker writes, in whatever case."""
    assert name in refusal(Options(headers={name: "x"}))


@pytest.mark.parametrize("name", ["", "X:", "X Y", "X-ä", "X" * 71, ":", "X\t"])
def test_header_names_are_header_names(name: str) -> None:
    """Anything but up to 70 printable ASCII characters without space and colon is refused."""
    assert "is not a header name" in refusal(Options(headers={name: "x"}))


@pytest.mark.parametrize(
    "address",
    ["", "ann", "@example.com", "ann@", "a@b@c", "ann@exa mple.com", "<ann@example.com", "a@b.c, d@e.f", "a@b.c;d@e.f",
     "Ann <ann@example.com> x", "a@" + "b" * 256, "a" * 65 + "@b.c", "ann@xn--\u00fc.de", "ann@\u2024.de"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    """One address, or a name and one address in angle brackets; nothing else reaches the envelope."""
    assert "options.bcc" in refusal(Options(bcc=(address,)))


@pytest.mark.parametrize("content", ["%", "QQ", "QQ==QQ==", "Q Q=", "ä", SURROGATE])
def test_what_is_no_base64_is_refused(content: str) -> None:
    """An attachment is sent whole or not at all; the error names the file."""
    assert "'a.txt' is not base64" in refusal(file(content=content))


@pytest.mark.parametrize("kind", ["", "text", "text/", "text/plain; charset=x", "multipart/mixed", "Message/RFC822"])
def test_content_types_are_those_of_files(kind: str) -> None:
    """A type with parameters, or one whose content would be parts of ours, is refused."""
    assert "is not a content type for a file" in refusal(file(content_type=kind))


def test_the_largest_message_is_allowed_and_one_byte_more_is_not() -> None:
    """EMAIL_MAX_MESSAGE_BYTES counts the whole message; the error says both numbers."""
    size = len(COMPOSER.compose(make_mail(), eight_bit=True).content)
    exact = Composer(Sender(SENDER.address, SENDER.name, max_bytes=size))
    assert len(exact.compose(make_mail(), eight_bit=True).content) == size
    with pytest.raises(ComposeError, match=rf"has {size + 1:,} bytes, EMAIL_MAX_MESSAGE_BYTES allows {size:,}"):
        exact.compose(make_mail(text="Hello!"), eight_bit=True)


@pytest.mark.parametrize("local", ["ä", "a"])
def test_reply_to_counts_for_smtputf8(local: str) -> None:
    """A raw UTF-8 header goes only with SMTPUTF8: an address in Reply-To needs it as one in the envelope does."""
    message = COMPOSER.compose(make_mail(options=Options(reply_to=f"{local}@example.com")), eight_bit=True)
    check_bytes(message)


@pytest.mark.parametrize("address", ["jürgen@münchen.de", "jürgen@example.com", "mail@münchen.de"])
def test_any_sender_gives_an_ascii_message_id(address: str) -> None:
    """The Message-ID has the sender's domain in its ASCII form, whatever the sender's local part needs."""
    message = Composer(Sender(address)).compose(make_mail(), eight_bit=False)
    check_bytes(message)
    assert message.message_id.isascii()
    assert dict(fields(message))["Message-ID"] == message.message_id


def test_an_address_too_long_for_a_line_is_refused() -> None:
    """255 characters may be 1,020 bytes: more than a line and more than RFC 5321 4.5.3.1.3 allow."""
    address = "𐍈" * 60 + "@" + ".".join(["𐍈" * 60] * 3)
    with pytest.raises(ComposeError, match="recipient_email"):
        COMPOSER.compose(make_mail(recipient_email=address), eight_bit=True)


def test_a_known_boundary_cannot_be_written_into_a_part() -> None:
    """A producer who has seen the boundary in an earlier mail gets a message that still parses to what was given."""
    seen = parse(COMPOSER.compose(make_mail(), eight_bit=True)).get_boundary()
    text = f"\n--{seen}--\n--{seen}\n--{seen}1\n--{seen}2--\n"
    plain, rich = leaves(parse(COMPOSER.compose(make_mail(text=text, html=text), eight_bit=True)))
    assert (text_of(plain), text_of(rich)) == (text, text)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (r'"Ann \"A\" Bee" <a@b.c>', 'Ann "A" Bee'),
        (r'"back\\slash" <a@b.c>', r"back\slash"),
        (r'"\\\"" <a@b.c>', '\\"'),
        ("  Ann   <a@b.c>  ", "Ann"),
        ('"" <a@b.c>', ""),
        ('" <a@b.c>', '"'),
        ("<a@b.c>", ""),
        ("Ann, Bee <a@b.c>", "Ann, Bee"),
    ],
)
def test_a_quoted_name_is_read_as_rfc_5322_says(given: str, name: str) -> None:
    """Both escapes of a quoted string are undone, and a name without quotes may hold what it likes."""
    assert split_address(given, "x") == (name, "a@b.c")


def test_fields_of_any_size_are_composed_or_refused_in_time() -> None:
    """options may have 25 MB, a subject two million characters: none keeps the worker from its other mails."""
    code = """
from tests.unit.test_compose_refuses import COMPOSER, ComposeError, Options, make_mail
mails = [
    make_mail(options=Options(cc=(" " * 20_000,))),
    make_mail(options=Options(cc=("a" * 200_000 + " " * 200_000,))),
    make_mail(options=Options(bcc=(" <" * 50_000,))),
    make_mail(options=Options(headers={"X-A": "a" * 5_000_000})),
    make_mail(options=Options(headers={"X-A": "ä" * 2_500_000})),
    make_mail("a" * 1_999_999),
]
for mail in mails:
    try:
        print("composed", len(COMPOSER.compose(mail, eight_bit=True).content))
    except ComposeError as error:
        print("refused", str(error)[:200])
"""
    lines = run_bounded(code).splitlines()
    assert len(lines) == 6
    for line, field in zip(lines, ["cc", "cc", "bcc", "X-A", "X-A", "ubject"], strict=True):
        assert line.startswith("composed") or (line.startswith("refused") and field in line), line
