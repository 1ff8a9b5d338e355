"""What Amazon SES's answers become: every status, every exception, and the ways of having no answer.

The server is `lab.ses_server`, which checks each request against botocore's service model and SES's documented
limits, and its signature.
"""

import json
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from lab.ses_conduct import (
    EXCEPTIONS,
    STATUSES,
    Act,
    Delay,
    Drop,
    Entries,
    Garbage,
    Refusal,
    Request,
    Stall,
    all_entries,
)
from lab.ses_server import SesServer
from tests.providers.hand_over import RecordingHandOver, send, turns, words_of
from tests.providers.mails import make_mail, make_mails
from tests.providers.ses_service import KEYS, make_provider, seq_of_entry
from worker.job import Accepted, Attachment, Failed, Mail, NotSent, Options, Outcome, Refused, Unavailable, Unknown

Outcomes = dict[int, Outcome]

ACCEPTED, REFUSED, FAULT, OUT = "accepted", "refused", "the provider's fault", "out"
OF_STATUS = {
    "SUCCESS": ACCEPTED,
    "MESSAGE_REJECTED": REFUSED,
    "INVALID_PARAMETER": REFUSED,
    "ACCOUNT_THROTTLED": FAULT,
    "TRANSIENT_FAILURE": FAULT,
    "FAILED": FAULT,
    "MAIL_FROM_DOMAIN_NOT_VERIFIED": OUT,
    "CONFIGURATION_SET_NOT_FOUND": OUT,
    "TEMPLATE_NOT_FOUND": OUT,
    "ACCOUNT_SUSPENDED": OUT,
    "ACCOUNT_DAILY_QUOTA_EXCEEDED": OUT,
    "INVALID_SENDING_POOL_NAME": OUT,
    "ACCOUNT_SENDING_PAUSED": OUT,
    "CONFIGURATION_SET_SENDING_PAUSED": OUT,
}
OF_EXCEPTION = {
    "TooManyRequestsException": FAULT,
    "LimitExceededException": OUT,
    "AccountSuspendedException": OUT,
    "SendingPausedException": OUT,
    "MessageRejected": REFUSED,
    "MailFromDomainNotVerifiedException": OUT,
    "NotFoundException": OUT,
    "BadRequestException": REFUSED,
    "UnrecognizedClientException": OUT,
    "InvalidSignatureException": OUT,
    "AccessDeniedException": OUT,
    "ServiceUnavailable": FAULT,
    "InternalFailure": FAULT,
}
RAW = Options(from_address="s1@example.org", attachments=(Attachment("a.txt", "aGVsbG8="),))


@pytest.fixture
async def server() -> AsyncIterator[SesServer]:
    """The lab's SES."""
    async with SesServer(keys=KEYS) as running:
        yield running
    await turns()


async def deliver(server: SesServer, mails: Sequence[Mail], seconds: float = 10.0, **options: object) -> Outcomes:
    """Send these with a provider of their own, and look for the secret in everything that it says."""
    provider = make_provider(server, **options)  # type: ignore[arg-type]
    try:
        outcomes = await send(provider, mails, RecordingHandOver(seconds=seconds))
    finally:
        await provider.close()
    said = [repr(provider), *map(repr, outcomes.values()), *map(words_of, outcomes.values())]
    assert not any(KEYS["AKIDLAB"] in text for text in said)
    return outcomes


async def deliver_ours(server: SesServer, mails: Sequence[Mail], seconds: float = 10.0, **options: object) -> Outcomes:
    """The same, with none but our own sender."""
    for mail in mails:
        mail.options = msgspec.structs.replace(mail.options, from_address=None)
    return await deliver(server, mails, seconds, **options)


def kind(outcome: Outcome) -> str:
    """An outcome as the tables above call it."""
    match outcome:
        case Accepted():
            return ACCEPTED
        case Refused():
            return REFUSED
        case Failed(_, True, _):
            return FAULT
        case Unavailable():
            return OUT
    return repr(outcome)


def test_the_tables_are_complete() -> None:
    """Each status and each exception of the service model has its meaning."""
    assert OF_STATUS.keys() == set(STATUSES)
    assert OF_EXCEPTION.keys() == EXCEPTIONS.keys()


@pytest.mark.parametrize("status", OF_STATUS)
async def test_each_status_has_its_outcome(server: SesServer, status: str) -> None:
    """One entry's status is that mail's outcome, and nobody else's."""
    server.conduct = lambda _: Entries(lambda _, entry: status if seq_of_entry(entry) == 2 else None)
    outcomes = await deliver_ours(server, of_one_sender(3))
    assert {seq: kind(outcome) for seq, outcome in outcomes.items()} == {1: ACCEPTED, 2: OF_STATUS[status], 3: ACCEPTED}
    assert status == "SUCCESS" or status in words_of(outcomes[2])


@pytest.mark.parametrize("code", OF_EXCEPTION)
@pytest.mark.parametrize("options", [None, RAW], ids=["bulk", "raw"])
async def test_each_exception_has_its_outcome(server: SesServer, code: str, options: Options | None) -> None:
    """An exception for a call of one mail is that mail's outcome, in one request."""
    server.conduct = lambda _: Refusal(code)
    outcomes = await deliver_ours(server, [make_mail(1, options=options)])
    assert kind(outcomes[1]) == OF_EXCEPTION[code]
    assert code in words_of(outcomes[1])
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [code for code, meaning in OF_EXCEPTION.items() if meaning != REFUSED])
async def test_an_exception_about_the_account_is_everybodys(server: SesServer, code: str) -> None:
    """A call of many mails that was refused because of the account is not repeated."""
    server.conduct = lambda _: Refusal(code)
    outcomes = await deliver_ours(server, of_one_sender(6))
    assert {kind(outcome) for outcome in outcomes.values()} == {OF_EXCEPTION[code]}
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", ["BadRequestException", "MessageRejected"])
@pytest.mark.parametrize("bad", [{1}, {7}, {20}, {3, 4, 19}, set(range(1, 21))], ids=str)
async def test_the_mail_that_spoils_a_call_is_found(server: SesServer, code: str, bad: set[int]) -> None:
    """A call that SES refuses because of one mail is halved until that one alone is refused; each other mail goes."""
    server.conduct = lambda request: Refusal(code) if bad & numbers(request) else None
    outcomes = await deliver_ours(server, of_one_sender(20))
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Refused)} == bad
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Accepted)} == set(range(1, 21)) - bad
    assert len(server.accepted) == 20 - len(bad)


async def test_an_unverified_identity_is_nobodys_refusal(server: SesServer) -> None:
    """SES says MessageRejected of a sender that is not verified: the mail must wait for somebody to mend it."""
    words = "Email address is not verified. The following identities failed the check in region EU-CENTRAL-1: s1"
    server.conduct = lambda _: Refusal("MessageRejected", words)
    outcomes = await deliver_ours(server, of_one_sender(3))
    assert {kind(outcome) for outcome in outcomes.values()} == {OUT}


@pytest.mark.parametrize("act", [Stall(), Drop(), Delay(0.2, Drop())], ids=["stall", "drop", "drop later"])
@pytest.mark.parametrize("options", [None, RAW], ids=["bulk", "raw"])
async def test_without_an_answer_all_is_unknown_and_asked_once(
    server: SesServer, act: Act, options: Options | None
) -> None:
    """No SDK repeats a request that was written: every mail in it is in doubt, and the server saw one request."""
    server.conduct = lambda _: act
    mails = [make_mail(1, options=options)] if options else of_one_sender(5)
    outcomes = await deliver_ours(server, mails, answer_seconds=0.4)
    assert {type(outcome) for outcome in outcomes.values()} == {Unknown}
    assert len(server.requests) == 1


async def test_a_connection_that_was_kept_and_dropped_is_not_written_to_twice(server: SesServer) -> None:
    """A drop on a connection that worked before is Unknown too, and the next batch opens a new one."""
    provider = make_provider(server)
    acts: list[Act] = [None, Drop(), None]
    server.conduct = lambda request: acts[request.number - 1]
    found = []
    for first in (10, 20, 30):
        outcomes = await send(provider, of_one_sender(2, first), RecordingHandOver())
        found.append({type(outcome) for outcome in outcomes.values()})
    await provider.close()
    assert found == [{Accepted}, {Unknown}, {Accepted}]
    assert len(server.requests) == 3


async def test_a_restarted_service_is_reached_again(server: SesServer) -> None:
    """Connections that died idle cost no mail."""
    provider = make_provider(server)
    assert kind((await send(provider, make_mails(1), RecordingHandOver()))[1]) == ACCEPTED
    await server.stop()
    assert kind((await send(provider, make_mails(1, 2), RecordingHandOver()))[2]) == FAULT
    await server.start()
    assert kind((await send(provider, make_mails(1, 3), RecordingHandOver()))[3]) == ACCEPTED
    await provider.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"BulkEmailEntryResults": []}', b'{"BulkEmailEntryResults": [{}, {}, {}]}'],
    ids=str,
)
async def test_an_answer_that_is_none_is_unknown(server: SesServer, body: bytes) -> None:
    """200 with anything but a result for each mail says nothing about them: they may be on their way."""
    server.conduct = lambda _: Garbage(body)
    outcomes = await deliver_ours(server, of_one_sender(2))
    assert {type(outcome) for outcome in outcomes.values()} == {Unknown}
    assert len(server.requests) == 1


async def test_an_unknown_status_is_not_taken_for_success(server: SesServer) -> None:
    """What SES may say one day is no acceptance."""
    result = {"Status": "SOMETHING_NEW", "Error": "who knows"}
    server.conduct = lambda _: Garbage(json.dumps({"BulkEmailEntryResults": [result]}).encode())
    outcomes = await deliver_ours(server, make_mails(1))
    assert not isinstance(outcomes[1], Accepted | Refused)


async def test_a_wrong_secret_is_out_and_stays_secret(server: SesServer) -> None:
    """SES refuses the signature: nothing goes, nothing is used up, and no text holds either secret."""
    outcomes = await deliver_ours(server, of_one_sender(3), secret="wrong-and-also-secret")
    assert {kind(outcome) for outcome in outcomes.values()} == {OUT}
    assert not any("also-secret" in repr(outcome) for outcome in outcomes.values())
    assert server.accepted == []


async def test_at_the_deadline_what_was_written_is_unknown(server: SesServer) -> None:
    """The batch ends on time although the service is slow; calls that never began are NotSent."""
    server.conduct = lambda _: Stall()
    outcomes = await deliver_ours(server, of_one_sender(9), seconds=0.5, per_call=3)
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Unknown)} == {1, 2, 3}
    assert {type(outcome) for outcome in outcomes.values()} == {Unknown, NotSent}


async def test_a_slow_answer_is_an_answer(server: SesServer) -> None:
    """A service that takes its time within answer_seconds has accepted."""
    server.conduct = lambda _: Delay(0.3)
    outcomes = await deliver_ours(server, make_mails(2))
    assert {kind(outcome) for outcome in outcomes.values()} == {ACCEPTED}


async def test_what_ses_says_of_one_mail_may_differ_in_a_call(server: SesServer) -> None:
    """All statuses in one call, each at its mail."""
    server.conduct = lambda _: Entries(lambda index, _: STATUSES[index])
    outcomes = await deliver_ours(server, of_one_sender(len(STATUSES)))
    assert [kind(outcomes[seq]) for seq in sorted(outcomes)] == [OF_STATUS[status] for status in STATUSES]
    server.conduct = lambda _: all_entries("FAILED")
    assert {kind(outcome) for outcome in (await deliver_ours(server, make_mails(2))).values()} == {FAULT}


def of_one_sender(count: int, first: int = 1) -> list[Mail]:
    """Plain mails that may share a call."""
    return [make_mail(seq, options=Options(from_address="s1@example.org")) for seq in range(first, first + count)]


def numbers(request: Request) -> set[int]:
    """The mails in a request."""
    return {seq_of_entry(entry) for entry in request.entries}


@pytest.mark.parametrize(
    "act",
    [all_entries("MAIL_FROM_DOMAIN_NOT_VERIFIED"), Refusal("MailFromDomainNotVerifiedException")],
    ids=["status", "exception"],
)
async def test_a_producers_sender_is_no_fault_of_the_provider(server: SesServer, act: Act) -> None:
    """A job that names a sender of its own costs itself a retry, and the provider nothing."""
    server.conduct = lambda _: act
    outcomes = await deliver(server, make_mails(2))
    assert [isinstance(outcome, Failed) and not outcome.is_providers_fault for outcome in outcomes.values()] == [
        True
    ] * 2
