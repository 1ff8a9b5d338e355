"""What providers talk to in the conformance suite: a service of each kind, with the same ways to behave."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol, Self

from lab.scripted_smtp import ScriptedServer, in_thread
from lab.smtp_offer import DEFAULT_EXTENSIONS
from lab.smtp_script import Action, Context, Delay, Drop, Script, Stall
from tests.providers.hand_over import RecordingHandOver, Tally, assert_books, send, turns
from tests.providers.mails import make_mails, seq_of_address, seq_of_content
from worker.compose import Composer, Sender
from worker.job import NO_OPTIONS, Accepted, Mail
from worker.providers.base import Provider
from worker.providers.smtp import OPEN_PER_CONNECTION, SmtpProvider
from worker.providers.smtp_connect import SmtpServer
from worker.providers.smtp_pool import Limits
from worker.setting_types import Encryption, Secret

COMPOSER = Composer(Sender("bookings@example.org", "Acme Bookings"))
ONE_BY_ONE = tuple(name for name in DEFAULT_EXTENSIONS if name != "PIPELINING")
# Both kinds of server, for tests that want to be run with each.
OFFERS = {"pipelining": DEFAULT_EXTENSIONS, "one by one": ONE_BY_ONE}


class Conduct(Enum):
    """How a service treats every mail."""

    NORMAL = auto()
    REFUSES = auto()  # the recipient, for good
    BUSY = auto()  # for this recipient, for now
    SILENT = auto()  # takes the content and never answers
    BREAKS = auto()  # takes the content and drops the connection
    BREAKS_LATE = auto()  # the same, half a second later
    MUTE = auto()  # takes connections and says nothing
    DOWN = auto()  # refuses connections


class Service(Protocol):
    """A service and a provider that talks to it. Tells `tally` of every mail of which it sees anything."""

    tally: Tally
    open_limit: int
    can_be_busy: bool  # can say that one recipient must wait
    is_called: bool  # by whole requests: nothing is said between connecting and the mails
    is_contacted: asyncio.Event  # by a connection or a request
    has_content: asyncio.Event  # the whole content of a mail has arrived

    @property
    def provider(self) -> Provider:
        """The provider of this service, from the moment the service is entered."""

    async def __aenter__(self) -> Self:
        """Start."""

    async def __aexit__(self, *_: object) -> None:
        """Close the provider, and end."""

    def contents(self) -> Counter[int]:
        """How often each mail's whole content has arrived."""

    def accepted(self) -> Counter[int]:
        """How often each mail was accepted."""

    async def behave(self, conduct: Conduct) -> None:
        """Treat what comes from now on like this; a connection that waits for an answer goes on waiting."""

    async def abandoned(self) -> None:
        """Return when the provider has let go of every connection."""


class SmtpService:
    """A scripted SMTP server and an SMTP provider with two connections."""

    connections = 2
    can_be_busy = True
    is_called = False
    open_limit = OPEN_PER_CONNECTION * connections

    def __init__(self, extensions: tuple[str, ...] = DEFAULT_EXTENSIONS) -> None:
        self.tally = Tally()
        self.is_contacted = asyncio.Event()
        self.has_content = asyncio.Event()
        self.server = ScriptedServer(extensions=extensions)
        self._conduct = Conduct.NORMAL
        self._goodbyes = asyncio.Semaphore(0)

    async def __aenter__(self) -> Self:
        self.server.script = Script(
            greeting=self._greeting, mail=self._mail, rcpt=self._rcpt, content=self._content, quit=self._quit
        )
        await self.server.start()
        self.provider = make_smtp(self.server, connections=self.connections)
        return self

    async def __aexit__(self, *_: object) -> None:
        # The last connections are accepted, and closed, by the loop's next turns.
        await self.provider.close()
        await turns()
        await self.server.stop()
        await turns()

    def contents(self) -> Counter[int]:
        """See `Service`."""
        return contents_of(self.server)

    def accepted(self) -> Counter[int]:
        """See `Service`."""
        return accepted_of(self.server)

    async def behave(self, conduct: Conduct) -> None:
        """See `Service`."""
        previous, self._conduct = self._conduct, conduct
        self.has_content.clear()
        if conduct is Conduct.DOWN:
            await self.server.stop()
        elif previous in (Conduct.DOWN, Conduct.MUTE):
            # A server that comes back to life has forgotten the connections that it never answered.
            await self.server.stop()
            await self.server.start()
            await turns()

    async def abandoned(self) -> None:
        """See `Service`."""
        for _ in self.server.connections:
            await self._goodbyes.acquire()

    def _greeting(self, _: Context) -> Action:
        self.is_contacted.set()
        return Stall() if self._conduct is Conduct.MUTE else None

    def _mail(self, context: Context) -> Action:
        self.tally.touched(seq_of_address(context.sender))
        return None

    def _rcpt(self, context: Context) -> Action:
        self.tally.touched(seq_of_address(context.recipient))
        answers = {Conduct.REFUSES: "550 5.1.1 no such mailbox", Conduct.BUSY: "450 4.2.1 mailbox busy"}
        return answers.get(self._conduct)

    def _content(self, _: Context) -> Action:
        self.has_content.set()
        actions: dict[Conduct, Action] = {
            Conduct.SILENT: Stall(),
            Conduct.BREAKS: Drop(),
            Conduct.BREAKS_LATE: Delay(0.5, Drop()),
        }
        return actions.get(self._conduct)

    def _quit(self, _: Context) -> Action:
        self._goodbyes.release()
        return None


# Every kind of provider, by name; the conformance suite runs with each.
SERVICES: dict[str, Callable[[], Service]] = {
    "smtp": SmtpService,
    "smtp one by one": lambda: SmtpService(ONE_BY_ONE),
}


class SmtpRig:
    """Scripted servers and providers for one test; all are closed with it."""

    def __init__(self) -> None:
        self._servers: list[ScriptedServer] = []
        self._threads = contextlib.ExitStack()
        self._providers: list[SmtpProvider] = []

    async def server(self, script: Script = Script(), **options: Any) -> ScriptedServer:  # noqa: B008 (it is frozen)
        """A running server; the options are those of ScriptedServer."""
        server = ScriptedServer(script, **options)
        await server.start()
        self._servers.append(server)
        return server

    def threaded_server(self, script: Script, **options: Any) -> ScriptedServer:
        """The same on a loop of asyncio's in a thread: on uvloop it would lose a ClientHello that came early."""
        return self._threads.enter_context(in_thread(ScriptedServer(script, **options)))

    def provider(self, server: Any, **options: Any) -> SmtpProvider:
        """A provider for it; the options are those of `make_smtp`."""
        provider = make_smtp(server, **options)
        self._providers.append(provider)
        return provider

    async def close(self) -> None:
        """Close everything, and let the loop see it closed."""
        for provider in self._providers:
            await provider.close()
        await turns()
        for server in self._servers:
            await server.stop()
        self._threads.close()
        await turns()


def for_one_call(service: Service, mails: list[Mail]) -> list[Mail]:
    """The mails so that they can share calls, where a service is called: with one sender."""
    if service.is_called:
        for mail in mails:
            mail.options = NO_OPTIONS
    return mails


async def assert_works(service: Service, first: int = 900) -> None:
    """The provider takes a batch as if nothing had happened before."""
    await service.behave(Conduct.NORMAL)
    mails = make_mails(service.open_limit + 3, first)
    outcomes = await send(service.provider, mails, RecordingHandOver(service.tally))
    assert {type(outcome) for outcome in outcomes.values()} == {Accepted}
    assert_books(outcomes, service.contents(), service.accepted())
    assert service.tally.open == 0


def contents_of(server: ScriptedServer) -> Counter[int]:
    """How often each mail's whole content has arrived at a server."""
    return Counter(seq_of_content(mail.content) for mail in server.mails)


def accepted_of(server: ScriptedServer) -> Counter[int]:
    """How often a server accepted each mail."""
    return Counter(seq_of_content(mail.content) for mail in server.accepted)


def make_smtp(
    server: Any,
    *,
    name: str = "smtp",
    connections: int = 1,
    answer_seconds: float = 10.0,
    idle_seconds: float = 30.0,
    mails: int = 1000,
    encryption: Encryption = "none",
    host: str | None = None,
    username: str = "",
    password: str = "",
    composer: Composer = COMPOSER,
) -> SmtpProvider:
    """A provider for a server, anything with `host` and `port`."""
    address = SmtpServer(host or server.host, server.port, encryption, username, Secret(password))
    return SmtpProvider(name, address, composer, connections, Limits(answer_seconds, idle_seconds, mails))
