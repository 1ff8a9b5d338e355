"""What the fast SMTP sink does with a mail's content: finds the identifying headers, stores the mail."""

import re
from pathlib import Path

HEADER_SEARCH_LIMIT = 4096
JOB_ID = b"X-Job-Id"
MESSAGE_ID = b"Message-ID"

# Both headers as they usually are: in this spelling, and on one line.
_USUAL = re.compile(rb"\n(X-Job-Id|Message-ID): (\S+)\r(?=\n(?![ \t]))")


def identifiers(content: bytes) -> tuple[bytes, bytes]:
    """The values of X-Job-Id and Message-ID ("-" when absent), unfolded and without spaces."""
    end = content.find(b"\r\n\r\n", 0, HEADER_SEARCH_LIMIT)
    head = b"\n" + content[: end + 2 if end >= 0 else HEADER_SEARCH_LIMIT]
    usual: list[tuple[bytes, bytes]] = _USUAL.findall(head)
    found = dict(usual)
    if len(usual) == len(found) == 2:
        return found[JOB_ID], found[MESSAGE_ID]
    return _value(head, JOB_ID), _value(head, MESSAGE_ID)


def _value(head: bytes, name: bytes) -> bytes:
    header = re.search(rb"\n" + name + rb":((?:[^\r\n]|\r\n[ \t])*)", head, re.IGNORECASE)
    return b"".join(header[1].split()) or b"-" if header else b"-"


def unstuff(content: bytes) -> bytes:
    """Undo the doubling of dots at the starts of lines."""
    return content.removeprefix(b".").replace(b"\r\n.", b"\r\n")


def store(maildir: Path, number: int, content: bytes) -> None:
    """Write a content, as it came over the wire, to the folder as NNNNNN.eml."""
    name = f"{number:06d}"
    partial = maildir / f".{name}.part"
    partial.write_bytes(unstuff(content))
    partial.rename(maildir / f"{name}.eml")  # whoever lists *.eml sees complete mails only
