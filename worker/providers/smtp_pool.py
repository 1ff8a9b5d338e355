"""What a connection and its pool are to each other: the mails between them, who waits first, and the limits."""

from collections import deque
from typing import Protocol

import msgspec

from worker.compose import Message
from worker.job import Mail, Outcome
from worker.providers.base import HandOver
from worker.providers.window import Turns


class Limits(msgspec.Struct, frozen=True):
    """How long and how often a connection is used."""

    answer_seconds: float
    idle_seconds: float
    mails: int


class Parcel:
    """A mail on its way over some connection."""

    __slots__ = ("envelopes", "hand_over", "mail", "message", "noted")

    def __init__(self, mail: Mail, message: Message, hand_over: HandOver) -> None:
        self.mail = mail
        self.message = message
        self.hand_over = hand_over
        self.envelopes = 0
        self.noted: list[str] = []


class Owner(Protocol):
    """What a connection needs of its pool."""

    def next_parcel(self) -> Parcel | None:
        """The next mail to take, if any waits."""

    def put_back(self, parcel: Parcel) -> None:
        """A mail that another connection must take."""

    def finished(self, parcel: Parcel, outcome: Outcome) -> None:
        """A mail's end."""

    def closed(self, connection: object) -> None:
        """This connection takes no more mails."""


class ParcelQueue:
    """Mails that wait for a connection, transactional ones first, but not alone."""

    def __init__(self) -> None:
        self._urgent: deque[Parcel] = deque()
        self._bulk: deque[Parcel] = deque()
        self._turns = Turns()

    def __len__(self) -> int:
        return len(self._urgent) + len(self._bulk)

    def _of(self, parcel: Parcel) -> deque[Parcel]:
        return self._urgent if parcel.hand_over.is_urgent else self._bulk

    def put(self, parcel: Parcel) -> None:
        """Behind the others of its kind."""
        self._of(parcel).append(parcel)

    def put_first(self, parcel: Parcel) -> None:
        """Before the others of its kind."""
        self._of(parcel).appendleft(parcel)

    def get(self) -> Parcel | None:
        """The next to go."""
        if not self._urgent and not self._bulk:
            return None
        is_urgents = self._turns.is_urgents(urgent_waits=bool(self._urgent), bulk_waits=bool(self._bulk))
        return (self._urgent if is_urgents else self._bulk).popleft()

    def remove(self, hand_over: HandOver | None = None) -> list[Parcel]:
        """Take out those of one batch, or all."""
        removed = [parcel for parcel in (*self._urgent, *self._bulk) if hand_over in (None, parcel.hand_over)]
        for parcel in removed:
            self._of(parcel).remove(parcel)
        return removed
