"""Reading composed messages back: strict about bytes where RFC 5322 is, then by the standard library's parser."""

import email
import re
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default
from email.utils import getaddresses

from worker.compose import Message


def fields(message: Message) -> list[tuple[str, str]]:
    """The header fields, unfolded, in their order; fails where a line is not one of a correct header section."""
    section, _, _ = message.content.partition(b"\r\n\r\n")
    found: list[tuple[str, str]] = []
    for line in section.decode("utf-8").split("\r\n"):
        assert line.strip(" \t"), "a header line of nothing but white space ends the header for some readers"
        if line[0] in " \t":
            name, value = found[-1]
            found[-1] = (name, value + line)
        else:
            name, colon, value = line.partition(":")
            assert colon, line
            assert re.fullmatch(r"[!-9;-~]+", name), line
            found.append((name, value.removeprefix(" ")))
    return found


def check_bytes(message: Message) -> None:
    """Every line ends in CRLF and is at most 998 bytes; the header is ASCII unless SMTPUTF8 is asked for."""
    assert message.content.endswith(b"\r\n")
    for line in message.content.split(b"\r\n"):
        assert len(line) <= 998
        assert b"\r" not in line
        assert b"\n" not in line
    section, _, body = message.content.partition(b"\r\n\r\n")
    assert message.needs_smtputf8 or section.isascii()
    assert b"\x00" not in section
    assert message.is_8bit is not body.isascii()


def parse_header(message: Message) -> EmailMessage:
    """The header section by the standard library; as text, because raw UTF-8 is allowed there (RFC 6532)."""
    section, _, _ = message.content.partition(b"\r\n\r\n")
    return email.message_from_string(section.decode("utf-8") + "\r\n\r\n", policy=default)


def parse(message: Message) -> EmailMessage:
    """The whole message by the standard library; it must find nothing to complain about in its structure."""
    parsed = email.message_from_bytes(message.content, policy=default)
    for part in parsed.walk():
        assert not part.defects, part.defects
    return parsed


def addresses(message: Message, name: str) -> list[tuple[str, str]]:
    """(display name, address) of an address field.

    Names are decoded by `decode_header`: the header registry of Python 3.11 puts spaces between the encoded words of
    one name, which RFC 2047 6.2 forbids.
    """
    parsed = [who.addr_spec for who in parse_header(message)[name].addresses]
    named = getaddresses([value for field, value in fields(message) if field.lower() == name])
    assert [address for _, address in named] == parsed
    return [(str(make_header(decode_header(display))), address) for display, address in named]


def leaves(part: EmailMessage) -> list[EmailMessage]:
    """The parts that are no multiparts, in their order."""
    return [leaf for leaf in part.walk() if not leaf.is_multipart()]


def text_of(part: EmailMessage) -> str:
    """A text part's text, its lines ended by \\n."""
    raw = part.get_payload(decode=True)
    assert isinstance(raw, bytes)
    return raw.decode("utf-8").replace("\r\n", "\n")
