"""What the DNS should say of a sender's domain, and what it says: SPF, DKIM, DMARC, MX (RFC 7208, 6376, 7489, 5321)."""

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from worker.dkim import public_record
from worker.errors import EmailWorkerError
from worker.settings import Settings, dkim_key, provider_names

if TYPE_CHECKING:
    import dns.resolver

ANSWER_SECONDS = 5.0
# What each provider asks to be in a sender's SPF record.
_INCLUDES = {"ses": "include:amazonses.com", "sendgrid": "include:sendgrid.net"}

# (name, TXT or MX) -> the records that are there
LookUp = Callable[[str, str], list[str]]


class Expected(NamedTuple):
    """A record that should be there; `is_right` judges the records that are."""

    what: str
    name: str
    kind: str
    example: str
    is_right: Callable[[Sequence[str]], bool]


class Finding(NamedTuple):
    """What was found of an expected record; `is_right` None: nobody was asked."""

    what: str
    name: str
    kind: str
    example: str
    found: list[str]
    is_right: bool | None


def check_domain(domain: str, settings: Settings, look_up: LookUp | None) -> list[Finding]:
    """Each expected record, with what the resolver found. Raises SettingsError for a DKIM key that is none."""
    findings = []
    for record in _expected(domain, settings):
        found = look_up(record.name, record.kind) if look_up else []
        is_right = record.is_right(found) if look_up else None
        findings.append(Finding(record.what, record.name, record.kind, record.example, found, is_right))
    return findings


def _expected(domain: str, settings: Settings) -> list[Expected]:
    expected = [_spf(domain, settings)]
    if settings.dkim_domain and settings.dkim_domain == domain:
        record = public_record(dkim_key(settings))
        name = f"{settings.dkim_selector}._domainkey.{domain}"
        expected.append(Expected("DKIM", name, "TXT", record, lambda found: _key_of(record) in map(_key_of, found)))
    expected.append(
        Expected(
            "DMARC",
            f"_dmarc.{domain}",
            "TXT",
            f"v=DMARC1; p=none; rua=mailto:dmarc@{domain}",
            lambda found: sum(text.startswith("v=DMARC1;") for text in found) == 1,
        )
    )
    expected.append(Expected("MX", domain, "MX", f"10 mail.{domain}.", bool))
    return expected


def _spf(domain: str, settings: Settings) -> Expected:
    needed = [_INCLUDES[name] for name in provider_names(settings) if name in _INCLUDES]
    if any(name.startswith("smtp") for name in provider_names(settings)):
        # Which hosts an SMTP server sends from only its owner knows.
        needed_words = [_sender(settings.smtp_host), *needed]
    else:
        needed_words = needed

    def is_right(found: Sequence[str]) -> bool:
        records = [text.split() for text in found if text.lower().startswith("v=spf1")]
        return len(records) == 1 and all(word in records[0] for word in needed)

    return Expected("SPF", domain, "TXT", " ".join(["v=spf1", *needed_words, "~all"]), is_right)


def _sender(host: str) -> str:
    """A host or an address as RFC 7208, section 5, names those that may send."""
    try:
        return f"ip{ip_address(host).version}:{host}"
    except ValueError:
        return f"a:{host}"


def _key_of(record: str) -> str:
    """The p= of a DKIM record, without the blanks that people put into it."""
    tags = dict(tag.partition("=")[::2] for tag in "".join(record.split()).split(";"))
    return tags.get("p", "")


def resolver(address: str) -> LookUp:
    """Asks the name server at this address, `host` or `host:port`. Raises EmailWorkerError when it does not answer."""
    import dns.exception
    import dns.resolver

    # Several colons are an IPv6 address.
    host, _, port = address.partition(":") if address.count(":") == 1 else (address, "", "")
    asked = dns.resolver.Resolver(configure=False)
    try:
        asked.nameservers = [host]
        asked.port = int(port or 53)
    except ValueError:
        raise EmailWorkerError(f"{address!r} is not the address of a name server, like 1.1.1.1") from None
    asked.lifetime = ANSWER_SECONDS

    def look_up(name: str, kind: str) -> list[str]:
        try:
            return sorted(_text(record) for record in asked.resolve(name, kind))
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        except dns.exception.DNSException as error:
            raise EmailWorkerError(f"the name server {address} gave no answer about {name}: {error}") from None

    return look_up


def _text(record: "dns.resolver.Answer") -> str:
    """A TXT record's pieces as one text; others as they are written."""
    pieces = getattr(record, "strings", None)
    return b"".join(pieces).decode("utf-8", "replace") if pieces is not None else str(record)
