"""SMTP against a server that is not ours: aiosmtpd, without PIPELINING. What arrives is what was composed."""

import base64
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from tests.providers.hand_over import RecordingHandOver, send
from tests.providers.mails import make_mail, make_mails
from tests.providers.services import SmtpRig
from worker.job import Accepted, Attachment, Failed, Options

IMAGE = bytes(range(256)) * 40


class Mailbox:
    """aiosmtpd's handler: keeps the envelopes."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        """Take everything."""
        self.envelopes.append(envelope)
        return "250 2.0.0 taken"

    def messages(self) -> list[EmailMessage]:
        """What arrived, parsed."""
        parsed = [message_from_bytes(envelope.content, policy=policy.default) for envelope in self.envelopes]
        return [message for message in parsed if isinstance(message, EmailMessage)]


class Server:
    """Where aiosmtpd listens."""

    host = "127.0.0.1"

    def __init__(self, port: int, mailbox: Mailbox) -> None:
        self.port = port
        self.mailbox = mailbox


@contextmanager
def aiosmtpd_server(**options: Any) -> Iterator[Server]:
    """A running aiosmtpd."""
    with socket.socket() as probe:
        probe.bind((Server.host, 0))
        port = probe.getsockname()[1]
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname=Server.host, port=port, **options)
    controller.start()
    try:
        yield Server(port, mailbox)
    finally:
        controller.stop()


def texts(message: EmailMessage) -> list[tuple[str, str]]:
    """The text parts of a message, with lines ended as Python ends them."""
    return [
        (part.get_content_type(), part.get_content().replace("\r\n", "\n"))
        for part in message.walk()
        if part.get_content_maintype() == "text" and isinstance(part, EmailMessage)
    ]


@pytest.fixture
def server() -> Iterator[Server]:
    """aiosmtpd as it comes, with SMTPUTF8."""
    with aiosmtpd_server(enable_SMTPUTF8=True) as running:
        yield running


async def test_a_batch_arrives_whole(rig: SmtpRig, server: Server) -> None:
    """Two batches over a few connections: every mail once, with its envelope, its headers and its texts."""
    provider = rig.provider(server, connections=3)
    for first in (1, 51):
        mails = [
            make_mail(seq, subject=f"Bestätigung № {seq}", text=f"Grüße\n.\n..{seq}", html=f"<p>Grüße {seq}</p>")
            for seq in range(first, first + 20)
        ]
        outcomes = await send(provider, mails, RecordingHandOver())
        assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
        arrived = {envelope.mail_from: envelope for envelope in server.mailbox.envelopes[first // 50 * 20 :]}
        assert len(arrived) == len(mails)
        for mail in mails:
            seq = mail.job.seq
            envelope = arrived[f"s{seq}@example.org"]
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            outcome = outcomes[seq]
            assert isinstance(outcome, Accepted)
            assert envelope.rcpt_tos == [f"r{seq}@example.com"]
            assert (message["To"], message["Subject"]) == (f"r{seq}@example.com", f"Bestätigung № {seq}")
            assert (message["Message-ID"], message["X-Job-Id"]) == (outcome.message_id, mail.job.id)
            assert texts(message) == [("text/plain", mail.content.text), ("text/html", mail.content.html)]
            assert message.defects == []


async def test_attachments_and_images_arrive_byte_for_byte(rig: SmtpRig, server: Server) -> None:
    """A file and an inline image survive the way, names included."""
    encoded = base64.b64encode(IMAGE).decode()
    options = Options(
        from_address="s1@example.org",
        attachments=(
            Attachment("Rechnung März.pdf", encoded, "application/pdf"),
            Attachment("logo.png", encoded, "image/png", content_id="logo"),
        ),
    )
    outcomes = await send(rig.provider(server), [make_mail(1, options=options)], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    (message,) = server.mailbox.messages()
    parts = {part.get_filename(): part for part in message.walk() if part.get_filename()}
    assert parts.keys() == {"Rechnung März.pdf", "logo.png"}
    assert [part.get_payload(decode=True) for part in parts.values()] == [IMAGE, IMAGE]
    assert parts["logo.png"]["Content-ID"] == "<logo>"


async def test_utf8_addresses_arrive_with_smtputf8(rig: SmtpRig, server: Server) -> None:
    """Recipient, sender and copy beyond ASCII are the same on the envelope and in the headers."""
    options = Options(from_address="büro@example.org", cc=("Çelik <çelik@example.com>",), bcc=("ñ@example.com",))
    outcomes = await send(
        rig.provider(server), [make_mail(1, recipient="jörg@exämple.com", options=options)], RecordingHandOver()
    )
    assert isinstance(outcomes[1], Accepted), outcomes
    (envelope,) = server.mailbox.envelopes
    assert envelope.smtp_utf8
    assert envelope.mail_from == "büro@example.org"
    assert envelope.rcpt_tos == ["jörg@exämple.com", "çelik@example.com", "ñ@example.com"]
    (message,) = server.mailbox.messages()
    assert (message["To"], message["Cc"]) == ("jörg@exämple.com", "Çelik <çelik@example.com>")


async def test_utf8_addresses_without_smtputf8_are_not_sent(rig: SmtpRig) -> None:
    """aiosmtpd without the extension gets the others of the batch, and never the address that it cannot read."""
    with aiosmtpd_server(enable_SMTPUTF8=False) as server:
        outcomes = await send(
            rig.provider(server), [make_mail(1, recipient="jörg@example.com"), make_mail(2)], RecordingHandOver()
        )
        assert isinstance(outcomes[1], Failed)
        assert outcomes[1].is_providers_fault
        assert isinstance(outcomes[2], Accepted)
        assert [envelope.mail_from for envelope in server.mailbox.envelopes] == ["s2@example.org"]


async def test_its_size_limit_is_kept(rig: SmtpRig) -> None:
    """What EHLO's SIZE forbids is not tried."""
    with aiosmtpd_server(data_size_limit=20_000) as server:
        mails = [make_mail(1, text="long " * 10_000), *make_mails(2, 2)]
        outcomes = await send(rig.provider(server), mails, RecordingHandOver())
        assert [type(outcomes[seq]).__name__ for seq in (1, 2, 3)] == ["Refused", "Accepted", "Accepted"]
        assert len(server.mailbox.envelopes) == 2
