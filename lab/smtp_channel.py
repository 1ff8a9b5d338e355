"""The input and output of one connection of the scripted SMTP server.

Replies are held back until more input is needed, as pipelining (RFC 2920) wants it.
"""

import asyncio
import socket
import ssl
import struct

from lab.smtp_script import ConnectionRecord

READ_SIZE = 65_536


class EndedError(Exception):
    """The conversation is over: why, and whether by a TCP reset."""

    def __init__(self, reason: str, *, reset: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reset = reset


class Channel:
    """The lines, contents and replies of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: ConnectionRecord) -> None:
        self._reader = reader
        self._writer = writer
        self._record = record
        self._input = bytearray()
        self._output = bytearray()

    def send(self, data: bytes) -> None:
        """Queue a reply, or part of one."""
        self._output += data

    async def flush(self) -> None:
        """Send what is queued."""
        data = bytes(self._output)
        self._output.clear()
        if data:
            self._writer.write(data)
            await self._writer.drain()

    async def line(self) -> str:
        """The client's next line."""
        if self._input and self._output:
            self._record.pipelined += 1
        while (end := self._input.find(b"\r\n")) < 0:
            await self._fill()
        line = self._input[:end].decode(errors="surrogateescape")
        del self._input[: end + 2]
        self._record.commands.append(line)
        return line

    async def content(self) -> bytes:
        """A mail's content up to its final dot, with dots unstuffed."""
        self._input[:0] = b"\r\n"  # the end of the DATA line is part of an empty content's terminator
        searched = 0
        while (end := self._input.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self._input) - 4)
            await self._fill()
        content = bytes(self._input[: end + 2])
        del self._input[: end + 5]
        return content.replace(b"\r\n.", b"\r\n")[2:]

    async def part_of_content(self, length: int) -> None:
        """Read about this much of a content, and never more than one read beyond it."""
        while len(self._input) < length and b"\r\n.\r\n" not in self._input:
            await self._fill()

    async def swallow(self) -> None:
        """Read on without ever answering, until the client gives up."""
        await self.flush()
        while await self._reader.read(READ_SIZE):
            pass
        raise EndedError("client")

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Perform the server's side of a TLS handshake."""
        await self.flush()
        self._input.clear()  # what came in the clear must not be taken for part of the secure conversation
        # Before Python 3.12 the reader keeps pausing and resuming the old transport, which loses input; the
        # server gives the stream a limit that is never reached.
        await self._writer.start_tls(context)
        self._record.tls = True

    def close(self, *, reset: bool, abort: bool) -> None:
        """Close the connection: after what was written, or at once, or at once and with a TCP reset."""
        connection = self._writer.get_extra_info("socket")
        if reset and connection is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reset or abort:
            self._writer.transport.abort()
        else:
            self._writer.close()

    async def _fill(self) -> None:
        await self.flush()
        data = await self._reader.read(READ_SIZE)
        if not data:
            raise EndedError("client")
        self._record.reads += 1
        self._input += data
