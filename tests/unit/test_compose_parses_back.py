"""Composing: whatever a mail holds, the standard library's parser reads the same from its bytes."""

import base64
import binascii
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.reading import addresses, check_bytes, fields, leaves, parse, parse_header, text_of
from tests.unit.values import (
    JOB_ID,
    File,
    Mailbox,
    any_text,
    custom_headers,
    files,
    mailboxes,
    make_mail,
    one_line,
)
from worker.compose import Composer, Sender
from worker.errors import ComposeError
from worker.job import Options

COMPOSER = Composer(Sender("bookings@example.org", "Acme Bookings"))
_several = st.lists(mailboxes(), max_size=3)
_maybe = st.none() | mailboxes(ascii_local=True)


def normalised(text: str) -> str:
    """As bodies are compared: each kind of line end is one."""
    return re.sub(r"\r\n|\r|\n", "\n", text)


@given(subject=any_text)
@example("ä" * 255)
@example("a" * 3000)
@example("word " + "a" * 3000 + " word")
@example("a" * 100 + " b")
@example(" " * 2000)
@example("a" + " " * 2000 + "b")
@example("  leading and trailing  ")
@example("=?utf-8?q?x?=")
@example("a =?utf-8?q?x?= b")
@example("\u202eright to left\u202c 👩‍👩‍👧‍👦")
@example("a\r\nBcc: eve@example.com\r\n\r\nbody")
@example("")
def test_a_subject_is_read_as_it_was_written(subject: str) -> None:
    """Any text but a lone surrogate goes through the Subject field unchanged, in correct lines."""
    message = COMPOSER.compose(make_mail(subject), eight_bit=False)
    check_bytes(message)
    assert str(parse_header(message)["subject"]) == subject


@given(text=any_text, html=any_text, eight_bit=st.booleans())
@example("x" * 100_000, "ä" * 100_000, True)
@example(".\n..\n.\r\n.", "a\r\rb\n\r", False)
@example("--=_\n--=_a--\n", "--=_\r\n", True)
@example("trailing space \ntab\t\n", "ä trailing \n", False)
@example("x" * 998, "ä" * 499, True)
@example("x" * 999, "ä" * 500, True)
@example("\x00", "ä\x00", True)
@example("", "", True)
@example("From me\n>From you", "=", False)
def test_bodies_are_read_as_they_were_written(text: str, html: str, eight_bit: bool) -> None:
    """Text and HTML come back equal but for the kind of line ends, and 7bit parts have no byte above 127."""
    message = COMPOSER.compose(make_mail(html=html, text=text), eight_bit=eight_bit)
    check_bytes(message)
    assert eight_bit or message.content.isascii()
    parsed = parse(message)
    assert parsed.get_content_type() == "multipart/alternative"
    plain, rich = leaves(parsed)
    assert (plain.get_content_type(), rich.get_content_type()) == ("text/plain", "text/html")
    assert (text_of(plain), text_of(rich)) == (normalised(text), normalised(html))
    for part in (plain, rich):
        raw = part.get_payload(decode=True)
        assert isinstance(raw, bytes)
        assert raw.isascii() or part["content-transfer-encoding"] != "7bit"


@given(text=any_text)
@example("ä" + "x" * 14)
@example("ä" * 77 + "x" * 1000)
@example("ä" * 200 + "x" * 2920)
def test_an_encoded_text_has_the_shorter_encoding(text: str) -> None:
    """Where a text cannot go as it is, the one of quoted-printable and base64 that gives fewer bytes is taken."""
    part, _ = leaves(parse(COMPOSER.compose(make_mail(text=text), eight_bit=False)))
    raw = normalised(text).replace("\n", "\r\n").encode("utf-8")
    can_go_as_it_is = raw.isascii() and b"\x00" not in raw and max(map(len, raw.split(b"\r\n"))) <= 998
    encoding = str(part["content-transfer-encoding"])
    if can_go_as_it_is:
        assert encoding == "7bit"
        return
    quoted = re.sub(rb"\r?\n", b"\r\n", binascii.b2a_qp(raw, istext=True))
    encoded = re.sub(rb"\r?\n", b"\r\n", base64.encodebytes(raw))
    assert encoding == ("quoted-printable" if len(quoted) <= len(encoded) else "base64")


@given(who=mailboxes(), cc=_several, bcc=_several, sender=mailboxes(), reply_to=_maybe, eight_bit=st.booleans())
@settings(max_examples=80)
@example(
    Mailbox("Zoë", "zoe@example.com", "zoe@example.com"),
    [Mailbox("Ännä", "a@münchen.de", "a@xn--mnchen-3ya.de"), Mailbox("Ünal", "用户@例え.jp", "用户@例え.jp")],
    [],
    Mailbox("", "a@example.com", "a@example.com"),
    None,
    False,
)
def test_mailboxes_are_read_as_they_were_written(
    who: Mailbox, cc: list[Mailbox], bcc: list[Mailbox], sender: Mailbox, reply_to: Mailbox | None, eight_bit: bool
) -> None:
    """To, Cc, From and Reply-To carry names and addresses unchanged; Bcc is in the envelope and nowhere else."""
    options = Options(
        cc=tuple(box.text for box in cc),
        bcc=tuple(box.text for box in bcc),
        reply_to=reply_to.text if reply_to else None,
        from_address=sender.text,
    )
    mail = make_mail(options=options, recipient_email=who.address, recipient_name=who.name or None)
    message = COMPOSER.compose(mail, eight_bit=eight_bit)
    check_bytes(message)
    assert message.sender == sender.wire
    assert message.recipients == (who.wire, *(box.wire for box in cc), *(box.wire for box in bcc))
    assert message.needs_smtputf8 is not all(map(str.isascii, (sender.wire, *message.recipients)))
    assert addresses(message, "to") == [(who.name, who.wire)]
    assert addresses(message, "from") == [(sender.name or "Acme Bookings", sender.wire)]
    if cc:
        assert addresses(message, "cc") == [(box.name, box.wire) for box in cc]
    if reply_to:
        assert addresses(message, "reply-to") == [(reply_to.name, reply_to.wire)]
    expected = ["From", "To", *["Cc"] * bool(cc), *["Reply-To"] * bool(reply_to)]
    assert [name for name, _ in fields(message)][: len(expected)] == expected


@given(attached=st.lists(files(), min_size=1, max_size=4), text=any_text, eight_bit=st.booleans())
@settings(max_examples=40)
def test_attachments_are_read_as_they_were_given(attached: list[File], text: str, eight_bit: bool) -> None:
    """Bytes, names, types and content ids come back equal: images beside the HTML, files beside all."""
    options = Options(attachments=tuple(file.attachment for file in attached))
    message = COMPOSER.compose(make_mail(text=text, options=options), eight_bit=eight_bit)
    check_bytes(message)
    images = [file for file in attached if file.attachment.content_id]
    others = [file for file in attached if not file.attachment.content_id]
    plain, rich, *found = leaves(parse(message))
    assert (text_of(plain), text_of(rich)) == (normalised(text), "<p>Hello</p>")
    assert len(found) == len(attached)
    for part, file in zip(found, images + others, strict=True):
        given_file = file.attachment
        assert part.get_payload(decode=True) == file.raw
        assert part.get_content_type() == given_file.content_type
        # get_filename() would strip spaces.
        assert part["content-disposition"].params["filename"] == given_file.filename
        assert part["content-type"].params["name"] == given_file.filename
        assert part.get_content_disposition() == ("inline" if given_file.content_id else "attachment")
        assert part["content-id"] == (f"<{given_file.content_id}>" if given_file.content_id else None)
    multiparts = [part.get_content_type() for part in parse(message).walk() if part.is_multipart()]
    expected = [("mixed", others), ("alternative", attached), ("related", images)]
    assert multiparts == [f"multipart/{kind}" for kind, whose in expected if whose]


@given(headers=custom_headers, subject=any_text, name=one_line, can_opt_out=st.booleans())
@example({"X-" + "a" * 38: "ä" * 300}, "", "", False)
@example({"X-Long": "word " * 400 + "end", "X-Empty": ""}, "", 'a "quoted" \\ name', True)
def test_exactly_the_expected_fields_are_written(
    headers: dict[str, str], subject: str, name: str, can_opt_out: bool
) -> None:
    """Custom headers come back equal, and nothing that a producer writes adds, drops or moves a field."""
    mail = make_mail(subject, options=Options(headers=headers), can_opt_out=can_opt_out, recipient_name=name)
    message = Composer(
        Sender("bookings@example.org", name, "help@example.org", "https://example.org/u/{id}?to={email}")
    ).compose(mail, eight_bit=False)
    check_bytes(message)
    found = fields(message)
    opt_out = ["List-Unsubscribe", "List-Unsubscribe-Post"] if can_opt_out else []
    assert [field for field, _ in found] == [
        "From", "To", "Reply-To", "Subject", "Date", "Message-ID", "X-Job-Id", "Auto-Submitted", *opt_out, *headers,
        "MIME-Version", "Content-Type",
    ]  # fmt: skip
    parsed = parse_header(message)
    for field, value in headers.items():
        assert str(parsed[field]) == value
    by_name = dict(found)
    assert by_name["Message-ID"] == message.message_id == f"<{JOB_ID}@example.org>"
    assert by_name["X-Job-Id"] == JOB_ID
    assert by_name["Auto-Submitted"] == "auto-generated"
    if can_opt_out:
        assert by_name["List-Unsubscribe"] == f" <https://example.org/u/{JOB_ID}?to=ann%40example.com>"
        assert by_name["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


@pytest.mark.parametrize("value", ["ä" * 300, "a" * 200, "word " * 50 + "end"])
def test_a_long_field_name_does_not_change_the_value(value: str) -> None:
    """A custom header whose name fills its line is refused, or read as it was written."""
    name = "X-" + "a" * 68
    try:
        message = COMPOSER.compose(make_mail(options=Options(headers={name: value})), eight_bit=False)
    except ComposeError:
        return
    check_bytes(message)
    assert str(parse_header(message)[name]) == value
