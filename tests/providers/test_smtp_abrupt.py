"""SMTP: a server that closes the connection in the same breath as its last good reply."""

import asyncio
import socket
import struct
from typing import Self

import pytest

from tests.providers.hand_over import RecordingHandOver, send
from tests.providers.mails import make_mails
from tests.providers.services import SmtpRig
from worker.job import Failed


@pytest.mark.parametrize("ends", ["after EHLO", "after HELO", "after AUTH"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_connection_that_ends_with_its_last_good_reply_is_the_providers_fault(
    rig: SmtpRig, ends: str, reset: bool
) -> None:
    """A server that says yes and closes in the same breath is the provider's fault, whichever is noticed first."""
    async with AbruptServer(ends, reset=reset) as server:
        login = {"username": "user", "password": "secret"} if ends == "after AUTH" else {}
        provider = rig.provider(server, **login)
        for number in range(10):
            outcomes = await send(provider, make_mails(2, 10 * number), RecordingHandOver())
            assert all(isinstance(outcome, Failed) and outcome.is_providers_fault for outcome in outcomes.values())


class AbruptServer:
    """Greets, agrees to the last command of an opening, and closes the connection at once."""

    host = "127.0.0.1"

    def __init__(self, ends: str, *, reset: bool) -> None:
        self._ends = ends.split()[1].encode()
        self._reset = reset

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 abrupt.test ESMTP\r\n")
        verb = b""
        while verb != self._ends:
            verb = (await reader.readline())[:4].strip()
            if verb == b"EHLO" and self._ends == b"HELO":
                writer.write(b"502 5.5.1 not here\r\n")
            elif verb == b"AUTH":
                writer.write(b"235 2.7.0 welcome\r\n")
            else:
                writer.write(b"250-abrupt.test\r\n250 AUTH PLAIN\r\n")
        if self._reset:
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()
