"""A scripted SMTP server for tests: a correct one that can be told to misbehave at any step.

    async with ScriptedServer(Script(rcpt=lambda c: "550 5.1.1 no" if c.mail == 2 else None)) as server:
        ...  # connect to server.host, server.port
        assert server.mails[0].content == b"..."

For a client that blocks, `with in_thread(ScriptedServer(...)) as server` runs it in a thread of its own.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Self

from lab.smtp_auth import Credentials
from lab.smtp_channel import Channel
from lab.smtp_conversation import Conversation
from lab.smtp_offer import DEFAULT_EXTENSIONS, Offer
from lab.smtp_script import ConnectionRecord, ReceivedMail, Script

# Input is never throttled: before Python 3.12 a stream that has switched to TLS does not resume (see
# Channel), and tests send little.
STREAM_LIMIT = 2**27


class ScriptedServer:
    """A server on 127.0.0.1 that acts out a script and records everything.

    `script` may be replaced while it runs: each step looks at the present one. AUTH is offered when there are
    credentials, STARTTLS when there is a TLS context (unless `implicit_tls` uses it from the start).
    """

    host = "127.0.0.1"

    def __init__(
        self,
        script: Script = Script(),  # noqa: B008 (it is frozen)
        *,
        port: int = 0,
        extensions: tuple[str, ...] = DEFAULT_EXTENSIONS,
        credentials: tuple[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
    ) -> None:
        self.script = script
        self.port = port
        self.mails: list[ReceivedMail] = []
        self.connections: list[ConnectionRecord] = []
        account = Credentials(*credentials) if credentials else None
        self._offer = Offer(extensions, account, tls, implicit_tls)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def accepted(self) -> list[ReceivedMail]:
        """The mails that were answered with 2xx."""
        return [mail for mail in self.mails if mail.accepted]

    async def start(self) -> None:
        """Listen; after `stop` at the same port again."""
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=STREAM_LIMIT)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection; safe to call twice."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await server.wait_closed()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        record = ConnectionRecord(len(self.connections) + 1)
        self.connections.append(record)
        conversation = Conversation(
            lambda: self.script, self._offer, self.mails, record, Channel(reader, writer, record)
        )
        task = asyncio.get_running_loop().create_task(conversation.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@contextlib.contextmanager
def in_thread(server: ScriptedServer) -> Iterator[ScriptedServer]:
    """Run a server in a thread with an event loop of its own, for clients that block theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted-smtp", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
