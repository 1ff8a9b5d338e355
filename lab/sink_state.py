"""What all connections of the fast SMTP sink share: the options, the counters, the replies."""

import re
from dataclasses import dataclass, field
from pathlib import Path

EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "ENHANCEDSTATUSCODES")
_ENHANCED_CODE = re.compile(r"^(\d{3} )\d\.\d\.\d ", re.MULTILINE)


@dataclass
class SinkState:
    """The options of a sink, and what it has counted."""

    extensions: tuple[str, ...] = EXTENSIONS
    ledger: int | None = None  # file descriptor, opened for appending
    maildir: Path | None = None
    reply_delay: float = 0.0
    refuse: tuple[str, ...] = ()
    refuse_first: tuple[tuple[str, int], ...] = ()
    accepted: int = 0
    connections: int = 0
    stored: int = 0
    refusals: dict[tuple[str, str], int] = field(default_factory=dict)
    replies: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        everything_allowed = len(self.extensions) == len(EXTENSIONS)
        self.takes_any_envelope = everything_allowed and not self.refuse and not self.refuse_first

    def reply(self, text: str) -> bytes:
        """The reply as it is sent: without its enhanced status code when that extension is off."""
        line = self.replies.get(text)
        if line is None:
            enhanced = "ENHANCEDSTATUSCODES" in self.extensions
            line = ((text if enhanced else _ENHANCED_CODE.sub(r"\1", text)) + "\r\n").encode()
            self.replies[text] = line
        return line
