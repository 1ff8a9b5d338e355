"""SendGrid's v3 mail/send on this machine, for tests: strict about what is documented, and told to misbehave at will.

    async with SendGridServer("key") as server:
        server.conduct = lambda request: Reply(429, headers={"X-RateLimit-Reset": "1700000000"})
        ...  # SendGridAccount(server.url, Secret("key"))
        assert server.accepted[0].subject == "..."

Each request is also held against SendGrid's own OpenAPI document, where that is beside the repository: `violations`.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from lab.sendgrid_rules import contract_violations, faults
from lab.ses_conduct import Delay, Drop, Stall

_GONE_SECONDS = 0.1
_LOOK_SECONDS = 0.01
MOST_BYTES = 30_000_000


@dataclass(frozen=True)
class Fault:
    """One entry of an error answer; `field` is like `personalizations.3.to.0.email`."""

    message: str
    field: str | None = None


@dataclass(frozen=True)
class Reply:
    """An answer that is not what the rules would give."""

    status: int
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """One request, read whole. `number` counts from 1."""

    number: int
    body: Mapping[str, Any]

    @property
    def personalizations(self) -> list[Mapping[str, Any]]:
        """The mails in it."""
        return list(self.body.get("personalizations", ()))


@dataclass(frozen=True)
class SendGridMail:
    """An accepted mail, as it would leave."""

    body: Mapping[str, Any]
    personalization: Mapping[str, Any]
    subject: str
    html: str
    text: str


# None: judge by the rules, and accept.
Act = Reply | Stall | Drop | Delay | None


class SendGridServer:
    """A service on 127.0.0.1 that records every request, and every mail that it accepts."""

    host = "127.0.0.1"

    def __init__(self, key: str, conduct: Callable[[Request], Act] = lambda _: None) -> None:
        self.conduct = conduct
        self.port = 0
        self.requests: list[Request] = []
        self.accepted: list[SendGridMail] = []
        self.violations: list[str] = []
        self._key = key
        self._server: asyncio.Server | None = None
        self._handlers: web.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """What SendGridAccount.url is for this server."""
        return f"http://{self.host}:{self.port}"

    async def start(self) -> None:
        """Listen; after `stop` at the same port again."""
        # Without cancellation a stalled answer would outlive its client.
        self._handlers = web.Server(self._answer, handler_cancellation=True, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(self._handlers, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and close every connection; safe to call twice."""
        server, self._server = self._server, None
        if server is None or self._handlers is None:
            return
        server.close()
        for connection in self._handlers.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self._handlers.shutdown(_GONE_SECONDS)
        await server.wait_closed()

    async def abandoned(self) -> None:
        """Return when no connection is open."""
        while self._handlers is not None and self._handlers.connections:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        raw = await http.content.read()
        if (http.method, http.path) != ("POST", "/v3/mail/send"):
            return _reply(Reply(404, (Fault("Not Found"),)))
        if http.headers.get("Authorization") != f"Bearer {self._key}":
            return _reply(Reply(401, (Fault("The provided authorization grant is invalid, expired, or revoked"),)))
        if len(raw) > MOST_BYTES:
            return _reply(Reply(413))
        request = Request(len(self.requests) + 1, json.loads(raw))
        self.requests.append(request)
        self.violations += contract_violations(request.body)
        act = self.conduct(request)
        while isinstance(act, Delay):
            await asyncio.sleep(act.seconds)
            act = act.then  # type: ignore[assignment]
        if isinstance(act, Drop) and http.transport is not None:
            http.transport.abort()
        if isinstance(act, Stall | Drop):
            await asyncio.Event().wait()
        if isinstance(act, Reply):
            return _reply(act)
        if found := faults(request.body):
            return _reply(Reply(400, tuple(Fault(*fault) for fault in found)))
        return self._accept(request)

    def _accept(self, request: Request) -> web.Response:
        is_sandbox = request.body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable", False)
        if is_sandbox:
            return web.Response(status=200)
        self.accepted += [_mail(request.body, personalization) for personalization in request.personalizations]
        return web.Response(status=202, headers={"X-Message-Id": f"lab-{request.number}"})


def _mail(body: Mapping[str, Any], personalization: Mapping[str, Any]) -> SendGridMail:
    if "template_id" in body:
        # Triple braces: nothing is escaped.
        data = personalization["dynamic_template_data"]
        return SendGridMail(body, personalization, data["subject"], data["html"], data["text"])
    parts = {part["type"]: part["value"] for part in body["content"]}
    return SendGridMail(body, personalization, body["subject"], parts.get("text/html", ""), parts.get("text/plain", ""))


def _reply(reply: Reply) -> web.Response:
    errors = [{"message": fault.message, "field": fault.field, "help": None} for fault in reply.faults]
    return web.json_response({"errors": errors}, status=reply.status, headers=reply.headers)
