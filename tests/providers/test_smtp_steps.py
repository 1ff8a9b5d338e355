"""SMTP: one mail, and a server that misbehaves at one step of it, with and without PIPELINING."""

from typing import Any

import pytest

from lab.scripted_smtp import ScriptedServer
from lab.smtp_script import Action, Delay, Drop, DropMid, Garbage, Script, Stall
from tests.providers.hand_over import RecordingHandOver, assert_books, send, words_of
from tests.providers.mails import make_mail, make_mails
from tests.providers.services import SmtpRig, accepted_of, contents_of
from worker.job import Accepted, Failed, NotSent, Outcome, Refused, Unknown
from worker.providers.smtp import SmtpProvider

WORDLESS: tuple[Action, ...] = (Drop(), Drop(reset=True), Stall(), Garbage())
ANSWER_SECONDS = 0.2


def named(value: object) -> str:
    """A test's name for a parameter."""
    return value if isinstance(value, str) else type(value).__name__ + ("-reset" if value == Drop(reset=True) else "")


async def outcome_of_one(provider: SmtpProvider, server: ScriptedServer) -> Outcome:
    """What becomes of one mail; afterwards the server is itself again, and the next mails go."""
    outcomes = await send(provider, make_mails(1), RecordingHandOver())
    assert_books(outcomes, contents_of(server), accepted_of(server))
    server.script = Script()
    again = await send(provider, make_mails(2, 2), RecordingHandOver())
    assert {type(outcome) for outcome in again.values()} == {Accepted}
    assert accepted_of(server).keys() - outcomes.keys() == {2, 3}
    return outcomes[1]


def script_at(step: str, action: Any) -> Script:
    """A script that does this at one step."""
    return Script(**{step: action})


def impatient(rig: SmtpRig, server: ScriptedServer) -> SmtpProvider:
    """A provider whose patience a test can wait for."""
    return rig.provider(server, answer_seconds=ANSWER_SECONDS, idle_seconds=ANSWER_SECONDS)


@pytest.mark.parametrize(
    ("step", "reply", "expected"),
    [
        ("mail", "421 4.3.2 shutting down", Failed("", is_providers_fault=True)),
        ("mail", "451 4.3.0 later", Failed("", is_providers_fault=True)),
        ("mail", "550 5.7.1 sender unwelcome", Failed("", is_providers_fault=True)),
        ("mail", "552 5.3.4 too large", Failed("", is_providers_fault=True)),
        ("rcpt", "421 4.4.5 too busy", Failed("", is_providers_fault=True)),
        ("rcpt", "450 4.2.1 greylisted", Failed("", is_providers_fault=False)),
        ("rcpt", "452 4.2.2 mailbox full", Failed("", is_providers_fault=False)),
        ("rcpt", "550 5.1.1 no such mailbox", Refused("")),
        ("rcpt", "554 5.7.1 listed", Refused("")),
        ("data", "421 4.3.2 shutting down", Failed("", is_providers_fault=True)),
        ("content", "421 4.3.0 shutting down", Failed("", is_providers_fault=True)),
        ("content", "451 4.7.1 greylisted", Failed("", is_providers_fault=False)),
        ("content", "452 4.3.1 disk full", Failed("", is_providers_fault=False)),
        ("content", "552 5.3.4 too large", Refused("")),
        ("content", "554 5.7.1 spam", Refused("")),
    ],
)
async def test_a_refusal_in_words(
    rig: SmtpRig, extensions: tuple[str, ...], step: str, reply: str, expected: Outcome
) -> None:
    """Each reply code at each step has its outcome and its scope, and the server's words and codes are in it."""
    server = await rig.server(script_at(step, reply), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert type(outcome) is type(expected)
    assert reply in words_of(outcome)
    if isinstance(outcome, Failed) and isinstance(expected, Failed):
        assert outcome.is_providers_fault == expected.is_providers_fault


@pytest.mark.parametrize("reply", ["451 4.3.0 later", "554 5.5.1 no"])
async def test_a_refused_data_is_a_failure(rig: SmtpRig, extensions: tuple[str, ...], reply: str) -> None:
    """A server that takes the envelope and not the content has definitely not taken the mail."""
    server = await rig.server(Script(data=reply), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert isinstance(outcome, Failed)
    assert reply in outcome.answer
    assert contents_of(server)[1] == 0


@pytest.mark.parametrize("reply", ["550-5.1.1 The mailbox\n550-5.1.1 r1@example.com\n550 5.1.1 does not exist"])
@pytest.mark.parametrize("step", ["rcpt", "content"])
async def test_all_lines_of_an_answer_are_kept(
    rig: SmtpRig, extensions: tuple[str, ...], step: str, reply: str
) -> None:
    """A refusal of several lines is told whole."""
    server = await rig.server(script_at(step, reply), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert isinstance(outcome, Refused)
    for words in ("550", "The mailbox", "r1@example.com", "does not exist"):
        assert words in outcome.answer


async def test_the_words_of_acceptance_are_kept(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """The queue id of the server that took a mail is in the answer, beside our Message-ID."""
    server = await rig.server(Script(content="250 2.0.0 Ok: queued as 4Xy"), extensions=extensions)
    outcomes = await send(rig.provider(server), make_mails(1), RecordingHandOver())
    outcome = outcomes[1]
    assert isinstance(outcome, Accepted)
    assert outcome.answer == "250 2.0.0 Ok: queued as 4Xy"
    assert f"Message-ID: {outcome.message_id}\r\n".encode() in server.mails[0].content


@pytest.mark.parametrize("action", WORDLESS, ids=named)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_an_envelope_without_an_answer_is_the_providers_fault(
    rig: SmtpRig, extensions: tuple[str, ...], step: str, action: Action
) -> None:
    """Lost again on a second connection, the mail has failed, and no content was ever sent."""
    server = await rig.server(script_at(step, action), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert isinstance(outcome, Failed)
    assert outcome.is_providers_fault
    assert contents_of(server)[1] == 0


@pytest.mark.parametrize("action", WORDLESS, ids=named)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_an_envelope_that_was_lost_goes_over_another_connection(
    rig: SmtpRig, extensions: tuple[str, ...], step: str, action: Action
) -> None:
    """One bad connection does not fail a mail of which nothing but the envelope was out."""
    script = script_at(step, lambda context: action if context.connection == 1 else None)
    server = await rig.server(script, extensions=extensions)
    outcomes = await send(impatient(rig, server), make_mails(1), RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert [mail.connection for mail in server.mails] == [2]


@pytest.mark.parametrize("action", [*WORDLESS, Delay(0.05, Drop())], ids=named)
async def test_a_content_without_an_answer_is_unknown(
    rig: SmtpRig, extensions: tuple[str, ...], action: Action
) -> None:
    """After the final dot the mail may be on its way: it is in doubt, and not sent again by itself."""
    server = await rig.server(Script(content=action), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert isinstance(outcome, Unknown)
    assert contents_of(server)[1] == 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("after", [0, None], ids=["at its start", "in the middle"])
async def test_a_connection_lost_within_the_content_is_unknown(
    rig: SmtpRig, extensions: tuple[str, ...], after: int | None, reset: bool
) -> None:
    """We cannot know how much of a content that was written has arrived."""
    server = await rig.server(Script(body=DropMid(after, reset=reset)), extensions=extensions)
    outcome = await outcome_of_one(impatient(rig, server), server)
    assert isinstance(outcome, Unknown)
    assert contents_of(server)[1] == 0


@pytest.mark.parametrize(
    "flood", [b"x" * 20_000, b"250-" + b"y" * 20_000, b"250 a\r\n" * 500], ids=lambda f: f[:5].decode()
)
async def test_a_flood_instead_of_an_answer_ends_the_connection(
    rig: SmtpRig, extensions: tuple[str, ...], flood: bytes
) -> None:
    """Endless lines and replies that nobody asked for are noticed, and cost the mail its envelope at most."""
    server = await rig.server(Script(rcpt=Garbage(flood)), extensions=extensions)
    outcomes = await send(impatient(rig, server), make_mails(1), RecordingHandOver())
    assert_books(outcomes, contents_of(server), accepted_of(server))
    assert not isinstance(outcomes[1], Accepted | NotSent)


async def test_a_mail_that_must_not_go_after_data_costs_the_connection(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """Stopped while DATA is answered, the mail is taken back by closing: the server gets no content, not even none."""
    hand_over = RecordingHandOver()

    def stop(_: object) -> None:
        hand_over.is_stopped = True

    server = await rig.server(Script(data=stop), extensions=extensions)
    provider = rig.provider(server)
    outcomes = await send(provider, make_mails(1), hand_over)
    assert isinstance(outcomes[1], NotSent)
    server.script = Script()
    assert isinstance((await send(provider, make_mails(1, 2), RecordingHandOver()))[2], Accepted)
    assert [(mail.connection, mail.accepted) for mail in server.mails] == [(2, True)]
    assert server.connections[0].ended == "client"


async def test_a_lost_envelope_at_the_deadline_is_not_sent(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A mail whose second envelope is unanswered at the deadline was not sent: nothing has refused it."""
    actions: dict[int, Action] = {1: Drop(), 2: Stall()}
    server = await rig.server(Script(rcpt=lambda context: actions.get(context.connection)), extensions=extensions)
    outcomes = await send(rig.provider(server), make_mails(1), RecordingHandOver(seconds=0.6))
    assert len(server.connections) >= 2
    assert isinstance(outcomes[1], NotSent)


async def test_the_limit_for_an_answer_holds_on_a_new_connection(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """EMAIL_JOB_TIMEOUT_SECONDS frees a hanging connection in time for the next mail, whatever the idle limit."""
    server = await rig.server(
        Script(content=lambda context: Stall() if context.connection == 1 else None), extensions=extensions
    )
    provider = rig.provider(server, answer_seconds=0.3, idle_seconds=600.0)
    outcomes = await send(provider, make_mails(2), RecordingHandOver(seconds=3.0))
    assert isinstance(outcomes[1], Unknown)
    assert isinstance(outcomes[2], Accepted)


async def test_a_slow_answer_within_the_limit_is_waited_for(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A connection that waits for an answer is not idle, however short the idle limit is."""
    server = await rig.server(Script(content=Delay(0.3)), extensions=extensions)
    outcomes = await send(rig.provider(server, idle_seconds=0.1), [make_mail(1)], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
