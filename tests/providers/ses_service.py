"""Amazon SES in the conformance suite: the lab's server, and a provider with two connections."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from lab.ses_conduct import Act, Delay, Drop, Refusal, Request, SesMail, Stall, all_entries
from lab.ses_server import SesServer
from tests.providers.hand_over import Tally, turns
from tests.providers.services import Conduct
from worker.compose import Sender
from worker.providers.base import Provider
from worker.providers.ses import SesAccount, make_ses
from worker.setting_types import Secret

KEYS = {"AKIDLAB": "the-secret-that-nobody-may-see"}
SENDER = Sender("bookings@example.org", "Acme Bookings", unsubscribe_url="https://example.org/u/{id}")
_ATTEMPT = re.compile(r".*-(\d{12})-\d+")


class SesService:
    """See `Service`. SES says nothing about one recipient that a retry could mend: it cannot be busy."""

    connections = 2
    per_call = 4
    open_limit = connections * per_call
    can_be_busy = False
    is_called = True

    def __init__(self) -> None:
        self.tally = Tally()
        self.is_contacted = asyncio.Event()
        self.has_content = asyncio.Event()
        self.server = SesServer(self._act, keys=KEYS)
        self._contents: Counter[int] = Counter()
        self._conduct = Conduct.NORMAL

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.provider: Provider = make_provider(self.server, connections=self.connections, per_call=self.per_call)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.close()
        await self.server.stop()
        await turns()

    def contents(self) -> Counter[int]:
        """See `Service`."""
        return Counter(self._contents)

    def accepted(self) -> Counter[int]:
        """See `Service`."""
        return Counter(seq_of_tags(mail.tags) for mail in self.server.accepted)

    async def behave(self, conduct: Conduct) -> None:
        """See `Service`."""
        previous, self._conduct = self._conduct, conduct
        self.has_content.clear()
        if conduct is Conduct.DOWN:
            await self.server.stop()
        elif previous is Conduct.DOWN:
            await self.server.start()

    async def abandoned(self) -> None:
        """See `Service`."""
        await self.server.abandoned()

    def _act(self, request: Request) -> Act:
        self.is_contacted.set()
        for entry in request.entries:
            seq = seq_of_entry(entry)
            self.tally.touched(seq)
            self._contents[seq] += 1
        self.has_content.set()
        is_bulk = "BulkEmailEntries" in request.body
        actions: dict[Conduct, Act] = {
            Conduct.REFUSES: all_entries("MESSAGE_REJECTED") if is_bulk else Refusal("MessageRejected"),
            Conduct.BREAKS: Drop(),
            Conduct.BREAKS_LATE: Delay(0.5, Drop()),
            Conduct.SILENT: Stall(),
            # The same, as HTTP has no greeting.
            Conduct.MUTE: Stall(),
        }
        return actions.get(self._conduct)


def make_provider(
    server: SesServer,
    *,
    connections: int = 1,
    per_call: int = 50,
    answer_seconds: float = 10.0,
    sender: Sender = SENDER,
    configuration_set: str = "",
    secret: str = KEYS["AKIDLAB"],
) -> Provider:
    """A provider for the lab's server."""
    account = SesAccount("eu-central-1", "AKIDLAB", Secret(secret), server.url, configuration_set)
    return make_ses("ses", account, sender, connections, per_call, answer_seconds)


def seq_of_entry(entry: Mapping[str, Any]) -> int:
    """The number of a mail in a request."""
    tags = (*entry.get("ReplacementTags", ()), *entry.get("EmailTags", ()))
    return seq_of_tags({tag["Name"]: tag["Value"] for tag in tags})


def seq_of_tags(tags: Mapping[str, str]) -> int:
    """The number in the tag `attempt`: the end of the job's id, before the attempt's own."""
    found = _ATTEMPT.fullmatch(tags["attempt"])
    assert found, tags
    return int(found[1])


def by_seq(server: SesServer) -> dict[int, SesMail]:
    """What a server accepted, by number; each once."""
    found = {seq_of_tags(mail.tags): mail for mail in server.accepted}
    assert len(found) == len(server.accepted)
    return found
