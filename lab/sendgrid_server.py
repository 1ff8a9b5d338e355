"""SendGrid's v3 mail/send on this machine, for tests: strict about what is documented, and told to misbehave at will.

    async with SendGridServer("key") as server:
        server.conduct = lambda request: Reply(429, headers={"X-RateLimit-Reset": "1700000000"})
        ...  # SendGridAccount(server.url, Secret("key"))
        assert server.accepted[0].subject == "..."

Each request is also held against SendGrid's own OpenAPI document, where that is beside the repository: `violations`.
`python -m lab.sendgrid_server --delay 0.1` runs the fast one of `lab.ses_fast`, which takes these requests too.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from jsonschema import Draft202012Validator

from lab import sendgrid_templates, ses_fast
from lab.sendgrid_rules import contract, contract_violations, faults, is_dynamic
from lab.ses_conduct import Delay, Drop, Stall

PATH = "/v3/mail/send"
SCOPES = "/v3/scopes"
MOST_BYTES = 30_000_000
_GONE_SECONDS = 0.1
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Fault:
    """One entry of an error answer; `field` is like `personalizations.3.to.0.email`."""

    message: str
    field: str | None = None
    help: str | None = None


@dataclass(frozen=True)
class Reply:
    """An answer that is not what the rules would give. `raw` is the body instead of the faults."""

    status: int
    faults: tuple[Fault, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass(frozen=True)
class Request:
    """One request with the right key, read whole. `number` counts from 1, `when` is monotonic."""

    number: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    when: float = 0.0
    size: int = 0

    @property
    def personalizations(self) -> list[Mapping[str, Any]]:
        """The mails in it."""
        return list(self.body.get("personalizations", ()))


@dataclass(frozen=True)
class SendGridMail:
    """An accepted mail, as it would leave: the template's, filled, or the content's own texts."""

    body: Mapping[str, Any]
    personalization: Mapping[str, Any]
    subject: str
    html: str
    text: str
    message_id: str = ""

    @property
    def to(self) -> str:
        """The first address it is for."""
        return str(self.personalization["to"][0]["email"])

    @property
    def custom_args(self) -> dict[str, str]:
        """The message's and its own, which win."""
        return {**self.body.get("custom_args", {}), **self.personalization.get("custom_args", {})}

    @property
    def headers(self) -> dict[str, str]:
        """The message's and its own, which win."""
        return {**self.body.get("headers", {}), **self.personalization.get("headers", {})}


# None: judge by the rules, and accept.
Act = Reply | Stall | Drop | Delay | None
Conduct = Callable[[Request], Act]


class SendGridServer:
    """A service on 127.0.0.1 that records every request, and every mail that it accepts.

    `conduct` may be replaced while it runs: each request asks the present one.
    """

    host = "127.0.0.1"

    def __init__(self, key: str, conduct: Conduct = lambda _: None) -> None:
        self.conduct = conduct
        self.port = 0
        self.requests: list[Request] = []
        self.accepted: list[SendGridMail] = []
        self.violations: list[str] = []
        self.templates = sendgrid_templates.Templates()
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

    @property
    def contract(self) -> Draft202012Validator | None:
        """What requests are held against; None where SendGrid's document is not there."""
        return contract()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._handlers.connections) if self._handlers else 0

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
        while self.connections:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        raw = await http.content.read()  # `http.read` would stop at 1 MiB
        is_template = http.path.startswith(sendgrid_templates.PATH)
        if http.path not in (PATH, SCOPES) and not is_template:
            return _reply(Reply(404, (Fault("not found"),)))
        if http.method != "POST" and http.path == PATH:
            return _reply(Reply(405, (Fault("method not allowed"),)))
        if http.headers.get("Authorization") != f"Bearer {self._key}":
            return _reply(Reply(401, (Fault("The provided authorization grant is invalid, expired, or revoked"),)))
        if http.path == SCOPES:
            return web.json_response({"scopes": ["mail.send", "templates.create"]})
        if is_template:
            return self.templates.answer(http.method, http.path, raw)
        try:
            body = json.loads(raw)
        except ValueError:
            return _reply(Reply(400, (Fault("Bad Request"),)))
        request = Request(len(self.requests) + 1, body, dict(http.headers), time.monotonic(), len(raw))
        self.requests.append(request)
        self.violations += contract_violations(body)
        act = self.conduct(request)
        while isinstance(act, Delay):
            await asyncio.sleep(act.seconds)
            act = act.then  # type: ignore[assignment]
        if isinstance(act, Drop) and http.transport is not None:
            http.transport.abort()
        if isinstance(act, Stall | Drop):
            await asyncio.Event().wait()
        return _reply(act) if isinstance(act, Reply) else self._judge(request)

    def _judge(self, request: Request) -> web.Response:
        if request.size > MOST_BYTES:
            return _reply(Reply(413, (Fault("content too large"),)))
        if found := faults(request.body):
            return _reply(Reply(400, tuple(Fault(*fault) for fault in found)))
        if request.body.get("mail_settings", {}).get("sandbox_mode", {}).get("enable", False):
            return web.Response(status=200)
        message_id = f"lab-{request.number}"
        self.accepted += [_mail(request.body, one, message_id) for one in request.personalizations]
        return web.Response(status=202, headers={"X-Message-Id": message_id})


def _mail(body: Mapping[str, Any], personalization: Mapping[str, Any], message_id: str) -> SendGridMail:
    if is_dynamic(body):
        # A template of triple braces: nothing is escaped.
        data = personalization["dynamic_template_data"]
        subject, html, text = (str(data.get(key, "")) for key in ("subject", "html", "text"))
        return SendGridMail(body, personalization, subject, html, text, message_id)
    parts = {part["type"]: part["value"] for part in body["content"]}
    subject = personalization.get("subject") or body["subject"]
    html, text = parts.get("text/html", ""), parts.get("text/plain", "")
    return SendGridMail(body, personalization, subject, html, text, message_id)


def _reply(reply: Reply) -> web.Response:
    errors = [{"message": fault.message, "field": fault.field, "help": fault.help} for fault in reply.faults]
    body = json.dumps({"errors": errors}).encode() if reply.raw is None else reply.raw
    return web.Response(body=body, status=reply.status, headers=dict(reply.headers), content_type="application/json")


if __name__ == "__main__":
    ses_fast.main()
