"""The router: which mails go to the fallback, under which number and why; and which never do."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from lab.scripted_smtp import ScriptedServer
from lab.smtp_offer import DEFAULT_EXTENSIONS
from lab.smtp_script import Context, Delay, Drop, Script
from lab.unlimited import free_way
from tests.providers.hand_over import RecordingHandOver, Tally
from tests.providers.mails import make_mail, make_mails, seq_of_address
from tests.providers.services import SmtpRig, contents_of
from worker.job import Accepted, Failed, Mail, NotSent, Outcome, Refused, Unknown
from worker.providers.router import Patience, Router

# No breaker opens.
PATIENCE = Patience(0, 30.0, 60.0)


@dataclass
class Run:
    """What one batch came to: the outcomes, and the passages in order."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    passages: list[tuple[str, RecordingHandOver]] = field(default_factory=list)

    def names(self) -> list[str]:
        """The providers that were asked, in order."""
        return [name for name, _ in self.passages]


async def route(router: Router, mails: list[Mail], keeps: dict[str, set[int]] | None = None) -> Run:
    """Send a batch through a router; `keeps` names mails whose next number the journal knows already."""
    run = Run()
    tally = Tally()

    def open_hand_over(name: str) -> RecordingHandOver:
        hand_over = RecordingHandOver(tally)
        hand_over.begin(mails)
        hand_over.on_answer = run.outcomes.__setitem__
        hand_over.keeps = (keeps or {}).get(name, set())
        run.passages.append((name, hand_over))
        return hand_over

    await router.send(mails, open_hand_over, run.outcomes, free_way())
    assert tally.breaches == []
    assert tally.open == 0
    return run


async def make_router(
    rig: SmtpRig,
    primary: Script,
    fallback: Script = Script(),  # noqa: B008 (it is frozen)
    **options: Any,
) -> tuple[Router, ScriptedServer, ScriptedServer]:
    """A router with two providers, and their servers; the options are for the primary's provider."""
    servers = [await rig.server(script, credentials=("user", "secret")) for script in (primary, fallback)]
    providers = [rig.provider(servers[0], name="smtp", **options), rig.provider(servers[1], name="smtp_fallback")]
    return Router(providers, PATIENCE), servers[0], servers[1]


@pytest.mark.parametrize(
    ("script", "options", "words", "attempt"),
    [
        (Script(greeting="421 4.3.2 too busy"), {}, "421 4.3.2 too busy", 1),
        (Script(greeting="554 5.7.1 not you"), {}, "554 5.7.1 not you", 1),
        (Script(auth="535 5.7.8 wrong"), {"username": "user", "password": "guessed"}, "535 5.7.8 wrong", 1),
        (Script(), {"encryption": "starttls"}, "STARTTLS", 1),
        (Script(mail="421 4.3.2 shutting down"), {}, "421 4.3.2 shutting down", 2),
        (Script(mail="451 4.7.1 sending limit"), {}, "451 4.7.1 sending limit", 2),
        (Script(mail="550 5.7.1 sender unwelcome"), {}, "550 5.7.1 sender unwelcome", 2),
        (Script(rcpt="421 4.4.5 too busy"), {}, "421 4.4.5 too busy", 2),
        (Script(content="421 4.3.0 shutting down"), {}, "421 4.3.0 shutting down", 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_failure_of_the_provider_goes_to_the_fallback(
    rig: SmtpRig, script: Script, options: dict[str, Any], words: str, attempt: int
) -> None:
    """The fallback gets the batch, with the reason in words, and under the next number if the first was journaled."""
    router, primary, fallback = await make_router(rig, script, **options)
    run = await route(router, make_mails(3))
    assert {type(outcome) for outcome in run.outcomes.values()} == {Accepted}
    assert primary.accepted == []
    assert contents_of(fallback) == {1: 1, 2: 1, 3: 1}
    (_, first), (_, second) = run.passages
    journaled = attempt == 2
    assert first.attempts == (dict.fromkeys((1, 2, 3), 1) if journaled else {})
    assert first.reasons == (dict.fromkeys((1, 2, 3), "primary smtp") if journaled else {})
    assert second.attempts == dict.fromkeys((1, 2, 3), attempt)
    for reason in second.reasons.values():
        assert reason.startswith("primary smtp: ")
        assert reason.endswith("; fallback smtp_fallback")
        assert words in reason


async def test_a_primary_that_is_down_goes_to_the_fallback(rig: SmtpRig) -> None:
    """A refused connection is a reason, and names the address that nobody answers."""
    router, primary, fallback = await make_router(rig, Script())
    await primary.stop()
    run = await route(router, make_mails(3))
    assert contents_of(fallback) == {1: 1, 2: 1, 3: 1}
    _, second = run.passages[1]
    assert second.attempts == {1: 1, 2: 1, 3: 1}
    assert all(f"127.0.0.1:{primary.port}" in reason for reason in second.reasons.values())


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (Script(), Accepted),
        (Script(rcpt="550 5.1.1 no such mailbox"), Refused),
        (Script(rcpt="450 4.2.1 greylisted"), Failed),
        (Script(content="554 5.7.1 spam"), Refused),
        (Script(content="452 4.3.1 later"), Failed),
        (Script(content=Drop()), Unknown),
    ],
    ids=["accepted", "refused", "busy", "refused content", "busy content", "unknown"],
)
async def test_what_is_no_failure_of_the_provider_stays_with_it(
    rig: SmtpRig, script: Script, kind: type[Outcome]
) -> None:
    """A refusal would be repeated, a busy recipient retried, a doubt doubled: the fallback is not even connected to."""
    router, _, fallback = await make_router(rig, script)
    mails = make_mails(3)
    run = await route(router, mails)
    assert [type(run.outcomes[seq]) for seq in (1, 2, 3)] == [kind] * 3
    assert run.names() == ["smtp"]
    assert fallback.connections == []
    assert {mail.attempt for mail in mails} == {1}


async def test_a_mail_that_was_not_sent_stays_with_the_primary(rig: SmtpRig) -> None:
    """A stop is not the primary's fault."""
    router, _, fallback = await make_router(rig, Script())
    outcomes: dict[int, Outcome] = {}
    mails = make_mails(2)

    def open_hand_over(_: str) -> RecordingHandOver:
        hand_over = RecordingHandOver()
        hand_over.begin(mails)
        hand_over.is_stopped = True
        hand_over.on_answer = outcomes.__setitem__
        return hand_over

    await router.send(mails, open_hand_over, outcomes, free_way())
    assert {type(outcome) for outcome in outcomes.values()} == {NotSent}
    assert fallback.connections == []


async def test_only_the_failed_mails_of_a_batch_go_to_the_fallback(rig: SmtpRig) -> None:
    """In a batch where every mail fares differently, each arrives at one server at most."""

    def trouble(context: Context) -> str | None:
        return {2: "550 5.1.1 no", 3: "450 4.2.1 later"}.get(seq_of_address(context.sender))

    script = Script(
        rcpt=trouble,
        mail=lambda context: "451 4.3.0 no" if context.sender in ("s4@example.org", "s6@example.org") else None,
        content=lambda context: Drop() if context.sender == "s5@example.org" else None,
    )
    router, primary, fallback = await make_router(rig, script)
    run = await route(router, make_mails(7))
    kinds = [Accepted, Refused, Failed, Accepted, Unknown, Accepted, Accepted]
    assert [type(run.outcomes[seq]) for seq in range(1, 8)] == kinds
    assert contents_of(primary) == {1: 1, 5: 1, 7: 1}
    assert contents_of(fallback) == {4: 1, 6: 1}
    assert run.passages[1][1].attempts == {4: 2, 6: 2}


@pytest.mark.parametrize(
    ("script", "last"),
    [
        (Script(mail="452 4.3.1 second words"), Failed("452 4.3.1 second words", is_providers_fault=True)),
        (Script(rcpt="550 5.1.1 second words"), Refused("550 5.1.1 second words")),
        (Script(content="450 4.2.1 second words"), Failed("450 4.2.1 second words", is_providers_fault=False)),
    ],
    ids=["failed", "refused", "busy"],
)
async def test_when_both_fail_the_last_outcome_counts(rig: SmtpRig, script: Script, last: Outcome) -> None:
    """There is no third way out: what the fallback said decides, under its number."""
    router, _, _ = await make_router(rig, Script(mail="451 4.3.0 first words"), script)
    mails = make_mails(2)
    run = await route(router, mails)
    assert run.outcomes == {1: last, 2: last}
    assert run.names() == ["smtp", "smtp_fallback"]
    assert [(mail.attempt, mail.is_journaled) for mail in mails] == [(2, True), (2, True)]


async def test_a_doubt_at_the_fallback_is_a_doubt(rig: SmtpRig) -> None:
    """The fallback's lost content is Unknown as anybody's."""
    router, _, _ = await make_router(rig, Script(mail="451 4.3.0 no"), Script(content=Drop()))
    run = await route(router, make_mails(1))
    assert isinstance(run.outcomes[1], Unknown)


async def test_when_nobody_answers_no_number_is_used(rig: SmtpRig) -> None:
    """Two providers that are down cost no row in the journal."""
    router, primary, fallback = await make_router(rig, Script())
    await primary.stop()
    await fallback.stop()
    mails = make_mails(2)
    run = await route(router, mails)
    for outcome in run.outcomes.values():
        assert isinstance(outcome, Failed)
        assert str(fallback.port) in outcome.answer
    assert [(mail.attempt, mail.is_journaled) for mail in mails] == [(1, False), (1, False)]


async def test_a_fallback_that_is_down_is_asked_under_the_next_number(rig: SmtpRig) -> None:
    """The primary's journaled failure used number 1; what is settled next must be number 2, not journaled yet."""
    router, _, fallback = await make_router(rig, Script(mail="451 4.3.0 no"))
    await fallback.stop()
    mails = make_mails(1)
    run = await route(router, mails)
    assert isinstance(run.outcomes[1], Failed)
    assert [(mail.attempt, mail.is_journaled) for mail in mails] == [(2, False)]


async def test_a_mail_that_the_journal_keeps_at_the_fallback_has_no_outcome(rig: SmtpRig) -> None:
    """The primary's failure does not stand in for the answer that the journal has to give."""
    router, _, fallback = await make_router(rig, Script(mail="451 4.3.0 no"))
    run = await route(router, make_mails(2), {"smtp_fallback": {1}})
    assert {seq: type(outcome) for seq, outcome in run.outcomes.items()} == {2: Accepted}
    assert contents_of(fallback) == {2: 1}


async def test_without_a_fallback_a_failure_is_final(rig: SmtpRig) -> None:
    """One provider alone is asked once."""
    server = await rig.server(Script(mail="451 4.3.0 no"))
    run = await route(Router([rig.provider(server)], PATIENCE), make_mails(2))
    assert run.names() == ["smtp"]
    assert run.outcomes == dict.fromkeys((1, 2), Failed("451 4.3.0 no", is_providers_fault=True))


async def test_each_batch_begins_at_the_primary_again(rig: SmtpRig) -> None:
    """A fallback is for the batch at hand; when the primary is back, so are its mails."""
    router, primary, fallback = await make_router(rig, Script())
    await primary.stop()
    await route(router, make_mails(2))
    await primary.start()
    run = await route(router, make_mails(2, 11))
    assert run.names() == ["smtp"]
    assert (contents_of(primary), contents_of(fallback)) == ({11: 1, 12: 1}, {1: 1, 2: 1})


async def test_a_mail_that_the_primary_cannot_carry_goes_to_the_fallback(rig: SmtpRig) -> None:
    """A UTF-8 address needs SMTPUTF8; where the primary lacks it, the fallback may have it."""
    offered = tuple(line for line in DEFAULT_EXTENSIONS if line != "SMTPUTF8")
    primary, fallback = await rig.server(extensions=offered), await rig.server()
    router = Router([rig.provider(primary), rig.provider(fallback, name="smtp_fallback")], PATIENCE)
    run = await route(router, [make_mail(1, recipient="jörg@example.com"), make_mail(2)])
    assert {type(outcome) for outcome in run.outcomes.values()} == {Accepted}
    assert (contents_of(primary), contents_of(fallback)) == ({2: 1}, {1: 1})


async def test_each_mail_goes_to_the_fallback_for_its_own_reason(rig: SmtpRig) -> None:
    """The journal's reason for an attempt is true of that mail, not of the first one that failed."""
    replies = {1: "451 4.3.0 sending limit", 2: "550 5.7.1 sender unwelcome"}
    router, _, _ = await make_router(rig, Script(mail=lambda context: replies.get(seq_of_address(context.sender))))
    run = await route(router, make_mails(2))
    _, second = run.passages[1]
    assert second.reasons == {seq: f"primary smtp: {reply}; fallback smtp_fallback" for seq, reply in replies.items()}


async def test_words_that_differ_by_mail_do_not_make_the_fallback_slow(rig: SmtpRig) -> None:
    """Large providers put an id of their own into each reply: the mails still go to the fallback side by side."""
    primary = await rig.server(Script(mail=lambda context: f"451 4.7.0 try later {context.sender} - gsmtp"))
    fallback = await rig.server(Script(content=Delay(0.02)))
    router = Router([rig.provider(primary), rig.provider(fallback, name="smtp_fallback", connections=4)], PATIENCE)
    run = await route(router, make_mails(12))
    assert {type(outcome) for outcome in run.outcomes.values()} == {Accepted}
    assert contents_of(fallback) == dict.fromkeys(range(1, 13), 1)
    assert len(fallback.connections) > 1


async def test_closing_the_router_closes_all(rig: SmtpRig) -> None:
    """No provider keeps a connection."""
    router, primary, fallback = await make_router(rig, Script(mail="451 4.3.0 no"))
    await route(router, make_mails(1))
    await router.close()
    await rig.close()
    assert [record.ended for server in (primary, fallback) for record in server.connections] == ["quit", "quit"]
