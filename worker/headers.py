"""Header fields as bytes: RFC 5322 folding, RFC 2047 encoded words, RFC 2231 parameters, addresses.

Pure. Nothing that comes in can end a line that was not meant to end: control characters are refused or encoded.
"""

import re
from binascii import b2a_base64

from worker.errors import ComposeError

CRLF = b"\r\n"
# RFC 5322 2.1.1 wants 78 columns and allows 998; RFC 2047 2 wants 76 for lines with encoded words of 75.
LINE = 78
LONGEST_LINE = 998
ENCODED_WORD = 75
# Behind "Reply-To: " or the space of a folded line.
MAILBOX_COLUMN = 10

# RFC 5321 4.5.3.1: a path has 256 octets, two of them brackets.
LONGEST_ADDRESS = 254
LONGEST_TEXT = 10_000
LONGEST_NAME = 48

ADDRESS = re.compile(r'[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]{1,64}@[^\s\x00-\x1f\x7f@<>(),;:"\[\]\\]{1,255}')
_QUOTED_PAIR = re.compile(r"\\(.)")
_PHRASE = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_Q_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_ATTRIBUTE_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`{}~")


def is_plain(text: str) -> bool:
    """Printable ASCII that no reader would take for something encoded, or trim."""
    return (
        text.isascii()
        and text.isprintable()
        and "=?" not in text
        and not text.startswith(" ")
        and not text.endswith(" ")
    )


def text_field(name: str, text: str) -> bytes:
    """An unstructured field (Subject, X-…), folded, its value encoded where it must be. Raises ComposeError."""
    if len(text) > LONGEST_TEXT:
        raise ComposeError(f"{name} has {len(text):,} characters, {LONGEST_TEXT:,} are allowed")
    if is_plain(text):
        if len(name) + 2 + len(text) <= LINE:
            return f"{name}: {text}\r\n".encode("ascii")
        if max(map(len, text.split(" "))) < LONGEST_LINE - LINE and "  " not in text:
            return _fold(name, text.split(" "))
    return f"{name}: ".encode("ascii") + encoded_words(text, len(name) + 2, name) + CRLF


def _fold(name: str, words: list[str]) -> bytes:
    """Break a long field before words, never right after its name: not every parser likes an empty first line."""
    lines = [f"{name}: {words[0]}"]
    for word in words[1:]:
        if len(lines[-1]) + 1 + len(word) > LINE:
            lines.append(f" {word}")
        else:
            lines[-1] += f" {word}"
    return "\r\n".join(lines).encode("ascii") + CRLF


def encoded_words(text: str, column: int, what: str) -> bytes:
    """RFC 2047 encoded words, Q or B, whichever is shorter, folded; characters are never split between words.

    `column`, LONGEST_NAME + 2 at most, is where the first begins.
    """
    raw = encode(text, what)
    q_length = sum(1 if byte in _Q_SAFE or byte == 32 else 3 for byte in raw)
    b_length = (len(raw) + 2) // 3 * 4
    wrap = _q_word if q_length <= b_length else _b_word
    words: list[bytes] = []
    chunk, room = b"", ENCODED_WORD + 1 - column
    for character in text:
        addition = character.encode("utf-8")
        if chunk and len(wrap(chunk + addition)) > room:
            words.append(wrap(chunk))
            chunk, room = b"", ENCODED_WORD
        chunk += addition
    words.append(wrap(chunk))
    return b"\r\n ".join(words)


def _q_word(chunk: bytes) -> bytes:
    encoded = b"".join(b"_" if byte == 32 else bytes((byte,)) if byte in _Q_SAFE else b"=%02X" % byte for byte in chunk)
    return b"=?utf-8?q?" + encoded + b"?="


def _b_word(chunk: bytes) -> bytes:
    return b"=?utf-8?b?" + b2a_base64(chunk, newline=False) + b"?="


def encode(text: str, what: str) -> bytes:
    """UTF-8. Raises ComposeError for a lone surrogate, which has none."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ComposeError(f"{what} contains half of a surrogate pair, which no encoding can carry") from None


def split_address(text: str, what: str) -> tuple[str, str]:
    """`Ann <ann@example.com>` or the bare address, as (name, address). Raises ComposeError naming `what`."""
    text = text[:LONGEST_TEXT].strip()
    name, address = "", text
    if text.endswith(">"):
        name, _, address = (part.strip() for part in text[:-1].rpartition("<"))
    if not ADDRESS.fullmatch(address):
        raise ComposeError(f"{what}: {address[:100]!r} is not an address like ann@example.com")
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = _QUOTED_PAIR.sub(r"\1", name[1:-1])
    if not name.isprintable():
        raise ComposeError(f"{what}: the name must be one line without control characters")
    return name, address


def wire_address(address: str, what: str) -> str:
    """The address as it travels: a domain in its ASCII form (IDNA 2008), unless the local part needs UTF-8 anyway."""
    local, _, domain = address.rpartition("@")
    if local.isascii() and not domain.isascii():
        address = f"{local}@{ascii_domain(domain, what)}"
    if len(encode(address, what)) > LONGEST_ADDRESS:
        raise ComposeError(f"{what} is longer than the {LONGEST_ADDRESS} bytes that mail allows")
    return address


def ascii_domain(domain: str, what: str) -> str:
    """A domain in its ASCII form (IDNA 2008)."""
    if domain.isascii():
        return domain
    encode(domain, what)
    # Rare, so not imported for everybody.
    import idna

    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise ComposeError(f"{what}: {domain[:100]!r} is not a domain name") from None


def domain_of(address: str) -> str | None:
    """The domain of an address as routes and limits name it: small letters, ASCII. None, if it is no domain."""
    try:
        return ascii_domain(address.rpartition("@")[2], "the address").lower()
    except ComposeError:
        return None


def mailbox(name: str, address: str, what: str, name_of: str | None = None) -> bytes:
    """`name <address>`, the name quoted or encoded as it needs; a non-ASCII address makes it RFC 6532 UTF-8."""
    wire = encode(address, what)
    if not name:
        return wire
    if _PHRASE.fullmatch(name) and "=?" not in name and len(name) < LINE:
        phrase = name.encode("ascii")
    elif is_plain(name) and len(name) < LINE:
        phrase = b'"' + name.replace("\\", "\\\\").replace('"', '\\"').encode("ascii") + b'"'
    else:
        phrase = encoded_words(name, MAILBOX_COLUMN, name_of or f"the name in {what}")
    separator = b" " if len(phrase) + len(wire) < 60 else b"\r\n "
    return phrase + separator + b"<" + wire + b">"


def address_field(name: str, mailboxes: list[bytes]) -> bytes:
    """An address list, one mailbox a line."""
    return name.encode("ascii") + b": " + b",\r\n ".join(mailboxes) + CRLF


def parameter(name: str, value: str) -> bytes:
    """`; name="value"` on a line of its own; RFC 2231 when it is not short, plain ASCII."""
    if is_plain(value) and len(value) <= 60:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        return f';\r\n {name}="{quoted}"'.encode("ascii")
    pieces = [""]
    for byte in encode(value, name):
        piece = chr(byte) if byte in _ATTRIBUTE_SAFE else f"%{byte:02X}"
        if len(pieces[-1]) + len(piece) > 55:
            pieces.append("")
        pieces[-1] += piece
    if len(pieces) == 1:
        return f";\r\n {name}*=utf-8''{pieces[0]}".encode("ascii")
    charset = ("utf-8''",) + ("",) * len(pieces)
    return "".join(f";\r\n {name}*{n}*={charset[n]}{piece}" for n, piece in enumerate(pieces)).encode("ascii")
