"""What SendGrid's answers become, and what its requests hold; the server checks them by SendGrid's own documents."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from lab.sendgrid_rules import CONTRACT, contract_violations
from lab.sendgrid_server import Act, Fault, Reply, Request, SendGridServer
from lab.ses_conduct import Delay, Drop, Stall
from tests.providers.hand_over import RecordingHandOver, send, turns, words_of
from tests.providers.mails import make_mail
from tests.providers.sendgrid_service import KEY, by_seq, make_provider, refuse, seq_of
from worker.compose import Sender
from worker.job import NO_OPTIONS, Accepted, Attachment, Failed, Mail, Options, Outcome, Refused, Unavailable, Unknown

SAME = NO_OPTIONS


@pytest.fixture
async def server() -> AsyncIterator[SendGridServer]:
    """The lab's SendGrid."""
    async with SendGridServer(KEY) as running:
        yield running
    await turns()
    assert running.violations == []


def alike(count: int) -> list[Mail]:
    """Mails that can share a request."""
    return [make_mail(seq, options=SAME) for seq in range(1, count + 1)]


async def deliver(server: SendGridServer, mails: Sequence[Mail], **options: Any) -> dict[int, Outcome]:
    """Send these with a provider of their own, and look for the key in everything that it says."""
    seconds = options.pop("seconds", 10.0)
    provider = make_provider(server, **options)
    try:
        outcomes = await send(provider, mails, RecordingHandOver(seconds=seconds))
    finally:
        await provider.close()
    assert KEY not in repr(outcomes) + repr(provider) + "".join(words_of(outcome) for outcome in outcomes.values())
    return outcomes


def kinds(outcomes: dict[int, Outcome]) -> set[type[Outcome]]:
    """Their kinds."""
    return {type(outcome) for outcome in outcomes.values()}


async def test_many_mails_are_one_request_with_a_template(server: SendGridServer) -> None:
    """Each with its own content, custom argument and headers, under one message id."""
    mails = [make_mail(seq, html=f"<b>{seq} & {{{{x}}}}</b>", options=SAME) for seq in range(1, 51)]
    outcomes = await deliver(server, mails)
    assert len(server.requests) == 1
    assert outcomes[7] == Accepted("lab-1", "202 lab-1")
    mail = by_seq(server)[7]
    assert (mail.subject, mail.html, mail.text) == ("Mail 7", "<b>7 & {{x}}</b>", "Hello")
    assert mail.personalization["headers"]["X-Job-Id"] == mails[6].job.id
    assert mail.personalization["custom_args"] == {"attempt_id": f"{mails[6].job.id}-1"}
    assert mail.body["from"] == {"email": "bookings@example.org", "name": "Acme Bookings"}


async def test_without_a_template_each_mail_is_a_request(server: SendGridServer) -> None:
    """Its text before its HTML; an empty part is left out."""
    outcomes = await deliver(server, [*alike(3), make_mail(4, text="", options=SAME)], template_id="")
    assert kinds(outcomes) == {Accepted}
    assert len(server.requests) == 4
    mails = by_seq(server)
    assert (mails[1].subject, mails[1].html, mails[1].text) == ("Mail 1", "<p>Hello</p>", "Hello")
    assert [part["type"] for part in mails[4].body["content"]] == ["text/html"]


async def test_requests_hold_mails_of_one_sender_reply_to_and_categories(server: SendGridServer) -> None:
    """What SendGrid has once for a request is the same for all mails in it."""
    variants = [
        SAME,
        Options(reply_to="Help <help@example.org>"),
        Options(from_address="Other <other@example.org>"),
        Options(tags=("a", "b", "a")),
    ]
    outcomes = await deliver(server, [make_mail(seq, options=variants[seq % 4]) for seq in range(1, 41)])
    assert kinds(outcomes) == {Accepted}
    assert [len(request.personalizations) for request in server.requests] == [10] * 4
    bodies = {seq: mail.body for seq, mail in by_seq(server).items()}
    assert bodies[1]["reply_to"] == {"email": "help@example.org", "name": "Help"}
    assert bodies[2]["from"] == {"email": "other@example.org", "name": "Other"}
    assert bodies[3]["categories"] == ["a", "b"]


async def test_copies_headers_attachments_and_the_way_out(server: SendGridServer) -> None:
    """Everything that a mail can have; an address that is named several times gets one mail."""
    options = Options(
        cc=("Bob <bob@example.com>", "R1@example.com"),
        bcc=("bob@example.com", "eve@example.com"),
        headers={"X-Ours": "1"},
        attachments=(
            Attachment("a;1.txt", "aGVsbG8=", "text/plain"),
            Attachment("l.png", "aGVsbG8=", "image/png", "logo"),
        ),
    )
    mail = make_mail(1, options=options)
    mail.can_opt_out = True
    assert kinds(await deliver(server, [mail, *alike(3)[1:]])) == {Accepted}
    assert len(server.requests) == 2
    sent = by_seq(server)[1]
    assert sent.personalization["to"] == [{"email": "r1@example.com"}]
    assert sent.personalization["cc"] == [{"email": "bob@example.com", "name": "Bob"}]
    assert sent.personalization["bcc"] == [{"email": "eve@example.com"}]
    headers = sent.personalization["headers"]
    assert headers["List-Unsubscribe"] == f"<https://example.org/u/{mail.job.id}>"
    assert headers["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert headers["X-Ours"] == "1"
    files = sent.body["attachments"]
    assert [(file["filename"], file["disposition"]) for file in files] == [
        ("a_1.txt", "attachment"),
        ("l.png", "inline"),
    ]
    assert files[1]["content_id"] == "logo"


@pytest.mark.parametrize("bad", [{1}, {2}, {10}, {1, 4}, {3, 4, 5}], ids=str)
async def test_one_refusal_takes_out_those_whom_it_names(server: SendGridServer, bad: set[int]) -> None:
    """The named are refused with SendGrid's words, the others go in the next request, once."""

    def conduct(request: Request) -> Act:
        named = [n for n, one in enumerate(request.personalizations) if seq_of(one) in bad]
        return refuse(*named) if named else None

    server.conduct = conduct
    outcomes = await deliver(server, alike(10))
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Refused)} == bad
    assert outcomes[min(bad)] == Refused("400 Does not contain a valid address.")
    assert by_seq(server).keys() == set(range(1, 11)) - bad
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "fault", [Fault("Something is wrong"), Fault("Bad", "content"), Fault("Bad", "personalizations")]
)
async def test_a_refusal_that_names_nobody_is_searched_by_halves(server: SendGridServer, fault: Fault) -> None:
    """In the end the guilty mail alone is refused."""

    def conduct(request: Request) -> Act:
        return Reply(400, (fault,)) if 5 in map(seq_of, request.personalizations) else None

    server.conduct = conduct
    outcomes = await deliver(server, alike(16))
    assert {seq for seq, outcome in outcomes.items() if isinstance(outcome, Refused)} == {5}
    assert by_seq(server).keys() == set(range(1, 17)) - {5}


@pytest.mark.parametrize(
    "reply",
    [Reply(413), Reply(400, (Fault("custom_args exceed 10000 bytes", "personalizations.0.custom_args"),))],
    ids=["413", "custom_args"],
)
async def test_a_request_that_is_too_large_is_split(server: SendGridServer, reply: Reply) -> None:
    """Nobody is refused for the company."""
    server.conduct = lambda request: reply if len(request.personalizations) > 3 else None
    assert kinds(await deliver(server, alike(10))) == {Accepted}
    assert by_seq(server).keys() == set(range(1, 11))


SENDER_WORDS = "The from address does not match a verified Sender Identity."


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (Reply(401, (Fault("authorization grant is invalid"),)), Unavailable("401 authorization grant is invalid")),
        (Reply(403, (Fault("access forbidden"),)), Unavailable("403 access forbidden")),
        (Reply(401, (Fault("Maximum credits exceeded"),)), Unavailable("401 Maximum credits exceeded")),
        (Reply(400, (Fault("bad", "template_id"),)), Unavailable("400 bad")),
        (Reply(404, (Fault("Not Found"),)), Unavailable("404 Not Found")),
        (Reply(403, (Fault(SENDER_WORDS, "from"),)), Failed(f"403 {SENDER_WORDS}", is_providers_fault=True)),
        (Reply(400, (Fault("bad", "from.email"),)), Failed("400 bad", is_providers_fault=True)),
        (Reply(429), Failed("429", is_providers_fault=True, is_throttled=True)),
        (Reply(500), Failed("500", is_providers_fault=True)),
        (Reply(503), Failed("503", is_providers_fault=True)),
        (Reply(504), Unknown("504")),
        (Reply(201), Unknown("201")),
    ],
)
async def test_what_an_answer_means_for_all_of_a_request(
    server: SendGridServer, reply: Reply, expected: Outcome
) -> None:
    """One request, one answer, the same for each of its mails."""
    server.conduct = lambda _: reply
    outcomes = await deliver(server, alike(5))
    assert list(outcomes.values()) == [expected] * 5
    assert len(server.requests) == 1


async def test_a_limit_says_when_to_come_back(server: SendGridServer) -> None:
    """X-RateLimit-Reset is in Unix seconds; nonsense in it is no reason to wait for ever."""
    server.conduct = lambda _: Reply(429, headers={"X-RateLimit-Reset": str(int(time.time()) + 60)})
    (outcome,) = (await deliver(server, alike(1))).values()
    assert isinstance(outcome, Failed)
    assert 50 < outcome.retry_after_seconds <= 60
    for reset, most in (("99999999999", 3600), ("yesterday", 0), ("1", 0)):
        server.conduct = lambda _, reset=reset: Reply(429, headers={"X-RateLimit-Reset": reset})  # type: ignore[misc]
        (outcome,) = (await deliver(server, alike(1))).values()
        assert isinstance(outcome, Failed)
        assert outcome.retry_after_seconds == most


@pytest.mark.parametrize("act", [Stall(), Drop(), Delay(5.0)], ids=["stall", "drop", "slow"])
async def test_no_answer_puts_the_whole_request_in_doubt(server: SendGridServer, act: Act) -> None:
    """And it is never repeated by itself."""
    server.conduct = lambda _: act
    assert kinds(await deliver(server, alike(5), answer_seconds=0.3)) == {Unknown}
    assert len(server.requests) == 1


async def test_a_wrong_key_takes_the_provider_out(server: SendGridServer) -> None:
    """Said in SendGrid's words, and no mail dies of it."""
    (outcome,) = (await deliver(server, alike(1), key="SG.wrong")).values()
    assert isinstance(outcome, Unavailable)
    assert outcome.reason.startswith("401 The provided authorization grant is invalid")


async def test_the_sandbox_sends_nothing(server: SendGridServer) -> None:
    """SendGrid checks, answers 200, and keeps the mail."""
    outcomes = await deliver(server, alike(2), is_sandbox=True)
    assert kinds(outcomes) == {Accepted}
    assert server.accepted == []


async def test_a_mail_that_cannot_be_said_is_refused_unseen(server: SendGridServer) -> None:
    """A foreign local part, too many categories: SendGrid would refuse the whole request for them."""
    unsayable = [
        make_mail(10, options=Options(tags=("straße",))),
        make_mail(11, options=Options(tags=("x" * 256,))),
        make_mail(12, options=Options(headers={"X-SG-EID": "1"})),
        make_mail(13, options=Options(headers={"X-A": "1", "x-a": "2"})),
        make_mail(14, options=Options(attachments=(Attachment("a.txt", ""),))),
        make_mail(15, options=Options(attachments=(Attachment("a.txt", "aGVsbG8=", "text/plain; charset=utf-8"),))),
        make_mail(16, text="half a \ud800 pair", options=SAME),
    ]
    assert kinds(await deliver(server, unsayable)) == {Refused}
    mails = [
        make_mail(1, recipient="jürgen@example.com", options=SAME),
        make_mail(2, options=Options(tags=tuple(map(str, range(11))))),
        make_mail(3, recipient="ann@münchen.example", options=SAME),
    ]
    outcomes = await deliver(server, mails)
    assert [type(outcomes[seq]) for seq in (1, 2, 3)] == [Refused, Refused, Accepted]
    assert by_seq(server)[3].personalization["to"] == [{"email": "ann@xn--mnchen-3ya.example"}]
    assert len(server.requests) == 1


async def test_a_sender_with_a_foreign_domain(server: SendGridServer) -> None:
    """Goes in its ASCII form."""
    outcomes = await deliver(server, alike(1), sender=Sender("noreply@bücher.example", "Bücher, Ltd"))
    assert kinds(outcomes) == {Accepted}
    assert by_seq(server)[1].body["from"]["email"] == "noreply@xn--bcher-kva.example"


async def test_requests_stay_within_thousand_recipients_and_twenty_megabytes(server: SendGridServer) -> None:
    """Copies count, and so do the bytes."""
    copies = tuple(f"c{n}@example.com" for n in range(99))
    await deliver(server, [make_mail(seq, options=Options(cc=copies)) for seq in range(1, 26)])
    assert [len(request.personalizations) for request in server.requests] == [10, 10, 5]
    server.requests.clear()
    server.accepted.clear()
    big = "x" * 3_000_000
    assert kinds(await deliver(server, [make_mail(seq, html=big, options=SAME) for seq in range(1, 9)])) == {Accepted}
    assert max(len(request.personalizations) for request in server.requests) <= 6


def test_the_contract_finds_what_is_wrong() -> None:
    """The judge judges: without it, no violation would mean nothing."""
    if not CONTRACT.is_file():
        pytest.skip("SendGrid's OpenAPI document is not beside the repository")
    assert contract_violations({"from": {"email": "a@b.c"}})
    assert contract_violations({"personalizations": "x", "from": {"email": "a@b.c"}})
