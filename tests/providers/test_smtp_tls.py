"""SMTP: STARTTLS and TLS from the first byte. Certificates are checked, and nothing goes in the clear."""

import asyncio
import threading

import pytest

from lab.certificate import Certificates, make_certificates
from lab.scripted_smtp import ScriptedServer
from lab.smtp_script import Action, Context, Delay, Drop, Script, Stall
from tests.providers.hand_over import GUARD_SECONDS, RecordingHandOver, assert_books, send
from tests.providers.mails import make_mail, make_mails
from tests.providers.services import SmtpRig, accepted_of, contents_of
from worker.job import Accepted, Failed, NotSent, Unknown
from worker.providers.smtp import SmtpProvider

pytestmark = pytest.mark.parametrize("encryption", ["starttls", "tls"])


def secure_server(
    rig: SmtpRig,
    certificates: Certificates,
    encryption: str,
    script: Script = Script(),  # noqa: B008 (it is frozen)
    credentials: tuple[str, str] | None = None,
) -> ScriptedServer:
    """A server with that kind of encryption."""
    return rig.threaded_server(
        script, tls=certificates.server, implicit_tls=encryption == "tls", credentials=credentials
    )


async def assert_refused(server: ScriptedServer, provider: SmtpProvider) -> str:
    """The mails fail by the provider's fault, unjournaled, and the server saw no mail; returns the words."""
    hand_over = RecordingHandOver()
    outcomes = await send(provider, make_mails(2), hand_over)
    assert hand_over.tally.admitted == []
    assert server.mails == []
    lines = [line for record in server.connections for line in record.commands]
    assert {line.split()[0] for line in lines} <= {"EHLO", "HELO", "STARTTLS", "QUIT"}
    answers = set()
    for outcome in outcomes.values():
        assert isinstance(outcome, Failed)
        assert outcome.is_providers_fault
        answers.add(outcome.answer)
    (answer,) = answers
    return answer


async def test_mails_travel_encrypted(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """With an authority in SSL_CERT_FILE, batches go over encrypted connections, pipelined as ever."""
    server = secure_server(rig, trusted, encryption)
    provider = rig.provider(server, encryption=encryption, connections=2)
    for first in (1, 101):
        outcomes = await send(provider, make_mails(30, first), RecordingHandOver())
        assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert len(server.accepted) == 60
    assert all(mail.tls for mail in server.mails)
    assert all(record.tls and record.pipelined for record in server.connections)


async def test_a_large_mail_travels_encrypted(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """A content of many TLS records arrives whole."""
    text = "\n".join(f".line {number} " + "x" * 80 for number in range(20_000))
    server = secure_server(rig, trusted, encryption)
    outcomes = await send(rig.provider(server, encryption=encryption), [make_mail(1, text=text)], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert text.replace("\n", "\r\n").encode() in server.mails[0].content


async def test_the_login_is_encrypted(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """AUTH comes after TLS, and what EHLO said before STARTTLS is asked again."""
    script = Script(ehlo=lambda context: None if context.tls else "250-scripted.test\n250 STARTTLS")
    server = secure_server(rig, trusted, encryption, script, ("user", "secret"))
    provider = rig.provider(server, encryption=encryption, username="user", password="secret")
    outcomes = await send(provider, make_mails(6), RecordingHandOver())
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert {(mail.tls, mail.user) for mail in server.mails} == {(True, "user")}
    commands = [line.split()[0] for line in server.connections[0].commands]
    assert "AUTH" not in commands[: commands.index("STARTTLS")] if encryption == "starttls" else True
    assert server.connections[0].pipelined == 3 * 6 - 1


async def test_an_untrusted_certificate_is_refused(rig: SmtpRig, certificates: Certificates, encryption: str) -> None:
    """A server whose authority nobody knows gets no mail and no login; the answer says what was wrong."""
    server = secure_server(rig, certificates, encryption, credentials=("user", "secret"))
    provider = rig.provider(server, encryption=encryption, username="user", password="secret")
    assert "certificate" in (await assert_refused(server, provider)).lower()


async def test_a_certificate_for_another_host_is_refused(
    rig: SmtpRig, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, encryption: str
) -> None:
    """A trusted certificate for another name is as bad as none."""
    certificates = make_certificates("smtp.example.net")
    file = certificates.write_authority(tmp_path_factory.mktemp("authority") / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    server = secure_server(rig, certificates, encryption)
    assert "127.0.0.1" in await assert_refused(server, rig.provider(server, encryption=encryption))


async def test_the_host_name_is_what_is_checked(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """A certificate for the configured name is good, whatever address the name has."""
    server = secure_server(rig, trusted, encryption)
    provider = rig.provider(server, encryption=encryption, host="localhost")
    assert isinstance((await send(provider, make_mails(1), RecordingHandOver()))[1], Accepted)


async def test_a_server_without_tls_is_refused(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """Asked for and not offered: no mail goes in the clear."""
    server = await rig.server()
    await assert_refused(server, rig.provider(server, encryption=encryption, answer_seconds=0.6))


async def test_a_lost_content_is_unknown_and_the_next_mail_goes(
    rig: SmtpRig, trusted: Certificates, encryption: str
) -> None:
    """The rules for broken connections hold on encrypted ones."""
    script = Script(content=lambda context: Drop(reset=True) if (context.connection, context.mail) == (1, 2) else None)
    server = secure_server(rig, trusted, encryption, script)
    outcomes = await send(rig.provider(server, encryption=encryption), make_mails(4), RecordingHandOver())
    assert [type(outcomes[seq]) for seq in (1, 2, 3, 4)] == [Accepted, Unknown, Accepted, Accepted]
    assert_books(outcomes, contents_of(server), accepted_of(server))


async def test_the_deadline_ends_encrypted_connections_too(
    rig: SmtpRig, trusted: Certificates, encryption: str
) -> None:
    """A silent server ends the batch at its deadline, and the provider works again."""
    server = secure_server(rig, trusted, encryption, Script(content=Stall()))
    provider = rig.provider(server, encryption=encryption)
    outcomes = await send(provider, make_mails(3), RecordingHandOver(seconds=0.6))
    assert [type(outcomes[seq]) for seq in (1, 2, 3)] == [Unknown, NotSent, NotSent]
    server.script = Script(content=Delay(0.01))
    assert isinstance((await send(provider, make_mails(1, 4), RecordingHandOver()))[4], Accepted)


async def test_closing_says_goodbye_under_encryption(rig: SmtpRig, trusted: Certificates, encryption: str) -> None:
    """QUIT reaches the server before the TLS connection ends."""
    said = threading.Event()

    def goodbye(_: Context) -> Action:
        said.set()
        return None

    server = secure_server(rig, trusted, encryption, Script(quit=goodbye))
    provider = rig.provider(server, encryption=encryption)
    await send(provider, make_mails(1), RecordingHandOver())
    await provider.close()
    assert await asyncio.to_thread(said.wait, GUARD_SECONDS)
