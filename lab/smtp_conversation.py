"""One connection of the scripted SMTP server: RFC 5321 as usual, and the script wherever it has a say."""

import asyncio
import re
from collections.abc import Callable

from lab.smtp_auth import MECHANISMS, Credentials, exchange
from lab.smtp_channel import Channel, EndedError
from lab.smtp_offer import NAME, Offer
from lab.smtp_script import (
    Action,
    ConnectionRecord,
    Context,
    Delay,
    Drop,
    Garbage,
    ReceivedMail,
    Script,
    Stall,
)

DROP_MID_DEFAULT = 256

_PATH = re.compile(r"\w+ (?:FROM|TO):\s*<([^<>]*)>\s*(.*)$", re.IGNORECASE | re.DOTALL)
_ENHANCED_CODE = re.compile(r"^(\d{3} )\d\.\d\.\d ")


class Conversation:
    """One client's connection, from the greeting to its end."""

    def __init__(
        self,
        script: Callable[[], Script],
        offer: Offer,
        mails: list[ReceivedMail],
        record: ConnectionRecord,
        channel: Channel,
    ) -> None:
        self._script = script
        self._offer = offer
        self._mails = mails
        self._record = record
        self._channel = channel
        self._mail_count = 0
        self._sender: str | None = None
        self._recipient = ""
        self._recipients: list[str] = []
        self._parameters: tuple[str, ...] = ()

    async def run(self) -> None:
        """Hold the conversation and close the connection."""
        reset = False
        try:
            await self._converse()
        except EndedError as end:
            self._record.ended, reset = end.reason, end.reset
        except (OSError, asyncio.IncompleteReadError):  # OSError covers failed TLS handshakes, too
            self._record.ended = "client"
        except asyncio.CancelledError:
            self._record.ended = "stopped"
        finally:
            self._channel.close(reset=reset, abort=self._record.ended == "stopped")

    async def _converse(self) -> None:
        if self._offer.implicit_tls:
            await self._start_tls()
        await self._answer("greeting", f"220 {NAME} ESMTP")
        while True:
            await self._command(await self._channel.line())

    # The script

    def _decide(self, step: str) -> Action:
        decided: Action | Callable[[Context], Action] = getattr(self._script(), step)
        return decided(self._context()) if callable(decided) else decided

    def _context(self) -> Context:
        return Context(
            connection=self._record.number,
            mail=self._mail_count,
            sender=self._sender or "",
            recipient=self._recipient,
            recipients=tuple(self._recipients),
            line=self._record.commands[-1] if self._record.commands else "",
            tls=self._record.tls,
            user=self._record.user,
        )

    async def _answer(self, step: str, usual: str) -> str:
        """Do what the script says at this step, and return the reply ("" for garbage)."""
        return await self._act(self._decide(step), usual)

    async def _wait(self, action: Action) -> Action:
        """Sit out the delays before an action, and return it."""
        while isinstance(action, Delay):
            await self._channel.flush()
            await asyncio.sleep(action.seconds)
            action = action.then
        return action

    async def _act(self, action: Action, usual: str) -> str:
        action = await self._wait(action)
        match action:
            case None:
                return await self._reply(self._plain(usual))
            case str(text):
                return await self._reply(text)
            case Garbage(data):
                self._channel.send(data)
                return ""
            case Stall():
                await self._channel.swallow()
                return ""
            case Drop(reset):
                await self._channel.flush()
                raise EndedError("dropped", reset=reset)
            case other:
                raise TypeError(f"not an action for this step: {other!r}")

    async def _reply(self, text: str) -> str:
        lines = text.encode(errors="surrogateescape").split(b"\n")
        self._channel.send(b"".join(line.rstrip(b"\r") + b"\r\n" for line in lines))
        if text.startswith("421"):
            await self._channel.flush()
            raise EndedError("dropped")
        return text

    def _plain(self, text: str) -> str:
        return text if self._offers("ENHANCEDSTATUSCODES") else _ENHANCED_CODE.sub(r"\1", text)

    # Commands

    async def _command(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        match verb.upper():
            case "EHLO":
                self._reset()
                await self._answer("ehlo", self._offer.lines(tls=self._record.tls))
            case "HELO":
                self._reset()
                await self._answer("helo", f"250 {NAME}")
            case "STARTTLS":
                await self._starttls()
            case "AUTH":
                await self._auth(argument)
            case "MAIL":
                await self._mail(line)
            case "RCPT":
                await self._rcpt(line)
            case "DATA":
                await self._data()
            case "RSET":
                self._reset()
                await self._answer("rset", "250 2.0.0 ok")
            case "NOOP":
                await self._answer("noop", "250 2.0.0 ok")
            case "QUIT":
                await self._answer("quit", "221 2.0.0 bye")
                await self._channel.flush()
                raise EndedError("quit")
            case _:
                await self._reply(self._plain("500 5.5.2 unknown command"))

    def _reset(self) -> None:
        self._sender = None
        self._recipients.clear()
        self._parameters = ()

    def _offers(self, name: str) -> bool:
        return self._offer.includes(name, tls=self._record.tls)

    async def _starttls(self) -> None:
        usual = "220 2.0.0 go ahead" if self._offers("STARTTLS") else "503 5.5.1 not offered"
        if (await self._answer("starttls", usual)).startswith("220"):
            await self._start_tls()
            self._reset()

    async def _start_tls(self) -> None:
        await self._channel.flush()
        action = await self._wait(self._decide("handshake"))
        if action is not None or self._offer.tls is None:
            await self._act(action, "")
            await self._channel.swallow()
        assert self._offer.tls is not None
        await self._channel.start_tls(self._offer.tls)

    async def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        action = await self._wait(self._decide("auth"))
        if action is not None:
            succeeded = (await self._act(action, "")).startswith("2")
        elif self._offer.credentials is None or mechanism.upper() not in MECHANISMS:
            await self._reply(self._plain("504 5.5.4 not offered"))
            return
        else:
            succeeded = await self._login(mechanism.upper(), initial or None, self._offer.credentials)
            await self._reply(self._plain("235 2.7.0 welcome" if succeeded else "535 5.7.8 wrong user or password"))
        if succeeded:
            self._record.user = self._offer.credentials.user if self._offer.credentials else ""

    async def _login(self, mechanism: str, initial: str | None, expected: Credentials) -> bool:
        login = exchange(mechanism, initial, expected)
        try:
            challenge = next(login)
            while True:
                await self._reply(f"334 {challenge}")
                challenge = login.send(await self._channel.line())
        except StopIteration as end:
            return bool(end.value)

    async def _mail(self, line: str) -> None:
        self._mail_count += 1
        path = _PATH.match(line)
        parameters = tuple(path[2].split()) if path else ()
        if path is None:
            usual = "501 5.5.4 syntax: MAIL FROM:<address>"
        elif self._sender is not None:
            usual = "503 5.5.1 nested MAIL"
        else:
            usual = self._offer.refusal(line, parameters, tls=self._record.tls) or "250 2.1.0 ok"
        previous, self._sender = self._sender, path[1] if path else ""  # the script's function sees this one
        self._recipient = ""
        if (await self._answer("mail", usual)).startswith("2"):
            self._recipients.clear()
            self._parameters = parameters
        else:
            self._sender = previous

    async def _rcpt(self, line: str) -> None:
        path = _PATH.match(line)
        utf8 = any(parameter.upper() == "SMTPUTF8" for parameter in self._parameters)
        if self._sender is None:
            usual = "503 5.5.1 MAIL comes first"
        elif path is None or not path[1]:
            usual = "501 5.5.4 syntax: RCPT TO:<address>"
        else:
            usual = "250 2.1.5 ok" if utf8 or line.isascii() else "553 5.6.7 this address needs SMTPUTF8"
        self._recipient = path[1] if path else ""
        if (await self._answer("rcpt", usual)).startswith("2"):
            self._recipients.append(self._recipient)

    async def _data(self) -> None:
        usual = "354 go ahead" if self._recipients else "503 5.5.1 no valid recipients"
        if not (await self._answer("data", usual)).startswith("354"):
            return
        body = self._script().body
        drop = body(self._context()) if callable(body) else body
        if drop is not None:
            await self._channel.flush()
            await self._channel.part_of_content(self._half() if drop.after is None else drop.after)
            raise EndedError("dropped", reset=drop.reset)
        await self._take(await self._channel.content())

    def _half(self) -> int:
        sizes = [text.partition("=")[2] for text in self._parameters if text.upper().startswith("SIZE=")]
        return int(sizes[0]) // 2 if sizes and sizes[0].isdigit() else DROP_MID_DEFAULT

    async def _take(self, content: bytes) -> None:
        action = self._decide("content")
        outcome = action
        while isinstance(outcome, Delay):
            outcome = outcome.then
        mail = ReceivedMail(
            sender=self._sender or "",
            recipients=tuple(self._recipients),
            parameters=self._parameters,
            content=content,
            connection=self._record.number,
            tls=self._record.tls,
            user=self._record.user,
            accepted=outcome is None or (isinstance(outcome, str) and outcome.startswith("2")),
        )
        self._mails.append(mail)  # before the reply, and also when there will be none
        await self._act(action, "250 2.0.0 accepted")
        self._reset()
