"""SMTP: what goes wrong before the first mail, at the greeting, EHLO, STARTTLS and AUTH.

All of it is the provider's fault, costs no attempt in the journal, and is told in the server's own words.
"""

from typing import Any

import pytest

from lab.certificate import Certificates
from lab.scripted_smtp import ScriptedServer
from lab.smtp_script import Action, Drop, Garbage, Script, Stall
from tests.providers.hand_over import RecordingHandOver, is_storable, send
from tests.providers.mails import make_mails
from tests.providers.services import SmtpRig
from worker.job import Accepted, Failed, Outcome
from worker.providers.smtp import SmtpProvider

WORDLESS: tuple[Action, ...] = (Drop(), Drop(reset=True), Stall(), Garbage())
ANSWER_SECONDS = 0.3


def named(value: object) -> str:
    """A test's name for a parameter."""
    return value if isinstance(value, str) else type(value).__name__ + ("-reset" if value == Drop(reset=True) else "")


async def assert_fails_and_recovers(
    server: ScriptedServer,
    provider: SmtpProvider,
    after: Script = Script(),  # noqa: B008 (it is frozen)
) -> list[Outcome]:
    """Two mails fail by the provider's fault, unjournaled and unseen; with the script `after` the next two go."""
    hand_over = RecordingHandOver()
    outcomes = await send(provider, make_mails(2), hand_over)
    assert [isinstance(outcome, Failed) and outcome.is_providers_fault for outcome in outcomes.values()] == [True, True]
    assert hand_over.tally.admitted == []
    assert not any(line.startswith("MAIL") for record in server.connections for line in record.commands)
    server.script = after
    again = await send(provider, make_mails(2, 3), RecordingHandOver())
    assert {type(outcome) for outcome in again.values()} == {Accepted}
    assert len(server.accepted) == 2
    return list(outcomes.values())


async def assert_words(server: ScriptedServer, provider: SmtpProvider, action: Action) -> None:
    """The same, and the answers hold what the server said, if it said something, and where it was."""
    for outcome in await assert_fails_and_recovers(server, provider):
        assert isinstance(outcome, Failed)
        assert f"{server.host}:{server.port}" in outcome.answer
        if isinstance(action, str):
            assert action in outcome.answer


@pytest.mark.parametrize("action", ["421 4.3.2 too busy", "450 4.3.2 later", "554 5.7.1 not you", *WORDLESS], ids=named)
async def test_a_bad_greeting_is_the_providers_fault(rig: SmtpRig, action: Action) -> None:
    """A server that does not greet with 220 gets nothing, and is tried again by the next batch."""
    server = await rig.server(Script(greeting=action))
    await assert_words(server, rig.provider(server, answer_seconds=ANSWER_SECONDS), action)


@pytest.mark.parametrize("action", ["421 4.3.2 shutting down", *WORDLESS], ids=named)
async def test_a_bad_answer_to_ehlo_is_the_providers_fault(rig: SmtpRig, action: Action) -> None:
    """A connection that ends or goes mad at EHLO is not used."""
    server = await rig.server(Script(ehlo=action, helo=action))
    await assert_words(server, rig.provider(server, answer_seconds=ANSWER_SECONDS), action)


@pytest.mark.parametrize("refusal", ["500 5.5.1 what", "502 5.5.1 not implemented", "550 5.7.1 no"])
async def test_a_server_without_ehlo_gets_helo_and_plain_mail(rig: SmtpRig, refusal: str) -> None:
    """A server of the old days is served with HELO, one command at a time, without parameters."""
    server = await rig.server(Script(ehlo=refusal), extensions=())
    outcomes = await send(rig.provider(server), make_mails(3), RecordingHandOver())
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert [mail.parameters for mail in server.mails] == [(), (), ()]
    assert server.connections[0].pipelined == 0
    assert server.connections[0].commands[1].startswith("HELO ")


async def test_a_server_that_wants_neither_greeting_is_the_providers_fault(rig: SmtpRig) -> None:
    """After EHLO and HELO there is nothing left to try; the answer has the words for HELO."""
    server = await rig.server(Script(ehlo="502 5.5.1 no EHLO", helo="550 5.7.1 no HELO either"))
    for outcome in await assert_fails_and_recovers(server, rig.provider(server)):
        assert isinstance(outcome, Failed)
        assert "550 5.7.1 no HELO either" in outcome.answer


async def test_nobody_listening_is_the_providers_fault(rig: SmtpRig) -> None:
    """A refused connection fails the mails at once, with the address in the answer."""
    server = await rig.server()
    await server.stop()
    hand_over = RecordingHandOver()
    outcomes = await send(rig.provider(server), make_mails(2), hand_over)
    assert [isinstance(outcome, Failed) and outcome.is_providers_fault for outcome in outcomes.values()] == [True, True]
    assert hand_over.tally.admitted == []


async def test_a_host_that_does_not_exist_is_the_providers_fault(rig: SmtpRig) -> None:
    """A name without an address fails like a refused connection."""
    server = await rig.server()
    outcomes = await send(rig.provider(server, host="smtp.invalid"), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Failed)
    assert outcomes[1].is_providers_fault
    assert "smtp.invalid" in outcomes[1].answer


@pytest.mark.parametrize("action", ["421 4.3.2 bye", "454 4.7.0 no TLS now", "554 5.7.3 never", *WORDLESS], ids=named)
async def test_a_refused_starttls_is_the_providers_fault(rig: SmtpRig, trusted: Certificates, action: Action) -> None:
    """STARTTLS that was offered and is not done ends the connection: nothing goes in the clear."""
    server = await rig.server(Script(starttls=action), tls=trusted.server)
    provider = rig.provider(server, encryption="starttls", answer_seconds=ANSWER_SECONDS)
    await assert_words(server, provider, action)
    assert all(mail.tls for mail in server.mails)


@pytest.mark.parametrize("action", WORDLESS, ids=named)
@pytest.mark.parametrize("encryption", ["starttls", "tls"])
async def test_a_failed_handshake_is_the_providers_fault(
    rig: SmtpRig, trusted: Certificates, action: Action, encryption: str
) -> None:
    """A TLS handshake that breaks, hangs or is answered with nonsense lets nothing through."""
    server = await rig.server(Script(handshake=action), tls=trusted.server, implicit_tls=encryption == "tls")
    provider = rig.provider(server, encryption=encryption, answer_seconds=ANSWER_SECONDS)
    await assert_words(server, provider, action)
    assert all(mail.tls for mail in server.mails)


@pytest.mark.parametrize("action", ["421 4.7.0 too many", "454 4.7.0 later", "535 5.7.8 wrong", *WORDLESS], ids=named)
async def test_a_refused_login_is_the_providers_fault(rig: SmtpRig, action: Action) -> None:
    """AUTH that is refused, for now or for good, or breaks, fails the mails and nothing is sent without it."""
    server = await rig.server(Script(auth=action), credentials=("user", "secret"))
    provider = rig.provider(server, username="user", password="secret", answer_seconds=ANSWER_SECONDS)
    await assert_words(server, provider, action)
    assert {mail.user for mail in server.mails} == {"user"}


@pytest.mark.parametrize("name", ["büro-pc", "my computer", "", "localhost"])
async def test_a_host_name_that_smtp_cannot_say_is_no_obstacle(
    rig: SmtpRig, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """EHLO wants a name of ASCII without spaces; a machine called otherwise still sends its mail."""
    monkeypatch.setattr("socket.gethostname", lambda: name)
    server = await rig.server()
    outcomes = await send(rig.provider(server), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)


async def test_one_batch_after_another_tries_again_for_itself(rig: SmtpRig) -> None:
    """A failed opening is not remembered: each batch asks anew, with one connection and no more."""
    server = await rig.server(Script(greeting="421 4.3.2 too busy"))
    provider = rig.provider(server, connections=5)
    for number in range(3):
        await send(provider, make_mails(10, 100 * number), RecordingHandOver())
    assert len(server.connections) == 3


UNREADABLE_WORDS = "Zugriff f\udcfcr Fremde gesperrt"  # Latin-1 on the wire


@pytest.mark.parametrize(
    ("script", "options"),
    [
        (Script(greeting=f"554 5.7.1 {UNREADABLE_WORDS}"), {}),
        (Script(ehlo=f"550 5.7.1 {UNREADABLE_WORDS}", helo=f"550 5.7.1 {UNREADABLE_WORDS}"), {}),
        (Script(auth=f"535 5.7.8 {UNREADABLE_WORDS}"), {"username": "user", "password": "secret"}),
    ],
    ids=["greeting", "ehlo", "auth"],
)
async def test_words_that_are_not_utf8_can_still_be_journaled(
    rig: SmtpRig, script: Script, options: dict[str, Any]
) -> None:
    """Servers speak Latin-1; what they said becomes text that Postgres can store."""
    server = await rig.server(script, credentials=("user", "secret"))
    hand_over = RecordingHandOver()
    hand_over.begin(mails := make_mails(1))
    await rig.provider(server, **options).send(mails, hand_over)
    outcome = hand_over.outcomes[1]
    assert isinstance(outcome, Failed)
    assert "Zugriff" in outcome.answer
    assert is_storable(outcome.answer)


@pytest.mark.parametrize(
    "line", ["SIZE", "SIZE many", "SIZE \u00b2", "SIZE " + "9" * 5000, "SIZE -1"], ids=lambda line: line[:8]
)
async def test_a_size_that_makes_no_sense_is_no_limit(rig: SmtpRig, line: str) -> None:
    """Whatever stands behind SIZE, the mail goes."""
    server = await rig.server(Script(ehlo=f"250-scripted.test\n250 {line}"))
    outcomes = await send(rig.provider(server), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
