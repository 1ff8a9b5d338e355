"""What a mail is when Amazon SES has it: people, texts, headers, and which mails go as raw bytes.

The lab's server is strict about SES's limits; `aws-ses-v2-local`, by somebody else, judges the same requests where
node is there.
"""

import email.policy
from collections.abc import AsyncIterator, Callable, Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from email.utils import parseaddr

import msgspec
import pytest

from lab import ses_local
from lab.ses_conduct import BULK, SINGLE, SesMail
from lab.ses_local import SesLocal
from lab.ses_server import SesServer
from tests.providers.hand_over import RecordingHandOver, send, turns
from tests.providers.mails import make_mail, make_mails
from tests.providers.ses_service import KEYS, by_seq, make_provider
from tests.providers.test_ses import deliver
from worker.compose import Sender
from worker.job import Accepted, Attachment, Mail, Options, Refused

FILE = Attachment("Rechnung ä.pdf", "JVBERi0xLjQ=", "application/pdf")
PICTURE = Attachment("logo.png", "iVBORw0KGgo=", "image/png", "logo")
# Content that would be something else to a template, to JSON, or to HTML.
TEXTS = [
    "{{subject}} {{html}} {{x}} {{{raw}}} {{#if a}}b{{/if}} {{/}} {{",
    'quotes " \' and \\ backslashes \\u0041 \\n {"a": 1}',
    "<b>&amp; &lt; <script>alert(1)</script>",
    "Grüße, 予約確認 🎉 \u2028 \u200d é e\u0301",
    "line\r\nbreaks\n\tand\ttabs  and trailing spaces  \r\n",
    "\x01\x7f control",
    "%s %(x)s ${x} {x}",
]


@pytest.fixture
async def server() -> AsyncIterator[SesServer]:
    """The lab's SES."""
    async with SesServer(keys=KEYS) as running:
        yield running
    await turns()


@pytest.fixture(scope="module")
def local() -> Iterator[SesLocal]:
    """The SES by somebody else."""
    if reason := ses_local.missing():
        pytest.skip(reason)
    with SesLocal() as running:
        yield running


async def accepted(server: SesServer, *mails: Mail) -> dict[int, SesMail]:
    """Send these, all of which must be accepted, and return them as SES has them."""
    outcomes = await deliver(server, mails)
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}, outcomes
    found = by_seq(server)
    ids = {seq: outcome.message_id for seq, outcome in outcomes.items() if isinstance(outcome, Accepted)}
    assert ids == {seq: found[seq].message_id for seq in ids}
    return found


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_texts_arrive_as_they_are(server: SesServer, text: str) -> None:
    """Content is data, never template: each character of it arrives, in each of the three places."""
    subject = text.replace("\r", "").replace("\n", "").replace("\t", " ").strip()
    mail = (await accepted(server, make_mail(1, subject=subject, text=text, html=f"<p>{text}</p>")))[1]
    assert (mail.subject, mail.html, mail.text) == (subject, f"<p>{text}</p>", text)


async def test_somebody_elses_ses_renders_the_same(local: SesLocal) -> None:
    """aws-ses-v2-local, which has a real Handlebars, takes the requests and makes the same texts of them."""
    before = len(local.store())
    async with SesServer(keys=KEYS, upstream=local.url) as server:
        mails = [make_mail(seq, subject="{{x}}", text=text, html=f"<p>{text}</p>") for seq, text in enumerate(TEXTS, 1)]
        raw = make_mail(
            99, text="raw text", options=Options(attachments=(FILE, PICTURE), cc=("Ann <ann@example.com>",))
        )
        found = await accepted(server, *mails, raw)
    stored = {email["messageId"]: email for email in local.store()[before:]}
    assert len(stored) == len(mails) + 1
    for seq, text in enumerate(TEXTS, 1):
        theirs = stored[found[seq].message_id]
        assert theirs["body"] == {"html": f"<p>{text}</p>", "text": text}
        assert theirs["destination"]["to"] == [f"r{seq}@example.com"]
        assert {header["name"]: header["value"] for header in theirs["headers"]} == found[seq].headers
    theirs = stored[found[99].message_id]
    assert {file["filename"] for file in theirs["attachments"]} == {"Rechnung ä.pdf", "logo.png"}
    assert theirs["body"]["text"].strip() == "raw text"


async def test_mails_are_grouped_by_sender_and_reply_to(server: SesServer) -> None:
    """What is said once for a call is the same for each mail in it."""
    pairs = [("a@example.org", None), ("b@example.org", None), ("a@example.org", "r@example.org")]
    mails = [
        make_mail(seq, options=Options(from_address=pairs[seq % 3][0], reply_to=pairs[seq % 3][1]))
        for seq in range(1, 31)
    ]
    found = await accepted(server, *mails)
    assert [len(request.entries) for request in server.requests] == [10, 10, 10]
    for seq, mail in found.items():
        address, reply_to = pairs[seq % 3]
        assert parseaddr(mail.sender)[1] == address
        assert mail.reply_to == ((reply_to,) if reply_to else ())


async def test_a_call_has_fifty_mails_at_most(server: SesServer) -> None:
    """However many are configured, SES takes fifty."""
    provider = make_provider(server, per_call=1000)
    mails = [make_mail(seq, options=Options(from_address="s1@example.org")) for seq in range(1, 121)]
    outcomes = await send(provider, mails, RecordingHandOver())
    await provider.close()
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert sorted(len(request.entries) for request in server.requests) == [20, 50, 50]


async def test_the_senders_own_name_and_reply_to(server: SesServer) -> None:
    """The configured sender, its name encoded where ASCII does not do, its Reply-To, and the configuration set."""
    sender = Sender("bookings@bücher.example", "Bücher & Co", "Hilfe ä <help@example.org>")
    provider = make_provider(server, sender=sender, configuration_set="mails")
    await send(provider, [make_mail(1, options=Options())], RecordingHandOver())
    await provider.close()
    mail = by_seq(server)[1]
    assert decoded(mail.sender) == ("Bücher & Co", "bookings@xn--bcher-kva.example")
    assert [decoded(person) for person in mail.reply_to] == [("Hilfe ä", "help@example.org")]
    assert mail.configuration_set == "mails"


async def test_copies_belong_to_their_mail(server: SesServer) -> None:
    """Cc and Bcc are each entry's own, each address once, with its name."""
    cc, bcc = ("Ann Ä <ann@example.com>", "r1@example.com"), ("bob@example.com", "ANN@example.com")
    options = Options(from_address="s1@example.org", cc=cc, bcc=bcc)
    plain = make_mail(2, options=Options(from_address="s1@example.org"))
    found = await accepted(server, make_mail(1, options=options), plain)
    assert [decoded(person) for person in found[1].cc] == [("Ann Ä", "ann@example.com")]
    assert found[1].bcc == ("bob@example.com",)
    assert (found[2].to, found[2].cc, found[2].bcc) == (("r2@example.com",), (), ())
    assert len(server.requests) == 1


async def test_a_recipients_name_is_written(server: SesServer) -> None:
    """Names with quotes, commas and other scripts are theirs."""
    mails = []
    names = ['Ann "A" O\'Neil, jr.', "山田 太郎", "Jürgen", "plain"]
    for seq, name in enumerate(names, 1):
        mail = make_mail(seq)
        mail.job = msgspec.structs.replace(mail.job, recipient_name=name)
        mails.append(mail)
    found = await accepted(server, *mails)
    assert [decoded(found[seq].to[0]) for seq in (1, 2, 3, 4)] == [
        (name, f"r{seq}@example.com") for seq, name in enumerate(names, 1)
    ]


async def test_a_very_long_name_costs_no_mail(server: SesServer) -> None:
    """SES takes addresses of 320 characters, name included."""
    mail = make_mail(1)
    mail.job = msgspec.structs.replace(mail.job, recipient_name="Jürgen " * 60)
    await accepted(server, mail)


async def test_the_headers_of_a_mail(server: SesServer) -> None:
    """The job's id, who may be unsubscribed where, and what the producer adds."""
    mail = make_mail(1, options=Options(from_address="s1@example.org", headers={"X-Campaign": "spring"}))
    mail.can_opt_out = True
    found = await accepted(server, mail, make_mail(2, options=Options(from_address="s1@example.org")))
    assert found[1].headers == {
        "X-Job-Id": mail.job.id,
        "Auto-Submitted": "auto-generated",
        "List-Unsubscribe": f"<https://example.org/u/{mail.job.id}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "X-Campaign": "spring",
    }
    assert found[2].headers == {"X-Job-Id": found[2].headers["X-Job-Id"], "Auto-Submitted": "auto-generated"}
    assert found[1].tags == {"attempt": f"{mail.job.id}-1"}


RAW: dict[str, Callable[[], Mail]] = {
    "an attachment": lambda: make_mail(1, options=Options(attachments=(FILE,))),
    "an inline image": lambda: make_mail(1, html='<img src="cid:logo">', options=Options(attachments=(PICTURE,))),
    "many headers": lambda: make_mail(1, options=Options(headers={f"X-{number}": "1" for number in range(16)})),
    "a long text": lambda: make_mail(1, text="long " * 60_000),
    "a text that JSON makes long": lambda: make_mail(1, text="ä" * 130_000),
    "a header in other letters": lambda: make_mail(1, options=Options(headers={"X-Name": "Grüße"})),
    "a long header": lambda: make_mail(1, options=Options(headers={"X-Long": "word " * 300 + "end"})),
    "an empty header": lambda: make_mail(1, options=Options(headers={"X-Empty": ""})),
}


@pytest.mark.parametrize("what", RAW)
async def test_what_the_template_cannot_carry_arrives_whole(server: SesServer, what: str) -> None:
    """Attachments, inline images, more or other headers, and long texts: nothing of them is lost."""
    mail = RAW[what]()
    taken = (await accepted(server, mail))[1]
    wanted = dict(mail.options.headers)
    if taken.raw is None:
        assert not mail.options.attachments
        assert {name: taken.headers[name] for name in wanted} == wanted
        assert (taken.html, taken.text) == (mail.content.html, mail.content.text)
        return
    message = parsed(taken.raw)
    assert message["X-Job-Id"] == mail.job.id
    assert {name: message[name] for name in wanted} == wanted
    assert body(message, "plain").strip() == mail.content.text.strip()
    assert body(message, "html").strip() == mail.content.html.strip()
    files = [part.get_filename() for part in message.walk() if part.get_filename()]
    assert files == [file.filename for file in mail.options.attachments]


@pytest.mark.parametrize("what", ["an attachment", "an inline image", "many headers", "a long text"])
async def test_what_must_be_raw_is_raw_and_alone(server: SesServer, what: str) -> None:
    """Such a mail goes by SendEmail, the others of its batch by SendBulkEmail."""
    others = make_mails(2, 10)
    await accepted(server, RAW[what](), *others)
    assert sorted(request.operation for request in server.requests) == [BULK, BULK, SINGLE]


async def test_a_raw_mail_hides_its_bcc(server: SesServer) -> None:
    """Bcc is in the request's destination and not in the message."""
    options = Options(attachments=(FILE,), bcc=("bob@example.com",), cc=("ann@example.com",))
    taken = (await accepted(server, make_mail(1, options=options)))[1]
    assert (taken.cc, taken.bcc) == (("ann@example.com",), ("bob@example.com",))
    assert taken.raw is not None
    assert b"bob@" not in taken.raw
    assert parsed(taken.raw)["Cc"] == "ann@example.com"


@pytest.mark.parametrize("recipient", ["jürgen@example.com", "予約@example.com"])
@pytest.mark.parametrize("options", [Options(), Options(attachments=(FILE,))], ids=["bulk", "raw"])
async def test_a_local_part_that_is_not_ascii_is_refused_unasked(
    server: SesServer, recipient: str, options: Options
) -> None:
    """SES has no SMTPUTF8: such a mail is refused without a request, and the others go."""
    outcomes = await deliver(server, [make_mail(1, recipient=recipient, options=options), make_mail(2)])
    assert isinstance(outcomes[1], Refused)
    assert by_seq(server).keys() == {2}
    assert len(server.requests) == 1


@pytest.mark.parametrize("field", ["cc", "bcc", "reply_to", "from_address"])
async def test_nor_does_a_copy_or_a_sender_go_by_smtputf8(server: SesServer, field: str) -> None:
    """The same holds for everybody in the mail."""
    people = ("jürgen@example.com",)
    options = Options(**{field: people if field in ("cc", "bcc") else people[0]})  # type: ignore[arg-type]
    outcomes = await deliver(server, [make_mail(1, options=options)])
    assert isinstance(outcomes[1], Refused)
    assert server.requests == []


@pytest.mark.parametrize("options", [Options(), Options(attachments=(FILE,))], ids=["bulk", "raw"])
async def test_a_domain_in_other_letters_goes_as_punycode(server: SesServer, options: Options) -> None:
    """IDNA for the recipient, copies and sender."""
    options = msgspec.structs.replace(options, cc=("ann@straße.example",), from_address="s@bücher.example")
    taken = (await accepted(server, make_mail(1, recipient="ann@bücher.example", options=options)))[1]
    assert (taken.to, taken.cc) == (("ann@xn--bcher-kva.example",), ("ann@xn--strae-oqa.example",))
    assert parseaddr(taken.sender)[1] == "s@xn--bcher-kva.example"


async def test_many_copies_are_told_before_ses_says_it(server: SesServer) -> None:
    """Fifty people are one mail's limit: a mail to more is refused and the others go."""
    sender = "s1@example.org"
    many = Options(from_address=sender, cc=tuple(f"c{number}@example.com" for number in range(50)))
    outcomes = await deliver(server, [make_mail(1, options=many), make_mail(2, options=Options(from_address=sender))])
    assert isinstance(outcomes[1], Refused)
    assert isinstance(outcomes[2], Accepted)


async def test_big_mails_share_a_call_only_as_far_as_it_goes(server: SesServer) -> None:
    """A request with an inline template has 1 MB at most."""
    mails = [make_mail(seq, text="x" * 100_000, options=Options(from_address="s1@example.org")) for seq in range(1, 31)]
    await accepted(server, *mails)
    assert max(request.size for request in server.requests) <= 2**20
    assert len(server.requests) <= 5


def decoded(person: str) -> tuple[str, str]:
    """Name and address as a reader sees them."""
    address = parsed(f"To: {person}\r\n\r\n".encode())["To"].addresses[0]
    return address.display_name, address.addr_spec


def parsed(raw: bytes) -> EmailMessage:
    """A message by the standard library."""
    message = BytesParser(policy=email.policy.default).parsebytes(raw)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage, kind: str) -> str:
    """A text part."""
    part = message.get_body((kind,))
    assert part is not None
    return str(part.get_content())
