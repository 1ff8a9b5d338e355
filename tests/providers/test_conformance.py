"""What every provider must keep of the contract in `worker.providers.base`, whatever its service does.

Deadlines, cancellation and closing are in `test_conformance_ends`.
"""

import asyncio

import pytest

from tests.providers.hand_over import RecordingHandOver, assert_books, heard, send, turns
from tests.providers.mails import make_mail, make_mails, seqs
from tests.providers.services import Conduct, Service, assert_works, for_one_call
from worker.job import Accepted, Failed, Mail, NotSent, Options, Outcome, Refused, Unknown


async def test_each_mail_is_accepted_once(service: Service) -> None:
    """A batch larger than the window arrives whole, each mail once, each with its own Message-ID in the answer."""
    mails = make_mails(40)
    outcomes = await send(service.provider, mails, RecordingHandOver(service.tally))
    assert_books(outcomes, service.contents(), service.accepted())
    ids = {outcome.message_id for outcome in outcomes.values() if isinstance(outcome, Accepted)}
    assert len(ids) == len(mails)
    assert service.contents().keys() == seqs(mails)


@pytest.mark.parametrize(
    ("conduct", "expected"),
    [(Conduct.REFUSES, Refused), (Conduct.BUSY, Failed), (Conduct.BREAKS, Unknown), (Conduct.DOWN, Failed)],
    ids=lambda value: value.name if isinstance(value, Conduct) else "",
)
async def test_each_answer_has_its_outcome(service: Service, conduct: Conduct, expected: type[Outcome]) -> None:
    """Refused for good, busy, broken and down are told apart for every mail, and leave the provider fit to work."""
    if conduct is Conduct.BUSY and not service.can_be_busy:
        pytest.skip("this service has no words for a recipient who must wait")
    await service.behave(conduct)
    outcomes = await send(service.provider, make_mails(7), RecordingHandOver(service.tally))
    assert {type(outcome) for outcome in outcomes.values()} == {expected}
    assert_books(outcomes, service.contents(), service.accepted())
    await assert_works(service)


async def test_the_fault_is_the_providers_only_when_it_is_down(service: Service) -> None:
    """A busy recipient must not send a mail to the fallback; a service that cannot be reached must."""
    if not service.can_be_busy:
        pytest.skip("this service has no words for a recipient who must wait")
    await service.behave(Conduct.BUSY)
    busy = await send(service.provider, make_mails(1), RecordingHandOver(service.tally))
    await service.behave(Conduct.DOWN)
    down = await send(service.provider, make_mails(1, 2), RecordingHandOver(service.tally))
    faults = [outcome.is_providers_fault for outcome in (busy[1], down[2]) if isinstance(outcome, Failed)]
    assert faults == [False, True]


async def test_what_admit_keeps_is_neither_sent_nor_answered(service: Service) -> None:
    """Mails that the journal knows already are no longer the provider's, wherever they stand in the batch."""
    hand_over = RecordingHandOver(service.tally)
    hand_over.keeps = {1, 5, 6, 20}
    outcomes = await send(service.provider, make_mails(20), hand_over)
    assert outcomes.keys() == set(range(1, 21)) - hand_over.keeps
    assert service.contents().keys() == outcomes.keys()
    assert service.tally.open == 0


async def test_a_batch_that_admit_keeps_whole_costs_no_room(service: Service) -> None:
    """Kept mails give their places in the window back."""
    for first in range(1, 5 * service.open_limit, service.open_limit):
        hand_over = RecordingHandOver(service.tally)
        mails = make_mails(service.open_limit, first)
        hand_over.keeps = seqs(mails)
        assert await send(service.provider, mails, hand_over) == {}
    await assert_works(service)


async def test_nothing_leaves_before_admit_has_returned(service: Service) -> None:
    """While the journal commits, the service sees nothing of the mails; afterwards they go."""
    hand_over = RecordingHandOver(service.tally)
    hand_over.gate.clear()
    sending = asyncio.create_task(send(service.provider, make_mails(5), hand_over))
    await heard(hand_over.is_asked)
    await turns()
    assert service.contents() == {}
    assert service.tally.breaches == []
    hand_over.gate.set()
    assert_books(await sending, service.contents(), service.accepted())
    assert len(service.accepted()) == 5


async def test_no_content_goes_once_may_go_says_no(service: Service) -> None:
    """Stopped between the journal and the content, every mail is NotSent and none arrives."""
    hand_over = RecordingHandOver(service.tally)

    def stop() -> None:
        hand_over.is_stopped = True

    hand_over.on_admitted = stop
    outcomes = await send(service.provider, make_mails(10), hand_over)
    assert {type(outcome) for outcome in outcomes.values()} == {NotSent}
    assert service.contents() == {}
    await assert_works(service)


async def test_a_stop_in_the_middle_splits_the_batch_cleanly(service: Service) -> None:
    """What was handed over before the stop has its real answer, the rest is NotSent, and nothing is in between."""
    hand_over = RecordingHandOver(service.tally)

    def stop_after_three(_: int, __: Outcome) -> None:
        hand_over.is_stopped = len(hand_over.outcomes) >= 3

    hand_over.on_answer = stop_after_three
    outcomes = await send(service.provider, make_mails(60), hand_over)
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted, NotSent}
    assert_books(outcomes, service.contents(), service.accepted())
    await assert_works(service)


async def test_a_batch_that_may_not_go_at_all_is_not_sent(service: Service) -> None:
    """A stop that came before the batch leaves it untouched."""
    hand_over = RecordingHandOver(service.tally)
    hand_over.is_stopped = True
    outcomes = await send(service.provider, make_mails(3), hand_over)
    assert {type(outcome) for outcome in outcomes.values()} == {NotSent}
    assert service.contents() == {}


@pytest.mark.parametrize("broken", [0, 1, 2], ids=["first", "middle", "last"])
async def test_a_mail_that_cannot_be_composed_is_refused_alone(service: Service, broken: int) -> None:
    """One mail with an impossible header is refused for good, unseen by the service; the others go."""
    mails = make_mails(3)
    mails[broken] = make_mail(mails[broken].job.seq, options=Options(headers={"Bcc": "eve@example.com"}))
    outcomes = await send(service.provider, mails, RecordingHandOver(service.tally))
    assert isinstance(outcomes.pop(mails[broken].job.seq), Refused)
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert service.contents().keys() == outcomes.keys()
    await assert_works(service)


async def test_an_empty_batch_needs_no_answer(service: Service) -> None:
    """Nothing to send is sent."""
    assert await send(service.provider, [], RecordingHandOver(service.tally)) == {}
    assert service.contents() == {}


async def test_open_mails_never_exceed_the_window(service: Service) -> None:
    """However many batches push, the admitted and unanswered mails stay within the limit, and come near it."""
    batches = [for_one_call(service, make_mails(40, first)) for first in (1, 101, 201, 301)]
    results = await asyncio.gather(
        *(send(service.provider, mails, RecordingHandOver(service.tally)) for mails in batches)
    )
    assert service.open_limit // 2 < service.tally.most_open <= service.open_limit
    assert service.tally.open == 0
    for outcomes in results:
        assert len(outcomes) == 40
        assert_books(outcomes, service.contents(), service.accepted())


async def test_concurrent_batches_get_their_own_answers(service: Service) -> None:
    """Batches of very different sizes, urgent and not, share the service; each mail is answered to its own batch."""
    sizes = [1, 2, 30, 5, 17]
    batches: list[list[Mail]] = [make_mails(size, 100 * number) for number, size in enumerate(sizes, 1)]
    results = await asyncio.gather(
        *(
            send(service.provider, mails, RecordingHandOver(service.tally, is_urgent=number % 2 == 0))
            for number, mails in enumerate(batches)
        )
    )
    for mails, outcomes in zip(batches, results, strict=True):
        assert outcomes.keys() == seqs(mails)
        assert_books(outcomes, service.contents(), service.accepted())
    assert sum(service.accepted().values()) == sum(sizes)


async def test_urgent_mail_passes_bulk_at_the_window(service: Service) -> None:
    """When the window is full, a transactional batch that came later is admitted before a bulk one that waits."""
    full = RecordingHandOver(service.tally)
    full.gate.clear()
    running = [asyncio.create_task(send(service.provider, for_one_call(service, make_mails(service.open_limit)), full))]
    await heard(full.is_asked)
    for first, is_urgent in ((100, False), (200, True)):
        hand_over = RecordingHandOver(service.tally, is_urgent=is_urgent)
        running.append(
            asyncio.create_task(send(service.provider, for_one_call(service, make_mails(2, first)), hand_over))
        )
        await turns()
        assert not hand_over.is_asked.is_set()
    full.gate.set()
    await asyncio.gather(*running)
    order = service.tally.admitted[service.open_limit :]
    if service.open_limit < 4:
        # Mails that go one by one ask one by one: the second place may be free before the second one asks.
        assert order.index(200) < order.index(100)
    else:
        assert order == [200, 201, 100, 101]
