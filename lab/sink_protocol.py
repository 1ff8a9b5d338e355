"""The SMTP conversation of the fast sink (`lab.sink`), with as little work for each mail as Python allows.

It follows RFC 5321, and RFC 2920 (pipelining) for every way to cut the client's bytes into pieces.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import cast

from lab.sink_content import HEADER_SEARCH_LIMIT, identifiers, store
from lab.sink_state import SinkState

SIZE_LIMIT = 26_214_400
LINE_LIMIT = 65_536

# For this text a regular expression is faster than bytes.find, which stumbles over every line end.
_END_OF_CONTENT = re.compile(rb"\r\n\.\r\n")
_END_LENGTH = 5

_ADDRESS = rb'<([^<>"]*(?:"(?:\\.|[^"\\])*"[^<>"]*)*)>'
_MAIL = re.compile(rb"MAIL FROM: ?" + _ADDRESS + rb"(?: (.*))?$", re.IGNORECASE | re.DOTALL)
_RCPT = re.compile(rb"RCPT TO: ?" + _ADDRESS + rb"$", re.IGNORECASE | re.DOTALL)
# A whole simple envelope at once, as pipelining clients send it: most mails in a benchmark.
_ENVELOPE = re.compile(
    rb'MAIL FROM:<([^<>"\r\n\x80-\xff]*)>(?: (?:SIZE=\d{1,7}|BODY=8BITMIME|BODY=7BIT))*\r\n'
    rb'RCPT TO:<([^<>"\r\n\x80-\xff]+)>\r\nDATA\r\n'
)


class SinkProtocol(asyncio.Protocol):
    """One client's connection.

    `_rest` is what is left of the input: an unfinished command line, or within a content only its last few
    bytes, which may be the start of the terminator. All that one read brought is handled before anything is
    written, so it costs at most one write to the ledger and then one to the socket.
    """

    _transport: asyncio.Transport

    def __init__(self, state: SinkState) -> None:
        self._state = state
        self._rest = b""
        self._replies: list[bytes] = []
        self._ledger_lines: list[bytes] = []
        self._greeted = False
        self._paused = False
        self._finished = False
        self._in_content = False
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not inherit from it
        self._state.connections += 1
        self._transport.write(b"220 sink.invalid ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Handle whatever part of the conversation has arrived."""
        if self._rest:
            data = self._rest + data
            self._rest = b""
        position, length = 0, len(data)
        while position < length and not self._paused and not self._finished:
            if self._in_content:
                position = self._read_content(data, position)
            else:
                position = self._read_command(data, position)
        if position < length:
            self._rest = data[position:]
        self._flush()

    def _flush(self) -> None:
        if self._ledger_lines:
            lines = b"".join(self._ledger_lines)
            self._ledger_lines.clear()
            assert self._state.ledger is not None
            # A failed write raises here, which closes the connection without the replies.
            if os.write(self._state.ledger, lines) != len(lines):
                raise OSError("the ledger was cut short")
        if self._replies:
            self._transport.write(b"".join(self._replies))
            self._replies.clear()
        if self._finished:
            self._transport.close()

    def _say(self, text: str) -> None:
        self._replies.append(self._state.reply(text))

    def _reset(self) -> None:
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._international = False

    # Content

    def _read_content(self, data: bytes, start: int) -> int:
        if self._at_start and data.startswith(b".\r\n", start):
            self._accept(b"")
            return start + 3
        end = _END_OF_CONTENT.search(data, start)
        if end is None:
            self._keep(data, start)
            return len(data)
        self._accept(data[start : end.start() + 2])
        return end.end()

    def _keep(self, data: bytes, start: int) -> None:
        cut = len(data) - _END_LENGTH + 1
        if cut > start:
            self._at_start = False
            if self._state.maildir is not None:
                self._pieces.append(data[start:cut])
            elif self._kept < HEADER_SEARCH_LIMIT:  # nothing but the headers will be wanted
                self._pieces.append(data[start : min(cut, start + HEADER_SEARCH_LIMIT)])
                self._kept += len(self._pieces[-1])
        self._rest = data[max(cut, start) :]

    def _accept(self, content: bytes) -> None:
        if self._pieces:
            content = b"".join(self._pieces) + content
        state = self._state
        state.accepted += 1
        if state.ledger is not None:
            job, message = identifiers(content)
            recipients = b",".join(self._recipients)
            self._ledger_lines.append(b"%.6f %b %b %b\n" % (time.time(), job, message, recipients))
        if state.maildir is not None:
            state.stored += 1
            store(state.maildir, state.stored, content)
        self._in_content = False
        self._reset()
        if state.reply_delay:
            # Nothing more is read from this client until the reply, as in a server that is still at work.
            self._paused = True
            asyncio.get_running_loop().call_later(state.reply_delay, self._resume)
        else:
            self._say("250 2.0.0 accepted")

    def _resume(self) -> None:
        self._paused = False
        if not self._transport.is_closing():
            self._say("250 2.0.0 accepted")
            self.data_received(b"")

    # Commands

    def _read_command(self, data: bytes, start: int) -> int:
        if self._state.takes_any_envelope and self._greeted and self._sender is None:
            envelope = _ENVELOPE.match(data, start)
            if envelope is not None:
                self._sender, recipient = envelope.groups()
                self._recipients.append(recipient)
                self._expect_content("250 2.1.0 ok\r\n250 2.1.5 ok\r\n354 go ahead")
                return envelope.end()
        end = data.find(b"\r\n", start)
        if end < 0:
            if len(data) - start > LINE_LIMIT:
                self._say("500 5.5.2 line too long")
                self._finished = True
            self._rest = data[start:]
            return len(data)
        line = data[start:end]
        handler = _COMMANDS.get(line.partition(b" ")[0].upper(), SinkProtocol._unknown)
        handler(self, line)
        return end + 2

    def _hello(self, line: bytes) -> None:
        if not line[5:].strip():
            self._say("501 5.5.4 a name is missing")
            return
        self._greeted = True
        self._reset()
        names = [f"SIZE {SIZE_LIMIT}" if name == "SIZE" else name for name in self._state.extensions]
        lines = ["sink.invalid", *(names if line[:1] in b"Ee" else [])]
        self._replies.extend(f"250-{name}\r\n".encode() for name in lines[:-1])
        self._replies.append(f"250 {lines[-1]}\r\n".encode())

    def _mail(self, line: bytes) -> None:
        match = _MAIL.match(line)
        if match is None:
            self._say("501 5.5.4 syntax: MAIL FROM:<address>")
        elif not self._greeted:
            self._say("503 5.5.1 say EHLO first")
        elif self._sender is not None:
            self._say("503 5.5.1 nested MAIL")
        elif self._take_parameters(match[2] or b"") and self._readable(line):
            self._sender = match[1]
            self._say("250 2.1.0 ok")

    def _take_parameters(self, text: bytes) -> bool:
        for parameter in text.upper().split():
            name, _, value = parameter.partition(b"=")
            extension = _PARAMETERS.get(name, "")
            if extension not in self._state.extensions:
                self._say("555 5.5.4 unknown parameter")
                return False
            if extension == "SIZE" and not value.isdigit():
                self._say("501 5.5.4 SIZE is not a number")
                return False
            if extension == "SIZE" and int(value) > SIZE_LIMIT:
                self._say("552 5.3.4 too large")
                return False
        self._international = b"SMTPUTF8" in text.upper()
        return True

    def _rcpt(self, line: bytes) -> None:
        match = _RCPT.match(line)
        if match is None or not match[1]:
            self._say("501 5.5.4 syntax: RCPT TO:<address>")
        elif self._sender is None:
            self._say("503 5.5.1 MAIL comes first")
        elif self._readable(line) and not self._refused(match[1]):
            self._recipients.append(match[1])
            self._say("250 2.1.5 ok")

    def _readable(self, line: bytes) -> bool:
        if line.isascii() or self._international:
            return True
        self._say("553 5.6.7 this address needs SMTPUTF8")
        return False

    def _refused(self, recipient: bytes) -> bool:
        state = self._state
        if not state.refuse and not state.refuse_first:
            return False
        address = recipient.decode(errors="replace").lower()
        if any(fnmatchcase(address, pattern) for pattern in state.refuse):
            self._say("550 5.1.1 no such mailbox")
            return True
        for pattern, times in state.refuse_first:
            refused = state.refusals.get((pattern, address), 0)
            if refused < times and fnmatchcase(address, pattern):
                state.refusals[pattern, address] = refused + 1
                self._say("451 4.3.0 try again later")
                return True
        return False

    def _data(self, line: bytes) -> None:
        if not self._recipients:
            self._say("503 5.5.1 no valid recipients")
        else:
            self._expect_content("354 go ahead")

    def _expect_content(self, reply: str) -> None:
        self._in_content = True
        self._at_start = True
        self._pieces: list[bytes] = []
        self._kept = 0
        self._say(reply)

    def _rset(self, _line: bytes) -> None:
        self._reset()
        self._say("250 2.0.0 ok")

    def _noop(self, _line: bytes) -> None:
        self._say("250 2.0.0 ok")

    def _quit(self, _line: bytes) -> None:
        self._say("221 2.0.0 bye")
        self._finished = True

    def _unknown(self, _line: bytes) -> None:
        self._say("500 5.5.2 unknown command")


_COMMANDS: Mapping[bytes, Callable[[SinkProtocol, bytes], None]] = {
    b"EHLO": SinkProtocol._hello,
    b"HELO": SinkProtocol._hello,
    b"MAIL": SinkProtocol._mail,
    b"RCPT": SinkProtocol._rcpt,
    b"DATA": SinkProtocol._data,
    b"RSET": SinkProtocol._rset,
    b"NOOP": SinkProtocol._noop,
    b"QUIT": SinkProtocol._quit,
}
_PARAMETERS = {b"SIZE": "SIZE", b"BODY": "8BITMIME", b"SMTPUTF8": "SMTPUTF8"}
