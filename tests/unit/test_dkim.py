"""DKIM: what is signed verifies with dkimpy, whatever the mail; what was changed does not."""

from collections.abc import Callable

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tests.providers.mails import make_mail
from worker.compose import Composer, Sender
from worker.dkim import Signer, public_record
from worker.errors import SettingsError
from worker.job import Options
from worker.setting_types import Secret


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> str:
    """A key as settings have it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


NOT_OF_DKIM = pem(ec.generate_private_key(ec.SECP256R1()))
BROKEN = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"
KEYS = {
    "rsa": Secret(pem(rsa.generate_private_key(65537, 2048))),
    "ed25519": Secret(pem(ed25519.Ed25519PrivateKey.generate())),
}
SENDER = Sender("bookings@example.org", "Acme Bookings", unsubscribe_url="https://example.org/out/{id}")
COMPOSERS = {name: Composer(SENDER, Signer("example.org", "mail", key)) for name, key in KEYS.items()}


def resolver(key: Secret) -> Callable[..., bytes]:
    """The DNS with that key in it."""

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        assert name.rstrip(b".") == b"mail._domainkey.example.org"
        return public_record(key).encode()

    return look_up


def verifies(content: bytes, kind: str) -> bool:
    """What dkimpy says."""
    return bool(dkim.verify(content, dnsfunc=resolver(KEYS[kind])))


@pytest.mark.parametrize("kind", KEYS)
@given(subject=st.text(st.characters(exclude_categories=["C"]), max_size=200), text=st.text(max_size=500))
def test_any_mail_verifies(kind: str, subject: str, text: str) -> None:
    """Folded and encoded headers, empty and odd bodies, blanks at the ends of lines."""
    text = text.encode("utf-8", "replace").decode()
    mail = make_mail(
        1, subject=subject or "x", text=text, html=f"<p>{text}  </p>\t x  y \t\r\n \r\n\r\n", options=Options()
    )
    message = COMPOSERS[kind].compose(mail, eight_bit=True)
    assert verifies(message.content, kind)
    assert not message.is_8bit


@pytest.mark.parametrize("kind", KEYS)
def test_what_was_changed_does_not_verify(kind: str) -> None:
    """Another subject, another link to unsubscribe, a second From, another word in the body."""
    mail = make_mail(1, text="Hello Ann", options=Options(cc=("Bob <bob@example.com>",)))
    mail.can_opt_out = True
    content = COMPOSERS[kind].compose(mail, eight_bit=True).content
    assert verifies(content, kind)
    for old, new in [
        (b"Subject: Mail 1", b"Subject: Mail 2"),
        (b"example.org/out/", b"example.net/out/"),
        (b"One-Click", b"Two-Click"),
        (b"From: Acme", b"From: evil@example.net\r\nFrom: Acme"),
        (b"bob@example.com", b"eve@example.com"),
        (b"Hello Ann", b"Hello Eve"),
    ]:
        assert old in content
        assert not verifies(content.replace(old, new, 1), kind), new


@pytest.mark.parametrize("kind", KEYS)
def test_what_relays_may_do_does_no_harm(kind: str) -> None:
    """Headers folded anew, blanks in numbers, a Received on top: relaxed means that."""
    content = COMPOSERS[kind].compose(make_mail(1, options=Options()), eight_bit=True).content
    refolded = content.replace(b"Subject: Mail 1", b"SUBJECT:  Mail\r\n   1")
    changed = b"Received: from a by b\r\n" + refolded + b"\r\n\r\n"
    assert verifies(changed, kind)


def test_lines_keep_within_bounds() -> None:
    """A signature is folded like any other field."""
    content = COMPOSERS["rsa"].compose(make_mail(1, options=Options()), eight_bit=True).content
    assert max(map(len, content.split(b"\r\n\r\n")[0].split(b"\r\n"))) <= 100


def test_a_key_may_stand_in_one_line() -> None:
    """As environment variables often carry it."""
    one_line = Secret(KEYS["rsa"].reveal().replace("\n", "\\n"))
    assert public_record(one_line) == public_record(KEYS["rsa"])
    Signer("example.org", "mail", one_line)


@pytest.mark.parametrize("text", ["", "hunter2", BROKEN, NOT_OF_DKIM])
def test_a_key_that_is_none_is_refused_without_showing_it(text: str) -> None:
    """In words, and without a piece of it."""
    with pytest.raises(SettingsError, match=r"^the DKIM key (is not|must be)") as caught:
        Signer("example.org", "mail", Secret(text))
    assert "hunter2" not in str(caught.value)
