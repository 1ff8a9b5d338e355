"""`email-worker domain check`, against a name server of the test's own, which speaks real DNS."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.integration.command import Command, Ended
from worker.dkim import public_record
from worker.setting_types import Secret

Records = dict[tuple[str, str], list[str]]
KEY = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
SIGNED = {"DKIM_DOMAIN": "example.com", "DKIM_SELECTOR": "mail", "DKIM_PRIVATE_KEY": KEY}
RIGHT: Records = {
    ("example.com.", "TXT"): ['"google-site-verification=1"', '"v=spf1 include:amazonses.com ~all"'],
    ("_dmarc.example.com.", "TXT"): ['"v=DMARC1; p=reject"'],
    ("example.com.", "MX"): ["10 mx.example.com."],
    ("mail._domainkey.example.com.", "TXT"): [
        '"' + public_record(Secret(KEY)).replace("; p=", '; " "p= ') + '"',
    ],
}


@pytest.fixture
def name_server() -> Iterator[tuple[str, Records]]:
    """A name server and its records, which a test may change."""
    records = dict(RIGHT)

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            query = dns.message.from_wire(self.request[0])
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.AA
            question = query.question[0]
            kind = dns.rdatatype.to_text(question.rdtype)
            found = records.get((question.name.to_text(), kind))
            if found is None:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            else:
                answer.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", kind, found))
            self.request[1].sendto(answer.to_wire(), self.client_address)

    with socketserver.UDPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", records
        server.shutdown()
        thread.join()


@pytest.fixture
def check(command: Command) -> Callable[..., Ended]:
    """`email-worker domain check example.com`, with SES as the fallback."""
    settings = {**SIGNED, "EMAIL_PROVIDER_FALLBACK": "ses", "EMAIL_REDIRECT_TO": "me@example.org"}
    return lambda *arguments: command("domain", "check", "example.com", *arguments, **settings)


def test_without_a_resolver_it_says_what_should_be_there(check: Callable[..., Ended]) -> None:
    """Nobody is asked, and nothing is wrong."""
    ended = check()
    assert ended.status == 0
    assert [line.split()[:3] for line in ended.out.splitlines()][::2] == [
        ["should", "be", "SPF:"],
        ["should", "be", "DKIM:"],
        ["should", "be", "DMARC:"],
        ["should", "be", "MX:"],
    ]
    assert "v=spf1 a:localhost include:amazonses.com ~all" in ended.out
    assert public_record(Secret(KEY)) in ended.out


@pytest.mark.parametrize(
    ("host", "word"), [("127.0.0.1", "ip4:127.0.0.1"), ("::1", "ip6:::1"), ("localhost", "a:localhost")]
)
def test_a_server_is_named_as_spf_names_it(command: Command, host: str, word: str) -> None:
    """A host by its name, an address as what it is (RFC 7208, section 5)."""
    assert f"v=spf1 {word} ~all" in command("domain", "check", "example.com", SMTP_HOST=host).out


def test_what_is_right_is_ok(check: Callable[..., Ended], name_server: tuple[str, Records]) -> None:
    """A DKIM record in pieces and with blanks is the same key; other TXT records do not matter."""
    ended = check("--resolver", name_server[0])
    assert (ended.status, ended.err) == (0, "")
    assert [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")] == ["ok"] * 4


@pytest.mark.parametrize(
    ("name", "kind", "there", "what"),
    [
        ("example.com.", "TXT", ['"v=spf1 -all"'], "SPF"),
        ("example.com.", "TXT", ['"v=spf1 include:amazonses.com ~all"', '"v=spf1 -all"'], "SPF"),
        ("_dmarc.example.com.", "TXT", None, "DMARC"),
        ("example.com.", "MX", None, "MX"),
        ("mail._domainkey.example.com.", "TXT", ['"v=DKIM1; k=ed25519; p=AAAA"'], "DKIM"),
        ("mail._domainkey.example.com.", "TXT", None, "DKIM"),
    ],
)
def test_what_is_wrong_is_named(
    check: Callable[..., Ended],
    name_server: tuple[str, Records],
    name: str,
    kind: str,
    there: list[str] | None,
    what: str,
) -> None:
    """One wrong record is status 1, with what is there and what should be."""
    address, records = name_server
    if there is None:
        del records[name, kind]
    else:
        records[name, kind] = there
    ended = check("--resolver", address, "--json")
    assert ended.status == 1
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["what"] for line in found if not line["is_right"]] == [what]


@pytest.mark.parametrize("address", ["nowhere at all", "127.0.0.1:dns"])
def test_a_name_server_that_is_none_is_one_line(check: Callable[..., Ended], address: str) -> None:
    """A mistake in words; a port that is none is not silently another."""
    ended = check("--resolver", address)
    assert ended.status == 1
    assert ended.err == f"email-worker: {address!r} is not the address of a name server, like 1.1.1.1\n"


def test_a_key_that_cannot_be_read_is_one_line(command: Command, tmp_path: Path) -> None:
    """It is a wrong setting."""
    settings = SIGNED | {"DKIM_PRIVATE_KEY": "", "DKIM_PRIVATE_KEY_FILE": str(tmp_path / "none.pem")}
    ended = command("domain", "check", "example.com", **settings)
    assert ended.status == 2
    assert "cannot be read: No such file or directory" in ended.err
