"""Opening SMTP connections: TCP, EHLO, STARTTLS or TLS, AUTH. aiosmtplib does it, certificates checked.

What comes out is a transport that is ready for mail, and what the server offers on it.
"""

import asyncio
import socket
import ssl
from typing import cast

import aiosmtplib
import msgspec

from worker.errors import ProviderUnreachable
from worker.providers.smtp_envelope import Extensions
from worker.settings import Encryption, Secret

CONNECT_SECONDS = 10.0


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
        username=server.username or None,
        password=server.password.reveal() or None,
        use_tls=server.encryption == "tls",
        start_tls=server.encryption == "starttls",
        timeout=min(CONNECT_SECONDS, most_seconds),
        local_hostname=socket.gethostname(),
    )
    try:
        await client.connect()
        if client.is_ehlo_or_helo_needed:
            await _greet(client)
    except (aiosmtplib.SMTPException, OSError, ssl.SSLError, ValueError) as error:
        client.close()
        raise ProviderUnreachable(f"{name} ({server.host}:{server.port}): {_words(error)}") from None
    transport, extensions = cast(asyncio.Transport, client.transport), _extensions(client)
    # The client must not close what it no longer owns.
    client.transport = client.protocol = None
    return transport, extensions


async def _greet(client: aiosmtplib.SMTP) -> None:
    """EHLO, or HELO for a server of the old days."""
    try:
        await client.ehlo()
    except aiosmtplib.SMTPHeloError:
        await client.helo()


def _words(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{error.code} {error.message}"
    return str(error) or type(error).__name__


def _extensions(client: aiosmtplib.SMTP) -> Extensions:
    offered = client.esmtp_extensions
    size = offered.get("size")
    return Extensions(
        pipelining="pipelining" in offered,
        eight_bit="8bitmime" in offered,
        smtputf8="smtputf8" in offered,
        size=None if size is None else int(size) if size.isdigit() else 0,
    )
