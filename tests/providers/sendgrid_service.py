"""SendGrid in the conformance suite: the lab's server, and a provider with two connections."""

import asyncio
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, Self

from lab.sendgrid_server import Act, Fault, Reply, Request, SendGridMail, SendGridServer
from lab.ses_conduct import Delay, Drop, Stall
from tests.providers.hand_over import Tally, turns
from tests.providers.services import Conduct
from worker.compose import Sender
from worker.providers.base import Provider
from worker.providers.sendgrid import SendGridAccount, make_sendgrid
from worker.setting_types import Secret

KEY = "SG.the-key-that-nobody-may-see"
SENDER = Sender("bookings@example.org", "Acme Bookings", unsubscribe_url="https://example.org/u/{id}")
TEMPLATE = "d-0123456789abcdef"
_ATTEMPT = re.compile(r".*-(\d{12})-\d+")


class SendGridService:
    """See `Service`. SendGrid says nothing about one recipient that a retry could mend: it cannot be busy."""

    connections = 2
    can_be_busy = False
    is_called = True

    def __init__(self, template_id: str = TEMPLATE) -> None:
        self.tally = Tally()
        self.is_contacted = asyncio.Event()
        self.has_content = asyncio.Event()
        self.server = SendGridServer(KEY, self._act)
        self.open_limit = self.connections * (4 if template_id else 1)
        self._template_id = template_id
        self._contents: Counter[int] = Counter()
        self._conduct = Conduct.NORMAL

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.provider: Provider = make_provider(
            self.server, template_id=self._template_id, connections=self.connections, per_call=4
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.provider.close()
        await self.server.stop()
        await turns()
        assert self.server.violations == []

    def contents(self) -> Counter[int]:
        """See `Service`."""
        return Counter(self._contents)

    def accepted(self) -> Counter[int]:
        """See `Service`."""
        return Counter(seq_of(mail.personalization) for mail in self.server.accepted)

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
        for personalization in request.personalizations:
            seq = seq_of(personalization)
            self.tally.touched(seq)
            self._contents[seq] += 1
        self.has_content.set()
        actions: dict[Conduct, Act] = {
            Conduct.REFUSES: refuse(*range(len(request.personalizations))),
            Conduct.BREAKS: Drop(),
            Conduct.BREAKS_LATE: Delay(0.5, Drop()),
            Conduct.SILENT: Stall(),
            # The same, as HTTP has no greeting.
            Conduct.MUTE: Stall(),
        }
        return actions.get(self._conduct)


def make_provider(
    server: SendGridServer,
    *,
    template_id: str = TEMPLATE,
    connections: int = 1,
    per_call: int = 1000,
    answer_seconds: float = 10.0,
    sender: Sender = SENDER,
    key: str = KEY,
    is_sandbox: bool = False,
) -> Provider:
    """A provider for the lab's server."""
    account = SendGridAccount(server.url, Secret(key), template_id, is_sandbox)
    return make_sendgrid("sendgrid", account, sender, connections, per_call, answer_seconds)


def refuse(*numbers: int) -> Reply:
    """A 400 that names the recipients of these personalizations."""
    return Reply(
        400, tuple(Fault("Does not contain a valid address.", f"personalizations.{n}.to.0.email") for n in numbers)
    )


def seq_of(personalization: Mapping[str, Any]) -> int:
    """The number of a mail: the end of its job's id, before the attempt's own."""
    found = _ATTEMPT.fullmatch(personalization["custom_args"]["attempt_id"])
    assert found, personalization
    return int(found[1])


def by_seq(server: SendGridServer) -> dict[int, SendGridMail]:
    """What a server accepted, by number; each once."""
    found = {seq_of(mail.personalization): mail for mail in server.accepted}
    assert len(found) == len(server.accepted)
    return found
