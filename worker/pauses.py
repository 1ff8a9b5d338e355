"""What is not sent now, as email_pauses has it. Pure."""

from collections.abc import Iterable

import msgspec


class Pauses(msgspec.Struct, frozen=True):
    """The types, queues and providers that are paused."""

    types: frozenset[str] = frozenset()
    queues: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()

    @property
    def are_any(self) -> bool:
        """Whether something is paused."""
        return bool(self.types or self.queues or self.providers)

    def shut(self, queue: str, providers: frozenset[str]) -> bool:
        """Whether nothing of a queue may be sent: it is paused itself, or each of these providers is."""
        return queue in self.queues or (bool(providers) and providers <= self.providers)


def pauses_of(rows: Iterable[tuple[str, str]]) -> Pauses:
    """From (kind, name) of email_pauses."""
    names: dict[str, set[str]] = {"type": set(), "queue": set(), "provider": set()}
    for kind, name in rows:
        names[kind].add(name)
    return Pauses(*map(frozenset, names.values()))
