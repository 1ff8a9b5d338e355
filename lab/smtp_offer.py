"""What the scripted SMTP server offers, and the requests it refuses because it does not offer them."""

import ssl
from dataclasses import dataclass

from lab.smtp_auth import MECHANISMS, Credentials

NAME = "scripted.test"
DEFAULT_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 10485760", "SMTPUTF8", "ENHANCEDSTATUSCODES")

# Which extension a parameter of MAIL belongs to.
_PARAMETERS = {
    "SIZE": "SIZE",
    "BODY": "8BITMIME",
    "SMTPUTF8": "SMTPUTF8",
    "AUTH": "AUTH",
    "RET": "DSN",
    "ENVID": "DSN",
}


@dataclass(frozen=True)
class Offer:
    """The extensions of a server, and what is needed for them."""

    extensions: tuple[str, ...]
    credentials: Credentials | None
    tls: ssl.SSLContext | None
    implicit_tls: bool

    def offered(self, *, tls: bool) -> list[str]:
        """The extensions on a connection that is, or is not, encrypted already."""
        starttls = ["STARTTLS"] if self.tls and not tls else []
        auth = [f"AUTH {' '.join(MECHANISMS)}"] if self.credentials else []
        return [*self.extensions, *starttls, *auth]

    def includes(self, name: str, *, tls: bool) -> bool:
        """Whether this extension is offered."""
        return any(extension.split()[0] == name for extension in self.offered(tls=tls))

    def lines(self, *, tls: bool) -> str:
        """The reply to EHLO."""
        lines = [NAME, *self.offered(tls=tls)]
        return "\n".join([*(f"250-{line}" for line in lines[:-1]), f"250 {lines[-1]}"])

    def refusal(self, line: str, parameters: tuple[str, ...], *, tls: bool) -> str | None:
        """Why this MAIL command asks for too much, if it does."""
        values = {name.upper(): value for name, _, value in (text.partition("=") for text in parameters)}
        if any(not self.includes(_PARAMETERS.get(name, "-"), tls=tls) for name in values):
            return "555 5.5.4 unknown parameter"
        if not line.isascii() and "SMTPUTF8" not in values:
            return "553 5.6.7 this address needs SMTPUTF8"
        limit = next((text.partition(" ")[2] for text in self.extensions if text.startswith("SIZE ")), "")
        size = values.get("SIZE", "0")
        if _is_number(limit) and _is_number(size) and 0 < int(limit) < int(size):
            return "552 5.3.4 too large"
        return None


def _is_number(text: str) -> bool:
    """Whether int() takes it: not every digit of Unicode, and not thousands of them."""
    return text.isascii() and text.isdigit() and len(text) < 20
