"""The SMTP provider: a pool of connections, and a bound on the mails that are in its hands.

aiosmtplib opens connections (`smtp_connect`); then `smtp_connection` takes the transport over, because the library's
command sequence costs four round trips a mail. Connections are opened when there is work for them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from worker.compose import Composer
from worker.errors import ComposeError, ProviderUnreachable
from worker.job import TOO_LATE, Failed, Mail, NotSent, Outcome, Refused
from worker.providers.base import HandOver
from worker.providers.smtp_connect import SmtpServer, connect
from worker.providers.smtp_connection import SmtpConnection
from worker.providers.smtp_pool import Limits, Parcel, ParcelQueue
from worker.providers.window import Window

# Intents that may be open per connection: one whose content is out, one whose envelope is, and four to follow, so that
# connections stay busy during a commit of the journal. This is what a kill can leave in doubt.
OPEN_PER_CONNECTION = 6

log = structlog.get_logger(__name__)


class _Sending:
    """One batch's mails that are in the provider's hands."""

    __slots__ = ("done", "outstanding")

    def __init__(self) -> None:
        self.outstanding = 0
        self.done = asyncio.Event()


class SmtpProvider:
    """A provider that speaks SMTP to one server."""

    def __init__(self, name: str, server: SmtpServer, composer: Composer, connections: int, limits: Limits) -> None:
        self.name = name
        self._server = server
        self._composer = composer
        self._most_connections = connections
        self._limits = limits
        self._window = Window(OPEN_PER_CONNECTION * connections)
        self._queue = ParcelQueue()
        self._live: set[SmtpConnection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._sendings: dict[HandOver, _Sending] = {}
        self._eight_bit = False
        self._is_closing = False

    async def send(self, mails: Sequence[Mail], hand_over: HandOver) -> None:
        """Send these; see the contract."""
        sending = self._sendings[hand_over] = _Sending()
        waiting = deque(mails)
        try:
            async with asyncio.timeout_at(hand_over.deadline):
                await self._connected()
                while waiting and hand_over.may_go():
                    await self._hand_over_some(waiting, hand_over, sending)
                while sending.outstanding:
                    sending.done.clear()
                    await sending.done.wait()
        except (TimeoutError, asyncio.CancelledError) as end:
            self._give_up(hand_over)
            if isinstance(end, asyncio.CancelledError):
                raise
        except ProviderUnreachable as error:
            for mail in waiting:
                hand_over.answer(mail, Failed(str(error), is_providers_fault=True))
            waiting.clear()
        finally:
            for mail in waiting:
                hand_over.answer(mail, NotSent(TOO_LATE))
            del self._sendings[hand_over]

    async def _hand_over_some(self, waiting: deque[Mail], hand_over: HandOver, sending: _Sending) -> None:
        """Compose, journal and queue as many as there is room for."""
        room = await self._window.take(len(waiting), is_urgent=hand_over.is_urgent)
        parcels: dict[int, Parcel] = {}
        for mail in [waiting.popleft() for _ in range(room)]:
            parcel = self._compose(mail, hand_over)
            if parcel is not None:
                parcels[mail.job.seq] = parcel
        admitted: list[Mail] = []
        try:
            admitted = await hand_over.admit([parcel.mail for parcel in parcels.values()])
        except asyncio.CancelledError:
            for parcel in parcels.values():
                hand_over.answer(parcel.mail, NotSent(TOO_LATE))
            raise
        finally:
            self._window.give(room - len(admitted))
        sending.outstanding += len(admitted)
        for mail in admitted:
            self._queue.put(parcels[mail.job.seq])
        self._work()

    def _compose(self, mail: Mail, hand_over: HandOver) -> Parcel | None:
        try:
            return Parcel(mail, self._composer.compose(mail, eight_bit=self._eight_bit), hand_over)
        except ComposeError as error:
            hand_over.answer(mail, Refused(str(error)))
            return None

    def _give_up(self, hand_over: HandOver) -> None:
        """The batch's time is up: take back what waits, and end the connections that have its mails in hand."""
        self._take_back(hand_over)
        for connection in tuple(self._live):
            connection.withdraw(hand_over)
        # What only its envelope was out for came back to the queue.
        self._take_back(hand_over)

    def _take_back(self, hand_over: HandOver) -> None:
        for parcel in self._queue.remove(hand_over):
            self.finished(parcel, NotSent(TOO_LATE))

    # The connections' side

    def next_parcel(self) -> Parcel | None:
        """See `smtp_connection.Owner`."""
        while (parcel := self._queue.get()) is not None:
            if parcel.hand_over.may_go():
                return parcel
            self.finished(parcel, NotSent(TOO_LATE))
        return None

    def put_back(self, parcel: Parcel) -> None:
        """See `smtp_connection.Owner`."""
        self._queue.put_first(parcel)
        self._work()

    def finished(self, parcel: Parcel, outcome: Outcome) -> None:
        """See `smtp_connection.Owner`."""
        parcel.hand_over.answer(parcel.mail, outcome)
        sending = self._sendings.get(parcel.hand_over)
        if sending is not None:
            sending.outstanding -= 1
            if sending.outstanding == 0:
                sending.done.set()
        self._window.give(1)

    def closed(self, connection: object) -> None:
        """See `smtp_connection.Owner`."""
        self._live.discard(connection)
        if self._queue:
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        """Give waiting mails to idle connections, and open more where there are not enough."""
        for connection in tuple(self._live):
            if not self._queue:
                return
            connection.kick()
        room = self._most_connections - len(self._live) - len(self._opening)
        for _ in range(min(room, len(self._queue))):
            self._open()

    # Opening

    async def _connected(self) -> None:
        """Return once there is a connection. Raises ProviderUnreachable.

        Each batch makes an attempt of its own while there is room: one that hangs is not everybody's fate.
        """
        attempts = set(self._opening)
        if not self._live and len(self._opening) < self._most_connections:
            attempts.add(self._open())
        while not self._live and attempts:
            ended, attempts = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
            if not self._live and not attempts:
                raise _why(ended.pop())

    def _open(self) -> asyncio.Task[None]:
        task = asyncio.create_task(self._open_connection(), name=f"open {self.name} connection")
        self._opening.add(task)
        task.add_done_callback(self._opened)
        return task

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and task.exception() is None:
            return
        error = _why(task)
        log.warning("no connection to the provider", provider=self.name, error=str(error))
        if not self._live and not self._opening:
            for parcel in self._queue.remove():
                self.finished(parcel, Failed(str(error), is_providers_fault=True))

    async def _open_connection(self) -> None:
        transport, extensions = await connect(self.name, self._server, self._limits.answer_seconds)
        connection = SmtpConnection(self, transport, extensions, self._limits)
        transport.set_protocol(connection)
        if transport.is_closing() or self._is_closing:
            connection.give_up("closed while it was opened")
            raise ProviderUnreachable(f"{self.name} ({self._server.host}): the server closed the connection at once")
        self._eight_bit = extensions.eight_bit and all(other.extensions.eight_bit for other in self._live)
        self._live.add(connection)
        connection.kick()

    async def close(self) -> None:
        """Finish politely; nothing is in hand any more when the worker closes its providers."""
        self._is_closing = True
        for task in tuple(self._opening):
            task.cancel()
        for connection in tuple(self._live):
            connection.retire()
        # One turn of the loop lets the goodbyes out.
        await asyncio.sleep(0)


def _why(attempt: asyncio.Task[None]) -> BaseException:
    """Why an attempt to connect brought nothing."""
    error = None if attempt.cancelled() else attempt.exception()
    return error or ProviderUnreachable("the provider was being closed")
