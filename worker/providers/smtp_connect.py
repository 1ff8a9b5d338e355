"""Opening SMTP connections: TCP, EHLO, STARTTLS or TLS, AUTH. aiosmtplib does it, certificates checked.

What comes out is a transport that is ready for mail, and what the server offers on it.
"""

import asyncio
import base64
import socket
import ssl
from typing import cast

import aiosmtplib
import msgspec

from worker import metrics
from worker.errors import ProviderUnreachable
from worker.providers.smtp_envelope import Extensions
from worker.setting_types import Encryption, Secret

CONNECT_SECONDS = 10.0
SHORTEST_SECRET = 8
SHUTTING_DOWN = 421


class SmtpServer(msgspec.Struct, frozen=True):
    """Where to connect, and as whom."""

    host: str
    port: int
    encryption: Encryption
    username: str
    password: Secret


async def connect(
    name: str, server: SmtpServer, most_seconds: float = CONNECT_SECONDS
) -> tuple[asyncio.Transport, Extensions]:
    """Connect and authenticate. Raises ProviderUnreachable with the server's own words, never with the password."""
    client = aiosmtplib.SMTP(
        hostname=server.host,
        port=server.port,
        use_tls=server.encryption == "tls",
        start_tls=server.encryption == "starttls",
        timeout=min(CONNECT_SECONDS, most_seconds),
        local_hostname=_own_name(),
    )
    try:
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await _greet(client)
        if server.username:
            await _log_in(client, server)
    except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
        client.close()
        words = _without(server, _words(error))
        raise ProviderUnreachable(f"{name} ({server.host}:{server.port}): {words}") from None
    transport, extensions = cast(asyncio.Transport, client.transport), _extensions(client)
    _note_certificate(name, transport)
    # The client must not close what it no longer owns.
    client.transport = client.protocol = None
    return transport, extensions


def _note_certificate(name: str, transport: asyncio.Transport) -> None:
    """Tell the metrics until when the server's certificate is good."""
    secured = transport.get_extra_info("ssl_object")
    ends = (secured.getpeercert() or {}).get("notAfter") if secured is not None else None
    if ends:
        metrics.CERTIFICATE.labels(name).set(ssl.cert_time_to_seconds(ends))


def _own_name() -> str:
    """What EHLO says of us: this host's name, if it is one that may be said."""
    name = socket.gethostname()
    return name if name.isascii() and name.isprintable() and name and " " not in name else "localhost"


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO, or HELO for a server of the old days."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError as error:
        if error.code == SHUTTING_DOWN:
            raise
        await client.helo()


async def _log_in(client: aiosmtplib.SMTP, server: SmtpServer) -> None:
    """AUTH by the first method that the server takes, best first; not by another when it says goodbye."""
    methods = {"cram-md5": client.auth_crammd5, "plain": client.auth_plain, "login": client.auth_login}
    refused: aiosmtplib.SMTPException = aiosmtplib.SMTPException("the server offers no AUTH that we know")
    for name in client.supported_auth_methods:
        if name not in methods:
            continue
        try:
            await methods[name](server.username.encode(), server.password.reveal().encode())
            return
        except aiosmtplib.SMTPAuthenticationError as error:
            refused = error
            if error.code == SHUTTING_DOWN:
                break
    raise refused


def _words(error: BaseException) -> str:
    """The server's own words, if they are anywhere behind this error: the library may report a consequence."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, aiosmtplib.SMTPResponseException):
            return f"{cause.code} {cause.message}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def _without(server: SmtpServer, words: str) -> str:
    """A server's words may repeat ours: the password, or what AUTH makes of it. Short words may be the server's own."""
    password = server.password.reveal()
    plain = f"\0{server.username}\0{password}"
    for form in (password, *(base64.b64encode(text.encode()).decode() for text in (password, plain))):
        if len(form) >= SHORTEST_SECRET:
            words = words.replace(form, "***")
    return words


def _extensions(client: aiosmtplib.SMTP) -> Extensions:
    offered = client.esmtp_extensions
    size = offered.get("size")
    return Extensions(
        pipelining="pipelining" in offered,
        eight_bit="8bitmime" in offered,
        smtputf8="smtputf8" in offered,
        size=None if size is None else int(size) if size.isascii() and size.isdigit() and len(size) < 20 else 0,
    )
