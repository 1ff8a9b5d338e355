"""SMTP: a batch on one connection, and trouble with one of its mails: the others go, each once."""

import asyncio
from typing import Any

import pytest

from lab.smtp_script import Action, Context, Delay, Drop, DropMid, Garbage, Script
from tests.providers.hand_over import RecordingHandOver, assert_books, heard, send
from tests.providers.mails import make_mails, seq_of_address
from tests.providers.services import SmtpRig, accepted_of, contents_of
from worker.job import Accepted, Failed, NotSent, Outcome, Refused, Unknown

COUNT = 6  # a window for one connection, so that all are in hand from the start


def only(number: int, action: Any) -> Any:
    """A step that does this for one mail, and for that one only the first time."""
    seen: set[int] = set()

    def step(context: Context) -> Any:
        seq = seq_of_address(context.sender)
        if seq != number or seq in seen:
            return None
        seen.add(seq)
        return action

    return step


async def run(rig: SmtpRig, extensions: tuple[str, ...], script: Script) -> tuple[dict[int, Outcome], int]:
    """Send a batch over one connection at a time; returns the outcomes and how many connections it took."""
    server = await rig.server(script, extensions=extensions)
    outcomes = await send(rig.provider(server), make_mails(COUNT), RecordingHandOver())
    assert_books(outcomes, contents_of(server), accepted_of(server))
    return outcomes, len(server.connections)


def assert_only(outcomes: dict[int, Outcome], number: int, kind: type[Outcome]) -> None:
    """That mail came to this, and all others were accepted."""
    expected = dict.fromkeys(range(1, COUNT + 1), Accepted) | {number: kind}
    assert {seq: type(outcome) for seq, outcome in outcomes.items()} == expected


@pytest.mark.parametrize("number", [1, 3, COUNT])
@pytest.mark.parametrize("action", [Drop(), Drop(reset=True), Garbage()], ids=["drop", "reset", "garbage"])
async def test_a_lost_content_is_one_doubt_and_the_rest_goes_over_another_connection(
    rig: SmtpRig, extensions: tuple[str, ...], number: int, action: Action
) -> None:
    """The mail whose content was out is Unknown; the envelope behind it was not sent and goes elsewhere."""
    outcomes, connections = await run(rig, extensions, Script(content=only(number, action)))
    assert_only(outcomes, number, Unknown)
    assert connections == (1 if number == COUNT else 2)


@pytest.mark.parametrize("number", [1, 3, COUNT])
async def test_a_content_cut_in_the_middle_is_one_doubt(rig: SmtpRig, extensions: tuple[str, ...], number: int) -> None:
    """The same when the connection ends before the final dot was read."""
    outcomes, _ = await run(rig, extensions, Script(body=only(number, DropMid())))
    assert_only(outcomes, number, Unknown)


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
@pytest.mark.parametrize("number", [1, 3, COUNT])
async def test_a_lost_envelope_costs_no_mail(rig: SmtpRig, extensions: tuple[str, ...], number: int, step: str) -> None:
    """A connection that ends in an envelope, right behind a content or not, costs a connection and nothing else."""
    outcomes, connections = await run(rig, extensions, Script(**{step: only(number, Drop())}))
    assert {type(outcome) for outcome in outcomes.values()} <= {Accepted, Unknown}
    # The answer to the content before may have been lost with the connection; nothing else may.
    assert [seq for seq, outcome in outcomes.items() if isinstance(outcome, Unknown)] in ([], [number - 1])
    assert connections == 2


@pytest.mark.parametrize(
    ("step", "reply", "kind"),
    [
        ("mail", "451 4.3.0 later", Failed),
        ("mail", "550 5.7.1 no", Failed),
        ("rcpt", "450 4.2.1 later", Failed),
        ("rcpt", "550 5.1.1 no", Refused),
        ("data", "451 4.3.0 later", Failed),
        ("content", "451 4.3.0 later", Failed),
        ("content", "554 5.7.1 no", Refused),
    ],
)
@pytest.mark.parametrize("number", [1, 3, COUNT])
async def test_a_refusal_in_the_middle_of_a_batch_stays_with_its_mail(
    rig: SmtpRig, extensions: tuple[str, ...], number: int, step: str, reply: str, kind: type[Outcome]
) -> None:
    """The replies of a pipelined group are not mixed up, and the connection goes on."""
    outcomes, connections = await run(rig, extensions, Script(**{step: only(number, reply)}))
    assert_only(outcomes, number, kind)
    assert connections == 1


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "content"])
@pytest.mark.parametrize("number", [1, 3, COUNT])
async def test_421_ends_the_connection_and_not_the_batch(
    rig: SmtpRig, extensions: tuple[str, ...], number: int, step: str
) -> None:
    """The mail that met 421 has failed by the provider's fault; the others go over another connection."""
    outcomes, _ = await run(rig, extensions, Script(**{step: only(number, "421 4.3.2 shutting down")}))
    assert_only(outcomes, number, Failed)
    outcome = outcomes[number]
    assert isinstance(outcome, Failed)
    assert outcome.is_providers_fault
    assert "421 4.3.2 shutting down" in outcome.answer


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "content"])
async def test_after_421_a_connection_takes_no_more_mails_though_it_stays_open(
    rig: SmtpRig, extensions: tuple[str, ...], step: str
) -> None:
    """A server that says goodbye and does not go is left, with QUIT."""
    farewell = Garbage(b"421 4.3.2 shutting down, some time\r\n")
    server = await rig.server(Script(**{step: only(1, farewell)}), extensions=extensions)
    provider = rig.provider(server)
    first = await send(provider, make_mails(1), RecordingHandOver())
    second = await send(provider, make_mails(2, 2), RecordingHandOver())
    assert isinstance(first[1], Failed)
    assert first[1].is_providers_fault
    assert {type(outcome) for outcome in second.values()} == {Accepted}
    assert {mail.connection for mail in server.accepted} == {2}
    assert server.connections[0].ended == "quit"


async def test_a_refused_reset_costs_the_connection_only(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A server that cannot forget a refused mail gets the next ones over a new connection or the old, each once."""
    script = Script(rcpt=only(2, "550 5.1.1 no"), rset="500 5.5.1 what")
    outcomes, _ = await run(rig, extensions, script)
    assert_only(outcomes, 2, Refused)


async def test_every_mail_of_a_batch_may_be_refused(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """One refusal after another, in one connection, each with its own words."""
    outcomes, connections = await run(
        rig, extensions, Script(rcpt=lambda context: f"550 5.1.1 not {context.recipient}")
    )
    assert outcomes == {seq: Refused(f"550 5.1.1 not r{seq}@example.com") for seq in range(1, COUNT + 1)}
    assert connections == 1


async def test_a_batch_larger_than_the_window_survives_a_bad_server(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Every third content loses its connection: those are in doubt, and all others arrive."""
    server = await rig.server(
        Script(content=lambda context: Drop() if seq_of_address(context.sender) % 3 == 0 else None),
        extensions=extensions,
    )
    outcomes = await send(rig.provider(server, connections=2), make_mails(30), RecordingHandOver())
    assert_books(outcomes, contents_of(server), accepted_of(server))
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Unknown)} == set(range(3, 31, 3))
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes.values()) == 20


async def test_the_deadline_of_one_batch_is_no_doubt_for_another(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Behind a content that waits for its answer, an envelope whose batch runs out of time ends alone."""
    started = asyncio.Event()

    def data(context: Context) -> Action:
        started.set()
        # Time enough for the other batch to be next in line when the content goes out.
        return Delay(0.15) if context.sender == "s1@example.org" else None

    server = await rig.server(Script(data=data, content=Delay(1.0)), extensions=extensions)
    provider = rig.provider(server)
    long = asyncio.create_task(send(provider, make_mails(1), RecordingHandOver()))
    await heard(started)
    outcomes = await send(provider, make_mails(1, 2), RecordingHandOver(seconds=0.6))
    assert isinstance(outcomes[2], NotSent)
    assert isinstance((await long)[1], Accepted)


async def test_urgent_mail_passes_bulk_at_the_connection(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Bulk mails that are journaled and wait for the connection let a transactional batch go first."""
    started = asyncio.Event()

    def data(context: Context) -> Action:
        started.set()
        return Delay(0.15) if context.sender == "s1@example.org" else None

    server = await rig.server(Script(data=data), extensions=extensions)
    provider = rig.provider(server)
    bulk = asyncio.create_task(send(provider, make_mails(3), RecordingHandOver()))
    await heard(started)
    urgent = await send(provider, make_mails(3, 11), RecordingHandOver(is_urgent=True))
    assert {type(outcome) for outcome in urgent.values()} == {Accepted}
    await bulk
    assert [seq_of_address(mail.sender) for mail in server.mails] == [1, 11, 12, 13, 2, 3]


async def test_a_flood_of_urgent_mail_does_not_stop_bulk(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A long transactional batch lets bulk mails through on its way, not only behind its end."""
    started = asyncio.Event()

    def data(context: Context) -> Action:
        started.set()
        return Delay(0.15) if context.sender == "s1@example.org" else None

    server = await rig.server(Script(data=data), extensions=extensions)
    provider = rig.provider(server)
    bulk = asyncio.create_task(send(provider, make_mails(3), RecordingHandOver()))
    await heard(started)
    await send(provider, make_mails(20, 11), RecordingHandOver(is_urgent=True))
    await bulk
    order = [seq_of_address(mail.sender) for mail in server.mails]
    assert order.index(3) < order.index(30)
