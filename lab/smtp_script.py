"""The vocabulary of the scripted SMTP server: what it may do at each step, and what it has seen."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Drop:
    """Close the connection instead of replying; with `reset` by a TCP reset."""

    reset: bool = False


@dataclass(frozen=True)
class Stall:
    """Never answer; whatever else the client sends is read and ignored."""


@dataclass(frozen=True)
class Garbage:
    """Reply with bytes that are not SMTP."""

    data: bytes = b"\x00\xff\xfe not smtp \x80\r\n"


@dataclass(frozen=True)
class Delay:
    """Wait, and do another action then (None: reply as usual)."""

    seconds: float
    then: "Action" = None


@dataclass(frozen=True)
class DropMid:
    """Only for the body step: close within the content, before its final dot is read.

    It happens after `after` bytes; by default half of the SIZE that the client declared, or 256.
    """

    after: int | None = None
    reset: bool = True


# None is the usual behaviour, a text is the reply ("\n" separates the lines of a long one). After a reply
# that starts with 421 the server closes the connection, as RFC 5321 has it.
Action = str | Drop | Stall | Garbage | Delay | None


@dataclass(frozen=True)
class Context:
    """Where a conversation stands when a step is decided."""

    connection: int  # counted from 1 for each server
    mail: int  # counted from 1 for each connection; 0 before the first MAIL
    sender: str
    recipient: str  # the one of this RCPT, or the last one before
    recipients: tuple[str, ...]  # those accepted so far
    line: str  # the client's command
    tls: bool
    user: str | None  # whoever has authenticated


Step = Action | Callable[[Context], Action]
BodyStep = DropMid | None | Callable[[Context], DropMid | None]


@dataclass(frozen=True)
class Script:
    """What to do at each step, as an action or a function of the context that returns one.

    The reply's first digit decides what it does: 2xx accepts a sender, a recipient, a content or a login, and
    354 to DATA asks for the content. `handshake` comes before every TLS handshake (implicit TLS, too): None
    performs it, and any other action replaces it. `body` is decided when the content is about to come, and
    `content` when all of it has.
    """

    greeting: Step = None
    ehlo: Step = None
    helo: Step = None
    starttls: Step = None
    handshake: Step = None
    auth: Step = None
    mail: Step = None
    rcpt: Step = None
    data: Step = None
    body: BodyStep = None
    content: Step = None
    rset: Step = None
    noop: Step = None
    quit: Step = None


@dataclass(frozen=True)
class ReceivedMail:
    """A mail whose content arrived completely, whatever the server replied to it."""

    sender: str
    recipients: tuple[str, ...]
    parameters: tuple[str, ...]  # of MAIL, as sent
    content: bytes  # with dots unstuffed
    connection: int
    tls: bool
    user: str | None
    accepted: bool  # whether the reply was decided to be 2xx (a connection lost meanwhile does not change it)


@dataclass
class ConnectionRecord:
    """What one connection brought."""

    number: int
    commands: list[str] = field(default_factory=list)  # as sent, with the lines of a login
    pipelined: int = 0  # commands that came without waiting for the reply to the one before
    reads: int = 0  # how many times the server had to wait for input: the client's round trips
    tls: bool = False
    user: str | None = None
    ended: str = ""  # "quit", "client" (it closed), "dropped" (by the script), "stopped"; "" while open
