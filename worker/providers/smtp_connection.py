"""One SMTP connection at work: RFC 5321 with PIPELINING (RFC 2920), one round trip a mail.

RFC 2920 lets a message's content open the next group of commands, so the content of one mail and the envelope of the
next leave in one write. If the connection dies then, the mail whose content went is Unknown; the one of which only the
envelope went was not sent and goes over another connection. Without PIPELINING it is one command at a time.

Opening a connection, TLS and AUTH are `smtp.py`'s part. This class is driven by the event loop alone: no task, no
stream, no await per mail.
"""

import asyncio
from collections import deque

from worker.job import TOO_LATE, Accepted, Failed, NotSent, Outcome, Refused, Unknown
from worker.providers.base import HandOver
from worker.providers.smtp_answers import failed
from worker.providers.smtp_envelope import Command, Expect, Extensions, envelope, transparent, unfit
from worker.providers.smtp_pool import Limits, Owner, Parcel

# A reply line longer than this is not SMTP (RFC 5321 allows 512).
LONGEST_REPLY = 8192
MOST_REPLY_LINES = 100
# A mail whose envelope is lost twice is told so: the third connection would not be better.
MOST_ENVELOPES = 2

DEADLINE = "the batch's deadline passed"


class SmtpConnection(asyncio.Protocol):
    """An open, authenticated connection. `kick` makes it look for work; it goes on by itself while there is some."""

    def __init__(self, owner: Owner, transport: asyncio.Transport, extensions: Extensions, limits: Limits) -> None:
        self.extensions = extensions
        self._owner = owner
        self._transport = transport
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._expected: deque[Expect] = deque()
        self._unsent: deque[Command] = deque()
        self._tail = b""
        self._earlier_lines: list[bytes] = []
        self._content: Parcel | None = None
        self._envelope: Parcel | None = None
        self._recipients = 0
        self._problem: Outcome | None = None
        self._needs_reset = False
        self._is_retiring = False
        self._is_closed = False
        self._is_withdrawn = False
        self._mails = 0
        self._last_write = self._loop.time()
        self._timer = self._loop.call_later(min(limits.idle_seconds, limits.answer_seconds), self._look_at_the_clock)

    @property
    def is_idle(self) -> bool:
        """Whether it would take a mail now."""
        return self._content is None and self._envelope is None and not self._is_closed and not self._is_retiring

    def kick(self) -> None:
        """Look for work."""
        if self.is_idle:
            self._write(self._next_envelope())

    def withdraw(self, hand_over: HandOver) -> None:
        """A batch's time is up: let go of its mails, without a doubt for those of others."""
        if _is_of(self._content, hand_over) or (self._content is None and _is_of(self._envelope, hand_over)):
            self.give_up(DEADLINE, is_ours=True)
        elif self._envelope is not None and _is_of(self._envelope, hand_over) and not self._is_withdrawn:
            # Another batch's content goes first; when DATA is answered the connection ends.
            self._is_withdrawn = True
            self._owner.finished(self._envelope, NotSent(TOO_LATE))

    def retire(self) -> None:
        """Take no more mails; finish what is in hand."""
        self._is_retiring = True
        self._go_on()

    def give_up(self, why: str, *, is_ours: bool = False) -> None:
        """End the connection now, answers or not; `is_ours`: by our own doing, not the server's."""
        if self._is_closed:
            return
        self._is_closed = True
        self._timer.cancel()
        self._transport.abort()
        self._release(why, is_ours)

    # What asyncio calls

    def data_received(self, data: bytes) -> None:
        """Replies, in any cut."""
        if self._tail:
            data = self._tail + data
        *lines, self._tail = data.split(b"\n")
        if len(self._tail) > LONGEST_REPLY:
            self.give_up("the server sent a line that is not SMTP")
        for line in lines:
            if self._is_closed:
                return
            self._line(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by the server's doing or the network's."""
        if not self._is_closed:
            self.give_up(f"the connection was lost ({exc})" if exc else "the server closed the connection")

    # Replies

    def _line(self, line: bytes) -> None:
        code, mark = line[:3], line[3:4]
        if len(code) < 3 or not code.isdigit() or mark not in (b" ", b"-", b"", b"\r"):
            self.give_up("the server sent a line that is not SMTP")
        elif mark != b"-":
            self._reply(int(code), line)
            self._earlier_lines.clear()
        elif len(self._earlier_lines) < MOST_REPLY_LINES:
            self._earlier_lines.append(line)

    def _words(self, line: bytes) -> str:
        """The reply in the server's own words: only read when somebody wants them."""
        text = b" ".join([*(earlier[4:].strip() for earlier in self._earlier_lines), line[4:].strip()])
        return f"{line[:3].decode('ascii')} {text.decode('utf-8', 'replace')}"

    def _reply(self, code: int, line: bytes) -> None:
        if code == 421:
            self._is_retiring = True
        if not self._expected:
            self.give_up(f"unexpected reply: {self._words(line)}")
            return
        expected = self._expected.popleft()
        if expected is Expect.CONTENT:
            self._content_answered(code, line)
        elif expected is Expect.DATA:
            self._data_answered(code, line)
        elif expected is Expect.RCPT:
            self._recipient_answered(code, line)
        elif code // 100 != 2:
            if expected is Expect.MAIL:
                self._problem = failed(self._words(line), is_providers_fault=True)
            else:
                self._is_retiring = True
        if self._unsent and not self._expected:
            self._send_next_command()

    def _recipient_answered(self, code: int, line: bytes) -> None:
        number, self._recipients = self._recipients, self._recipients + 1
        if code // 100 == 2 or self._envelope is None:
            return
        words = self._words(line)
        if number > 0:
            address = self._envelope.message.recipients[number]
            self._envelope.noted.append(f"{address.rpartition('@')[2]}: {words}")
        elif self._problem is None:
            if code // 100 == 5:
                self._problem = Refused(words)
            else:
                self._problem = failed(words, is_providers_fault=code == 421)

    def _data_answered(self, code: int, line: bytes) -> None:
        parcel, self._envelope = self._envelope, None
        assert parcel is not None
        if self._is_withdrawn:
            self.give_up(DEADLINE, is_ours=True)
            return
        if code == 354:
            if self._problem is None and parcel.hand_over.may_go():
                self._write_content(parcel)
                return
            # The server now waits for content that must not go: only closing takes the mail back.
            outcome = self._problem or NotSent(TOO_LATE)
            self._owner.finished(parcel, outcome)
            self.give_up("a mail was taken back")
            return
        self._needs_reset = True
        self._owner.finished(parcel, self._problem or failed(self._words(line), is_providers_fault=True))
        self._go_on()

    def _content_answered(self, code: int, line: bytes) -> None:
        parcel, self._content = self._content, None
        assert parcel is not None
        words = self._words(line)
        if code // 100 == 2:
            if parcel.noted:
                words = f"{words} (refused for {'; '.join(parcel.noted)})"
            self._owner.finished(parcel, Accepted(parcel.message.message_id, words))
        elif code // 100 == 5:
            self._owner.finished(parcel, Refused(words))
        else:
            self._owner.finished(parcel, failed(words, is_providers_fault=code == 421))
        if self._envelope is None:
            self._go_on()

    # Commands

    def _go_on(self) -> None:
        if self._content is not None or self._envelope is not None or self._is_closed:
            return
        if self._is_retiring or self._mails >= self._limits.mails:
            self._quit()
        else:
            self._write(self._next_envelope())

    def _next_envelope(self) -> bytes:
        """Take the next mail; its commands, or with no PIPELINING the first of them."""
        if self._is_retiring or self._mails >= self._limits.mails:
            return b""
        parcel = self._owner.next_parcel()
        while parcel is not None and (refusal := unfit(parcel.message, self.extensions)) is not None:
            self._owner.finished(parcel, refusal)
            parcel = self._owner.next_parcel()
        if parcel is None:
            return b""
        self._envelope = parcel
        parcel.noted.clear()
        self._problem = None
        self._recipients = 0
        self._mails += 1
        after_reset, self._needs_reset = self._needs_reset, False
        return self._group(envelope(parcel.message, self.extensions, after_reset=after_reset))

    def _group(self, commands: list[Command]) -> bytes:
        if self.extensions.pipelining:
            self._expected.extend(expect for expect, _ in commands)
            return b"".join(command for _, command in commands)
        self._unsent.extend(commands)
        expect, command = self._unsent.popleft()
        self._expected.append(expect)
        return command

    def _send_next_command(self) -> None:
        """Without PIPELINING: the next one, unless the mail has failed already."""
        if self._problem is not None and self._envelope is not None:
            parcel, self._envelope = self._envelope, None
            self._unsent.clear()
            self._needs_reset = True
            self._owner.finished(parcel, self._problem)
            self._go_on()
            return
        expect, command = self._unsent.popleft()
        self._expected.append(expect)
        self._write(command)

    def _write_content(self, parcel: Parcel) -> None:
        self._content = parcel
        self._expected.append(Expect.CONTENT)
        following = self._next_envelope() if self.extensions.pipelining else b""
        self._write(b"".join((transparent(parcel.message.content), b".\r\n", following)))

    def _write(self, data: bytes) -> None:
        if data:
            self._last_write = self._loop.time()
            self._transport.write(data)

    # Ends

    def _quit(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._timer.cancel()
            self._transport.write(b"QUIT\r\n")
            self._transport.close()
            self._owner.closed(self)

    def _release(self, why: str, is_ours: bool) -> None:
        """Give back what was in hand when the connection ended."""
        content, self._content = self._content, None
        envelope, self._envelope = self._envelope, None
        self._owner.closed(self)
        if content is not None:
            self._owner.finished(content, Unknown(f"no answer to the content: {why}"))
        if envelope is None or self._is_withdrawn:
            return
        if self._problem is not None:
            self._owner.finished(envelope, self._problem)
            return
        # Behind a content it was only in the wrong place; alone, it may be what the server dislikes.
        envelope.envelopes += 0 if content is not None or is_ours else 1
        if envelope.envelopes < MOST_ENVELOPES:
            self._owner.put_back(envelope)
        else:
            self._owner.finished(envelope, Failed(f"no answer to the envelope: {why}", is_providers_fault=True))

    def _look_at_the_clock(self) -> None:
        """Neither an answer nor an idle connection is waited for longer than the limits say."""
        silent = self._loop.time() - self._last_write
        limit = self._limits.idle_seconds if self.is_idle else self._limits.answer_seconds
        if silent < limit:
            pause = min(limit - silent, self._limits.idle_seconds, self._limits.answer_seconds)
            self._timer = self._loop.call_later(pause + 0.01, self._look_at_the_clock)
        elif self.is_idle:
            self._quit()
        else:
            self.give_up(f"nothing came for {silent:.0f} s")


def _is_of(parcel: Parcel | None, hand_over: HandOver) -> bool:
    return parcel is not None and parcel.hand_over is hand_over
