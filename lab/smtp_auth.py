"""The server's side of the SMTP logins PLAIN, LOGIN and CRAM-MD5, for the scripted SMTP server."""

import base64
import binascii
import hmac
import secrets
from collections.abc import Generator
from dataclasses import dataclass

MECHANISMS = ("PLAIN", "LOGIN", "CRAM-MD5")

# Yields challenges, is sent the client's answers (both in base64), and returns whether the login succeeded.
Exchange = Generator[str, str, bool]


@dataclass(frozen=True)
class Credentials:
    """The one account that may log in."""

    user: str
    password: str


def exchange(mechanism: str, initial: str | None, expected: Credentials) -> Exchange:
    """The conversation of one login; the mechanism has to be one of MECHANISMS."""
    try:
        if mechanism == "PLAIN":
            return (yield from _plain(initial, expected))
        if mechanism == "LOGIN":
            return (yield from _login(initial, expected))
        return (yield from _cram_md5(expected))
    except (binascii.Error, UnicodeDecodeError):
        return False


def _plain(initial: str | None, expected: Credentials) -> Exchange:
    answer = initial if initial is not None else (yield "")
    return _decode(answer).split("\0")[1:] == [expected.user, expected.password]


def _login(initial: str | None, expected: Credentials) -> Exchange:
    user = initial if initial is not None else (yield _encode("Username:"))
    password = yield _encode("Password:")
    return (_decode(user), _decode(password)) == (expected.user, expected.password)


def _cram_md5(expected: Credentials) -> Exchange:
    challenge = f"<{secrets.token_hex(8)}@scripted.test>"
    user, _, digest = _decode((yield _encode(challenge))).rpartition(" ")
    right = hmac.digest(expected.password.encode(), challenge.encode(), "md5").hex()
    return user == expected.user and hmac.compare_digest(digest.encode(), right.encode())


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _decode(text: str) -> str:
    return "" if text == "=" else base64.b64decode(text, validate=True).decode()
