"""SMTP: how the bytes leave. One round trip a mail, parameters only where they are offered, dots doubled."""

import pytest

from lab.smtp_offer import DEFAULT_EXTENSIONS
from lab.smtp_script import Script
from tests.providers.hand_over import RecordingHandOver, send
from tests.providers.mails import make_mail, make_mails
from tests.providers.services import ONE_BY_ONE, SmtpRig
from worker.compose import Composer, Sender
from worker.job import Accepted, Failed, Options, Outcome, Refused

COUNT = 6  # what one connection's window takes at once


def without(*names: str) -> tuple[str, ...]:
    """The usual extensions but these."""
    return tuple(line for line in DEFAULT_EXTENSIONS if line.split()[0] not in names)


async def send_one(rig: SmtpRig, extensions: tuple[str, ...], **fields: object) -> tuple[Outcome, list[str], bytes]:
    """Send one mail; returns its outcome, the parameters of MAIL, and the content that arrived."""
    server = await rig.server(extensions=extensions)
    outcomes = await send(rig.provider(server), [make_mail(1, **fields)], RecordingHandOver())  # type: ignore[arg-type]
    commands = server.connections[0].commands
    parameters = next((line.split()[2:] for line in commands if line.startswith("MAIL")), [])
    return outcomes[1], parameters, server.mails[0].content if server.mails else b""


async def test_one_round_trip_a_mail(rig: SmtpRig) -> None:
    """The server waits for input once for each mail, besides EHLO, the first envelope and QUIT."""
    server = await rig.server()
    provider = rig.provider(server)
    await send(provider, make_mails(COUNT), RecordingHandOver())
    (record,) = server.connections
    # EHLO; the first envelope; then each content with the next envelope in one write, the last one alone.
    assert record.reads == 1 + 1 + COUNT
    # RCPT and DATA of each mail, and MAIL of each but the first, did not wait for a reply.
    assert record.pipelined == 2 * COUNT + (COUNT - 1)
    assert [line.split()[0] for line in record.commands] == ["EHLO", *(["MAIL", "RCPT", "DATA"] * COUNT)]


async def test_a_full_pipeline_needs_no_more_round_trips_than_mails(rig: SmtpRig) -> None:
    """A batch much larger than the window keeps the connection busy while the journal commits."""
    server = await rig.server()
    await send(rig.provider(server), make_mails(60), RecordingHandOver())
    assert len(server.mails) == 60
    assert server.connections[0].reads == 1 + 1 + 60


async def test_without_pipelining_every_command_waits_for_its_reply(rig: SmtpRig) -> None:
    """A server that does not offer PIPELINING never sees a command before it has answered the last."""
    server = await rig.server(
        Script(rcpt=lambda context: "550 no" if context.mail == 2 else None), extensions=ONE_BY_ONE
    )
    await send(rig.provider(server), make_mails(COUNT), RecordingHandOver())
    (record,) = server.connections
    assert record.pipelined == 0
    # A refused mail needs no DATA, and a RSET before the next.
    assert [line.split()[0] for line in record.commands] == [
        "EHLO", *("MAIL", "RCPT", "DATA"), *("MAIL", "RCPT"), "RSET", *(["MAIL", "RCPT", "DATA"] * 4)
    ]  # fmt: skip


async def test_several_recipients_are_one_group(rig: SmtpRig) -> None:
    """cc and bcc cost commands, not round trips."""
    options = Options(from_address="s1@example.org", cc=("c1@example.com", "c2@example.com"), bcc=("b@example.com",))
    server = await rig.server()
    await send(rig.provider(server), [make_mail(1, options=options)], RecordingHandOver())
    assert server.connections[0].reads == 3
    assert server.connections[0].pipelined == 5


async def test_size_and_8bitmime_are_said_where_they_are_offered(rig: SmtpRig) -> None:
    """SIZE tells the exact length of the content, and BODY that it has 8-bit text."""
    outcome, parameters, content = await send_one(rig, DEFAULT_EXTENSIONS, text="Grüße", html="<p>Grüße</p>")
    assert isinstance(outcome, Accepted)
    assert parameters == [f"SIZE={len(content)}", "BODY=8BITMIME"]
    assert "Grüße".encode() in content


async def test_plain_text_needs_no_body_parameter(rig: SmtpRig) -> None:
    """A mail of ASCII says nothing of 8BITMIME or SMTPUTF8."""
    outcome, parameters, content = await send_one(rig, DEFAULT_EXTENSIONS)
    assert isinstance(outcome, Accepted)
    assert parameters == [f"SIZE={len(content)}"]


@pytest.mark.parametrize("extensions", [(), ("PIPELINING",), without("8BITMIME", "SIZE")])
async def test_nothing_is_said_that_was_not_offered(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Without SIZE and 8BITMIME there are no parameters, and 8-bit text travels encoded."""
    outcome, parameters, content = await send_one(rig, extensions, text="Grüße", html="<p>Grüße</p>")
    assert isinstance(outcome, Accepted)
    assert parameters == []
    assert content.isascii()


async def test_8bit_text_never_meets_a_connection_that_does_not_offer_it(rig: SmtpRig) -> None:
    """Servers behind one name may differ: what goes to the one without 8BITMIME is ASCII, or does not go there."""
    plain = "250-scripted.test\n250 PIPELINING"
    server = await rig.server(Script(ehlo=lambda context: plain if context.connection % 2 == 0 else None))
    mails = [make_mail(seq, text="Grüße", html="<p>Grüße</p>") for seq in range(1, 41)]
    outcomes = await send(rig.provider(server, connections=4), mails, RecordingHandOver())
    assert len(server.connections) > 1
    for mail in server.mails:
        assert mail.content.isascii() or mail.connection % 2 == 1
        assert "BODY=8BITMIME" not in mail.parameters or mail.connection % 2 == 1
    for outcome in outcomes.values():
        assert isinstance(outcome, Accepted) or (isinstance(outcome, Failed) and outcome.is_providers_fault)


async def test_a_utf8_address_needs_and_says_smtputf8(rig: SmtpRig) -> None:
    """A local part beyond ASCII travels as UTF-8 with the SMTPUTF8 parameter."""
    server = await rig.server()
    outcomes = await send(rig.provider(server), [make_mail(1, recipient="jörg@exämple.com")], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert server.mails[0].recipients == ("jörg@exämple.com",)
    assert "SMTPUTF8" in server.mails[0].parameters


async def test_a_utf8_address_in_a_header_needs_smtputf8_too(rig: SmtpRig) -> None:
    """RFC 6531: raw UTF-8 in the header is for servers that were told SMTPUTF8, whatever the envelope says."""
    server = await rig.server()
    options = Options(from_address="s1@example.org", reply_to="büro@example.org")
    await send(rig.provider(server), [make_mail(1, options=options)], RecordingHandOver())
    for mail in server.mails:
        head, _, _ = mail.content.partition(b"\r\n\r\n")
        assert head.isascii() or "SMTPUTF8" in mail.parameters


async def test_a_domain_beyond_ascii_needs_no_smtputf8(rig: SmtpRig) -> None:
    """IDNA is enough for a domain."""
    server = await rig.server(extensions=without("SMTPUTF8"))
    outcomes = await send(rig.provider(server), [make_mail(1, recipient="joerg@exämple.com")], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert server.mails[0].recipients == ("joerg@xn--exmple-cua.com",)


async def test_a_utf8_address_without_smtputf8_goes_to_the_fallback(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Another provider may offer what this one lacks; the server is not even asked, and the next mail goes."""
    offered = tuple(line for line in extensions if line != "SMTPUTF8")
    server = await rig.server(extensions=offered)
    mails = [make_mail(1, recipient="jörg@example.com"), make_mail(2)]
    outcomes = await send(rig.provider(server), mails, RecordingHandOver())
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].is_providers_fault
    assert isinstance(outcomes[2], Accepted)
    assert len([line for line in server.connections[0].commands if line.startswith("MAIL")]) == 1


async def test_a_mail_beyond_the_servers_size_is_refused_here(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """The limit of EHLO is kept without asking: the large mail is refused with both figures, the small ones go."""
    offered = tuple("SIZE 5000" if line.startswith("SIZE") else line for line in extensions)
    server = await rig.server(extensions=offered)
    mails = [make_mail(1), make_mail(2, text="long " * 2000), make_mail(3)]
    outcomes = await send(rig.provider(server), mails, RecordingHandOver())
    refused = outcomes[2]
    assert isinstance(refused, Refused)
    assert "5,000" in refused.answer
    assert [type(outcomes[seq]) for seq in (1, 3)] == [Accepted, Accepted]
    assert not any("s2@example.org" in line for line in server.connections[0].commands)


@pytest.mark.parametrize("line", ["SIZE", "SIZE 0"])
async def test_size_without_a_limit_is_no_limit(rig: SmtpRig, line: str) -> None:
    """RFC 1870: no figure, or zero, means that no fixed maximum is in force."""
    outcome, parameters, content = await send_one(rig, (line,), text="long " * 2000)
    assert isinstance(outcome, Accepted)
    assert parameters == [f"SIZE={len(content)}"]


async def test_dots_are_doubled_on_the_way_and_arrive_single(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A line that is a dot does not end the mail, and lines that begin with dots keep them all."""
    lines = [".", "..", ".hidden", "...three", "a.b", "", ".", "end."]
    server = await rig.server(extensions=extensions)
    mails = [make_mail(seq, text="\n".join(lines)) for seq in range(1, 4)]
    outcomes = await send(rig.provider(server), mails, RecordingHandOver())
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert len(server.mails) == 3
    for mail in server.mails:
        assert "\r\n".join(lines).encode() in mail.content


async def test_the_content_arrives_as_it_was_composed(
    rig: SmtpRig, extensions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one byte is added, lost or changed between the composer and the server."""
    monkeypatch.setattr("worker.compose.time.time", lambda: 1_700_000_000)
    composer = Composer(Sender("bookings@example.org", "Acme Bookings"))
    mails = [make_mail(seq, text=f".\n{'x' * 900}\r\nÄ\n.{seq}\n" * 200) for seq in range(1, 5)]
    server = await rig.server(extensions=extensions)
    await send(rig.provider(server, composer=composer), mails, RecordingHandOver())
    assert [mail.content for mail in server.mails] == [composer.compose(mail, eight_bit=True).content for mail in mails]
