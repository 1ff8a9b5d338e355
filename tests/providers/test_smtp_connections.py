"""SMTP: the pool of connections. How many, how long, for how many mails."""

import asyncio
from collections import Counter

from lab.scripted_smtp import ScriptedServer
from lab.smtp_script import Action, Context, Delay, Drop, Script, Stall
from tests.providers.hand_over import GUARD_SECONDS, RecordingHandOver, heard, send, turns
from tests.providers.mails import make_mails
from tests.providers.services import SmtpRig
from worker.job import Accepted, NotSent, Outcome


def assert_all_accepted(outcomes: dict[int, Outcome], server: ScriptedServer, count: int) -> None:
    """All of the batch was accepted, and the server has seen that many mails in all."""
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert len(server.accepted) == len(server.mails) == count


async def test_a_connection_serves_batch_after_batch(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Small batches in turn use one connection, though more are allowed."""
    server = await rig.server(extensions=extensions)
    provider = rig.provider(server, connections=5)
    for number in range(1, 6):
        assert_all_accepted(await send(provider, make_mails(1, number), RecordingHandOver()), server, number)
    assert len(server.connections) == 1


async def test_connections_are_opened_up_to_the_limit_and_reused(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """Many batches at once get several connections, never more than allowed, and the next batches open none."""
    # Slow enough for one connection not to take it all.
    server = await rig.server(Script(content=Delay(0.01)), extensions=extensions)
    provider = rig.provider(server, connections=3)
    for first in (1, 1001):
        await asyncio.gather(
            *(send(provider, make_mails(20, first + 100 * number), RecordingHandOver()) for number in range(4))
        )
        assert len(server.connections) == 3
    assert len(server.accepted) == 160
    assert set(Counter(mail.connection for mail in server.mails)) == {1, 2, 3}


async def test_lost_connections_are_replaced_within_the_limit(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """While connections die and are replaced, no more are open at once than allowed."""
    server = await rig.server(extensions=extensions)
    most = 0

    def greeting(_: Context) -> Action:
        nonlocal most
        most = max(most, sum(not record.ended for record in server.connections))
        return None

    server.script = Script(greeting=greeting, content=lambda context: Drop() if context.mail == 3 else Delay(0.005))
    provider = rig.provider(server, connections=3)
    await asyncio.gather(*(send(provider, make_mails(15, 100 * number), RecordingHandOver()) for number in range(1, 4)))
    assert len(server.connections) > 6
    assert most <= 3


async def test_mails_that_are_stopped_before_their_envelope_cost_no_connection(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """Stopped while they wait for the connection, mails are not begun; it takes the next batch."""
    server = await rig.server(extensions=extensions)
    provider = rig.provider(server)
    hand_over = RecordingHandOver()

    def stop() -> None:
        hand_over.is_stopped = True

    hand_over.on_admitted = stop
    stopped = await send(provider, make_mails(6), hand_over)
    assert {type(outcome) for outcome in stopped.values()} == {NotSent}
    assert not any(line.startswith("MAIL") for line in server.connections[0].commands)
    assert_all_accepted(await send(provider, make_mails(6, 11), RecordingHandOver()), server, 6)
    assert len(server.connections) == 1


async def test_a_connection_is_replaced_after_its_mails(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """After SMTP_CONNECTION_MAILS mails a connection says goodbye, and a new one takes the next."""
    server = await rig.server(extensions=extensions)
    outcomes = await send(rig.provider(server, mails=2), make_mails(7), RecordingHandOver())
    assert_all_accepted(outcomes, server, 7)
    assert [mail.connection for mail in server.mails] == [1, 1, 2, 2, 3, 3, 4]
    await turns()
    assert [record.ended for record in server.connections] == ["quit", "quit", "quit", ""]


async def test_refused_mails_count_for_the_limit_too(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A connection that only ever meets refusals is replaced as well."""
    server = await rig.server(Script(rcpt="550 5.1.1 no"), extensions=extensions)
    outcomes = await send(rig.provider(server, mails=2), make_mails(6), RecordingHandOver())
    assert len(outcomes) == 6
    assert len(server.connections) == 3


async def test_an_idle_connection_says_goodbye(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """After SMTP_CONNECTION_IDLE_SECONDS without a mail the connection is closed, and the next mail opens another."""
    said = asyncio.Event()

    def goodbye(_: Context) -> Action:
        said.set()
        return None

    server = await rig.server(Script(quit=goodbye), extensions=extensions)
    provider = rig.provider(server, idle_seconds=0.2)
    assert_all_accepted(await send(provider, make_mails(2), RecordingHandOver()), server, 2)
    async with asyncio.timeout(GUARD_SECONDS):
        await heard(said)
    assert_all_accepted(await send(provider, make_mails(2, 3), RecordingHandOver()), server, 4)
    assert [mail.connection for mail in server.mails][2:] != [1, 1]


async def test_connections_that_the_server_closed_meanwhile_are_replaced(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """A server that was restarted between two batches costs none of the second batch's mails anything."""
    server = await rig.server(extensions=extensions)
    provider = rig.provider(server)
    assert_all_accepted(await send(provider, make_mails(10), RecordingHandOver()), server, 10)
    await server.stop()
    await server.start()
    await turns()
    assert_all_accepted(await send(provider, make_mails(10, 11), RecordingHandOver()), server, 20)


async def test_a_restart_that_is_noticed_only_by_writing_costs_no_mail(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """The same when the batch begins before the end of the old connections has been read."""
    server = await rig.server(extensions=extensions)
    provider = rig.provider(server)
    assert_all_accepted(await send(provider, make_mails(2), RecordingHandOver()), server, 2)
    await server.stop()
    await server.start()
    assert_all_accepted(await send(provider, make_mails(10, 11), RecordingHandOver()), server, 12)


async def test_a_new_connection_that_fails_leaves_the_work_to_the_old(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """A server that allows one connection and refuses more takes every mail over that one."""
    server = await rig.server(
        Script(
            greeting=lambda context: "421 4.7.0 too many connections" if context.connection > 1 else None,
            content=Delay(0.005),
        ),
        extensions=extensions,
    )
    outcomes = await send(rig.provider(server, connections=4), make_mails(20), RecordingHandOver())
    assert len(server.connections) > 1
    assert_all_accepted(outcomes, server, 20)
    assert {mail.connection for mail in server.mails} == {1}


async def test_a_hanging_attempt_to_connect_is_not_the_next_batchs_fate(
    rig: SmtpRig, extensions: tuple[str, ...]
) -> None:
    """One connection that never gets its greeting ends its own batch; the next batch, which may open another, goes."""
    server = await rig.server(
        Script(greeting=lambda context: Stall() if context.connection == 1 else None), extensions=extensions
    )
    provider = rig.provider(server, connections=3, answer_seconds=2.0)
    first = await send(provider, make_mails(2), RecordingHandOver(seconds=0.5))
    assert {type(outcome) for outcome in first.values()} == {NotSent}
    assert_all_accepted(await send(provider, make_mails(2, 11), RecordingHandOver()), server, 2)


async def test_closing_says_goodbye_after_the_mails_in_hand(rig: SmtpRig, extensions: tuple[str, ...]) -> None:
    """A provider that is closed while an answer is on its way still hears it, and leaves with QUIT."""
    has_content = asyncio.Event()

    def content(_: Context) -> Action:
        has_content.set()
        return Delay(0.2)

    server = await rig.server(Script(content=content), extensions=extensions)
    provider = rig.provider(server)
    sending = asyncio.create_task(send(provider, make_mails(1), RecordingHandOver()))
    await heard(has_content)
    await provider.close()
    assert_all_accepted(await sending, server, 1)
    await turns()
    assert server.connections[0].ended == "quit"
