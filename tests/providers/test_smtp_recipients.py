"""SMTP: several recipients of one mail. The recipient decides the job; a refused cc or bcc is noted."""

import pytest

from lab.smtp_script import Action, Context, Drop, Script
from tests.providers.hand_over import RecordingHandOver, send
from tests.providers.mails import make_mail
from tests.providers.services import SmtpRig
from worker.job import Accepted, Failed, Mail, Options, Refused


def mail_to_many(seq: int = 1) -> Mail:
    """To r<seq>, cc to c1 and c2, bcc to b1, each at a domain of its own."""
    return make_mail(
        seq,
        options=Options(
            from_address=f"s{seq}@example.org",
            cc=("c1@copy1.example", "Carl <c2@copy2.example>"),
            bcc=("b1@blind.example",),
        ),
    )


def refuse(replies: dict[str, str]) -> Script:
    """A script that answers RCPT for some addresses with a refusal."""
    return Script(rcpt=lambda context: replies.get(context.recipient))


async def test_all_recipients_are_on_the_envelope_and_bcc_is_nowhere_else(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """cc and bcc are envelope recipients; the content names the cc and not the bcc."""
    server = await rig.server(extensions=extensions)
    outcomes = await send(rig.provider(server), [mail_to_many()], RecordingHandOver())
    assert isinstance(outcomes[1], Accepted)
    assert "refused" not in outcomes[1].answer
    (mail,) = server.mails
    assert mail.recipients == ("r1@example.com", "c1@copy1.example", "c2@copy2.example", "b1@blind.example")
    assert b"c1@copy1.example" in mail.content
    assert b"b1@blind.example" not in mail.content


@pytest.mark.parametrize("reply", ["550 5.1.1 no such mailbox", "450 4.2.1 greylisted"])
@pytest.mark.parametrize("refused", ["c1@copy1.example", "c2@copy2.example", "b1@blind.example"])
async def test_a_refused_copy_is_noted_and_the_rest_goes(
    rig: SmtpRig, extensions: tuple[str, ...], refused: str, reply: str
) -> None:
    """The job is sent; the answer says which copy was refused, by domain only, and in which words."""
    server = await rig.server(refuse({refused: reply}), extensions=extensions)
    outcomes = await send(rig.provider(server), [mail_to_many()], RecordingHandOver())
    outcome = outcomes[1]
    assert isinstance(outcome, Accepted)
    assert reply in outcome.answer
    assert refused.partition("@")[2] in outcome.answer
    assert refused not in outcome.answer
    (mail,) = server.mails
    assert set(mail.recipients) == {"r1@example.com", "c1@copy1.example", "c2@copy2.example", "b1@blind.example"} - {
        refused
    }


@pytest.mark.parametrize("others_too", [False, True], ids=["alone", "with all the others"])
async def test_a_refused_recipient_decides_though_copies_could_go(
    rig: SmtpRig, extensions: tuple[str, ...], others_too: bool
) -> None:
    """Nobody gets a mail whose recipient was refused, and the connection, or a new one, takes the next mail."""
    replies = {"r1@example.com": "550 5.1.1 no such mailbox"}
    if others_too:
        replies |= dict.fromkeys(("c1@copy1.example", "c2@copy2.example", "b1@blind.example"), "450 4.7.1 later")
    server = await rig.server(refuse(replies), extensions=extensions)
    server_mails = [mail_to_many(1), make_mail(2)]
    outcomes = await send(rig.provider(server), server_mails, RecordingHandOver())
    assert outcomes[1] == Refused("550 5.1.1 no such mailbox")
    assert isinstance(outcomes[2], Accepted)
    assert [mail.sender for mail in server.mails] == ["s2@example.org"]


async def test_a_recipient_that_must_wait_decides_though_copies_could_go(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """A retry must not bring the copies a second mail: none goes out now."""
    server = await rig.server(refuse({"r1@example.com": "451 4.7.1 greylisted"}), extensions=extensions)
    outcomes = await send(rig.provider(server), [mail_to_many(), make_mail(2)], RecordingHandOver())
    assert outcomes[1] == Failed("451 4.7.1 greylisted", is_providers_fault=False)
    assert [mail.sender for mail in server.mails] == ["s2@example.org"]


async def test_refused_copies_do_not_leak_into_the_next_mail(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """The notes of one mail are not told of another on the same connection."""
    server = await rig.server(
        refuse({"c1@copy1.example": "550 5.1.1 no", "r3@example.com": "550 5.1.1 gone"}), extensions=extensions
    )
    mails = [mail_to_many(1), make_mail(2), make_mail(3), make_mail(4)]
    outcomes = await send(rig.provider(server), mails, RecordingHandOver())
    assert [type(outcomes[seq]) for seq in (1, 2, 3, 4)] == [Accepted, Accepted, Refused, Accepted]
    for seq in (2, 4):
        outcome = outcomes[seq]
        assert isinstance(outcome, Accepted)
        assert "refused" not in outcome.answer


async def test_a_copy_refused_on_a_lost_connection_is_not_noted(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """What counts is the connection that took the mail: there the copy was accepted."""

    def rcpt(context: Context) -> Action:
        is_first = context.connection == 1 and context.recipient == "c1@copy1.example"
        return "450 4.2.1 greylisted" if is_first else None

    server = await rig.server(
        Script(rcpt=rcpt, data=lambda context: Drop() if context.connection == 1 else None), extensions=extensions
    )
    outcomes = await send(rig.provider(server), [mail_to_many()], RecordingHandOver())
    outcome = outcomes[1]
    assert isinstance(outcome, Accepted)
    assert [(mail.connection, len(mail.recipients)) for mail in server.mails] == [(2, 4)]
    assert "greylisted" not in outcome.answer
