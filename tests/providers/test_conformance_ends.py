"""How a provider ends a batch before its time, and itself: deadlines, cancellation, closing."""

import asyncio

import pytest

from tests.providers.hand_over import GUARD_SECONDS, RecordingHandOver, Tally, assert_books, heard, send, turns
from tests.providers.mails import make_mails
from tests.providers.services import Conduct, Service, assert_works
from worker.job import Accepted, Failed, NotSent, Unavailable, Unknown


async def test_at_the_deadline_the_handed_over_is_unknown_and_the_rest_not_sent(service: Service) -> None:
    """With a service that never answers, send ends at the deadline, and exactly what arrived is in doubt."""
    await service.behave(Conduct.SILENT)
    outcomes = await send(service.provider, make_mails(30), RecordingHandOver(service.tally, seconds=0.6))
    unknown = {seq for seq, outcome in outcomes.items() if isinstance(outcome, Unknown)}
    assert unknown == service.contents().keys() != set()
    assert {type(outcome) for outcome in outcomes.values()} == {Unknown, NotSent}
    assert_books(outcomes, service.contents(), service.accepted())
    await assert_works(service)


async def test_a_mute_service_costs_a_batch_its_time_and_no_mail(service: Service) -> None:
    """Connections that never get a greeting end at the deadline: nothing was sent, and the next batch goes.

    Where a service is called, the request was written: what is lost then is only the certainty.
    """
    await service.behave(Conduct.MUTE)
    outcomes = await send(service.provider, make_mails(3), RecordingHandOver(service.tally, seconds=0.5))
    kinds = {type(outcome) for outcome in outcomes.values()}
    assert kinds <= {NotSent, Unknown} if service.is_called else kinds == {NotSent}
    await assert_works(service)


async def test_a_journal_that_hangs_until_the_deadline_costs_no_answer(service: Service) -> None:
    """Mails whose intent was still being written at the deadline are NotSent, and their room comes back."""
    hand_over = RecordingHandOver(service.tally, seconds=0.5)
    hand_over.gate.clear()
    outcomes = await send(service.provider, make_mails(service.open_limit + 5), hand_over)
    assert {type(outcome) for outcome in outcomes.values()} == {NotSent}
    assert service.contents() == {}
    await assert_works(service)


async def test_a_deadline_that_has_passed_sends_nothing(service: Service) -> None:
    """A batch that comes too late is NotSent at once."""
    outcomes = await send(service.provider, make_mails(3), RecordingHandOver(service.tally, seconds=-1.0))
    assert {type(outcome) for outcome in outcomes.values()} == {NotSent}
    assert service.contents() == {}
    await assert_works(service)


async def test_the_end_of_one_batch_is_not_the_end_of_another(service: Service) -> None:
    """A batch behind one that waits for a silent service goes out when the first one's time is up."""
    await service.behave(Conduct.SILENT)
    short = asyncio.create_task(send(service.provider, make_mails(30), RecordingHandOver(service.tally, seconds=1.5)))
    await heard(service.has_content)
    await turns()
    await service.behave(Conduct.NORMAL)
    outcomes = await send(service.provider, make_mails(5, 100), RecordingHandOver(service.tally))
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert_books(outcomes, service.contents(), service.accepted())
    assert_books(await short, service.contents(), service.accepted())
    assert service.tally.open == 0


async def test_close_lets_go_of_every_connection(service: Service) -> None:
    """After the last batch the provider says goodbye on each connection, and closing again is harmless."""
    outcomes = await send(service.provider, make_mails(20), RecordingHandOver(service.tally))
    assert_books(outcomes, service.contents(), service.accepted())
    await service.provider.close()
    async with asyncio.timeout(GUARD_SECONDS):
        await service.abandoned()
    await service.provider.close()


async def test_a_provider_that_was_never_used_can_be_closed(service: Service) -> None:
    """A worker that stops before its first mail closes its providers too."""
    await service.provider.close()
    assert not service.is_contacted.is_set()


async def test_closing_while_a_batch_waits_for_a_connection_still_answers_it(service: Service) -> None:
    """A provider that is closed under a batch does not raise into it: every mail has one answer, and none is sent."""
    await service.behave(Conduct.MUTE)
    sending = asyncio.create_task(send(service.provider, make_mails(3), RecordingHandOver(service.tally, seconds=1.5)))
    await heard(service.is_contacted)
    await turns()
    await service.provider.close()
    outcomes = await sending
    kinds = {type(outcome) for outcome in outcomes.values()}
    assert kinds <= ({NotSent, Unknown} if service.is_called else {NotSent, Failed, Unavailable})
    if not service.is_called:
        assert service.contents() == {}


async def test_closing_while_answers_are_awaited_loses_none(service: Service) -> None:
    """A provider that is closed too early still ends the batch by its deadline, with the truth about each mail."""
    await service.behave(Conduct.SILENT)
    sending = asyncio.create_task(send(service.provider, make_mails(9), RecordingHandOver(service.tally, seconds=1.5)))
    await heard(service.has_content)
    await turns()
    await service.provider.close()
    outcomes = await sending
    assert_books(outcomes, service.contents(), service.accepted())
    unknown = {seq for seq, outcome in outcomes.items() if isinstance(outcome, Unknown)}
    assert unknown == service.contents().keys()


async def test_a_cancelled_send_leaves_nothing_behind_that_could_still_go(service: Service) -> None:
    """A batch whose task was cancelled has lost its claim: another worker may send its mails, so this one must not."""
    await service.behave(Conduct.BREAKS_LATE)
    hand_over = RecordingHandOver(service.tally)
    abandoned = make_mails(service.open_limit)
    hand_over.begin(abandoned)
    sending = asyncio.create_task(service.provider.send(abandoned, hand_over))
    await heard(service.has_content)
    await turns()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    if service.is_called:
        # A request that a thread was writing in that moment may still arrive; its mails are Unknown.
        await asyncio.sleep(0.2)
    before = set(service.contents())
    await service.behave(Conduct.NORMAL)
    outcomes = await send(service.provider, make_mails(3, 100), RecordingHandOver(service.tally))
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert set(service.contents()) - before == {100, 101, 102}


async def test_an_error_in_admit_passes_through_and_costs_no_room(service: Service) -> None:
    """A journal that fails in an unforeseen way is the batch's trouble; the window stays whole for the next."""

    def fail() -> None:
        raise ZeroDivisionError

    for first in range(1, 5 * service.open_limit, service.open_limit):
        hand_over = RecordingHandOver(Tally())
        hand_over.on_offered = fail
        hand_over.begin(make_mails(service.open_limit, first))
        with pytest.raises(ZeroDivisionError):
            await service.provider.send(make_mails(service.open_limit, first), hand_over)
    assert service.contents() == {}
    await assert_works(service)
