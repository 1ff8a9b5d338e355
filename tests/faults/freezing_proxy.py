"""A way to Postgres that freezes at a chosen statement: from then on nothing passes, and no connection closes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lab.postgres import PostgresServer

READ_SIZE = 65_536


class FreezingProxy:
    """Relays connections to a server's socket until a client sends the `trigger`; that message is swallowed too."""

    host = "127.0.0.1"

    def __init__(self, server: PostgresServer, trigger: bytes) -> None:
        self.port = 0
        self.frozen_at: float | None = None
        self._socket = str(Path(server.socket_folder) / f".s.PGSQL.{server.port}")
        self._trigger = trigger
        self._listening: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        """Listen."""
        self._listening = await asyncio.start_server(self._accept, self.host, 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.add(asyncio.get_running_loop().create_task(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.frozen_at is not None:
            return
        from_server, to_server = await asyncio.open_unix_connection(self._socket)
        self._writers.append(to_server)
        with suppress(OSError):
            await asyncio.gather(self._relay(reader, to_server, self._trigger), self._relay(from_server, writer, None))

    async def _relay(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, trigger: bytes | None) -> None:
        while data := await source.read(READ_SIZE):
            if trigger is not None and trigger in data and self.frozen_at is None:
                self.frozen_at = time.monotonic()
            if self.frozen_at is not None:
                return
            target.write(data)
            await target.drain()
        target.close()

    async def stop(self) -> None:
        """Let go of everything."""
        if self._listening is not None:
            self._listening.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@contextmanager
def freezing_proxy(server: PostgresServer, trigger: bytes) -> Iterator[FreezingProxy]:
    """A proxy in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="freezing proxy", daemon=True)
    thread.start()
    proxy = FreezingProxy(server, trigger)
    try:
        asyncio.run_coroutine_threadsafe(proxy.start(), loop).result()
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(proxy.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
