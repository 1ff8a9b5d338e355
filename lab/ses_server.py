"""Amazon SES v2 on this machine, for tests: strict about what is documented, and told to misbehave at will.

    async with SesServer(keys={"AKID": "secret"}) as server:
        server.conduct = lambda request: Refusal("TooManyRequestsException")
        ...  # endpoint_url=server.url
        assert server.accepted[0].subject == "..."

With `upstream`, the address of an `aws-ses-v2-local` (see `lab.ses_local`), what it accepts must please that too,
and the message ids are that one's. `python -m lab.ses_server --delay 0.1` runs the fast one of `lab.ses_fast`.
"""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from aiohttp import ClientSession, web

from lab import ses_fast, ses_rules
from lab.ses_conduct import (
    ACCOUNT,
    BULK,
    SINGLE,
    Act,
    Conduct,
    Delay,
    Drop,
    Entries,
    Garbage,
    Refusal,
    Request,
    SesMail,
    Stall,
    accept,
)
from lab.ses_signature import signature_fault
from lab.ses_upstream import ask

OPERATIONS = {
    ("POST", "/v2/email/outbound-bulk-emails"): BULK,
    ("POST", "/v2/email/outbound-emails"): SINGLE,
    ("GET", "/v2/email/account"): ACCOUNT,
}
_GONE_SECONDS = 0.1
_LOOK_SECONDS = 0.01


class SesServer:
    """A service on 127.0.0.1 that records every request, and every mail that it accepts.

    `conduct` may be replaced while it runs: each request asks the present one. With `keys` (access key to secret
    key) signatures are checked.
    """

    host = "127.0.0.1"

    def __init__(self, conduct: Conduct = accept, *, keys: Mapping[str, str] | None = None, upstream: str = "") -> None:
        self.conduct = conduct
        self.port = 0
        self.requests: list[Request] = []
        self.accepted: list[SesMail] = []
        self.account: dict[str, Any] = {
            "ProductionAccessEnabled": True,
            "SendingEnabled": True,
            "EnforcementStatus": "HEALTHY",
            "SendQuota": {"Max24HourSend": 50_000.0, "MaxSendRate": 14.0, "SentLast24Hours": 0.0},
        }
        self._keys = keys
        self._upstream = upstream
        self._client: ClientSession | None = None
        self._server: asyncio.Server | None = None
        self._handlers: web.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """What SesAccount.endpoint_url is for this server."""
        return f"http://{self.host}:{self.port}"

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
        self._client = ClientSession() if self._upstream else None

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
        if self._client is not None:
            await self._client.close()

    async def abandoned(self) -> None:
        """Return when no connection is open."""
        while self.connections:
            await asyncio.sleep(_LOOK_SECONDS)

    async def _answer(self, http: web.BaseRequest) -> web.StreamResponse:
        operation = OPERATIONS.get((http.method, http.path))
        if operation is None:
            return _refuse(Refusal("UnknownOperationException", status=404))
        raw = await http.content.read()  # `http.read` would stop at 1 MiB
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            return _refuse(Refusal("SerializationException"))
        authorization = http.headers.get("Authorization", "")
        request = Request(len(self.requests) + 1, operation, body, len(raw), authorization)
        self.requests.append(request)
        act = self.conduct(request)
        while isinstance(act, Delay):
            await asyncio.sleep(act.seconds)
            act = act.then
        if isinstance(act, Drop) and http.transport is not None:
            http.transport.abort()
        if isinstance(act, Stall | Drop):
            await asyncio.Event().wait()
        if isinstance(act, Garbage):
            return web.Response(body=act.body, content_type="application/json")
        fault = signature_fault(http, raw, self._keys) if self._keys is not None else None
        answer = fault or (act if isinstance(act, Refusal) else await self._judge(request, act))
        return _refuse(answer) if isinstance(answer, Refusal) else web.json_response(answer)

    async def _judge(self, request: Request, act: Act) -> Refusal | dict[str, Any]:
        if request.operation == ACCOUNT:
            return self.account
        if fault := ses_rules.call_fault(request):
            return Refusal("BadRequestException", fault)
        if request.operation == SINGLE:
            if isinstance(ids := await self._ids(request, [request.body]), Refusal):
                return ids
            self.accepted.append(single_mail(request.body, ids[0]))
            return {"MessageId": ids[0]}
        results = [self._entry_result(request, act, index, entry) for index, entry in enumerate(request.entries)]
        taken = [entry for entry, result in zip(request.entries, results, strict=True) if not result]
        if isinstance(ids := await self._ids(request, taken), Refusal):
            return ids
        self.accepted += [bulk_mail(request.body, entry, id_) for entry, id_ in zip(taken, ids, strict=True)]
        given = iter(ids)
        return {
            "BulkEmailEntryResults": [result or {"Status": "SUCCESS", "MessageId": next(given)} for result in results]
        }

    def _entry_result(self, request: Request, act: Act, index: int, entry: Mapping[str, Any]) -> dict[str, str]:
        """Why an entry is not taken; empty where it is."""
        status = act.judge(index, entry) if isinstance(act, Entries) else None
        if status not in (None, "SUCCESS"):
            return {"Status": str(status), "Error": f"the lab says {status}"}
        fault = ses_rules.entry_fault(request.body, entry)
        return {"Status": "INVALID_PARAMETER", "Error": fault} if fault else {}

    async def _ids(self, request: Request, taken: Sequence[Mapping[str, Any]]) -> list[str] | Refusal:
        """A message id for each, from the upstream where there is one."""
        if not taken:
            return []
        if self._client is not None:
            return await ask(self._client, self._upstream, request, taken)
        return [f"0100-{request.number:06d}-{index:02d}-000000" for index in range(len(taken))]


def bulk_mail(body: Mapping[str, Any], entry: Mapping[str, Any], message_id: str) -> SesMail:
    """The mail that an entry of a bulk becomes."""
    template = body["DefaultContent"]["Template"]
    content, data = template["TemplateContent"], json.loads(ses_rules.replacement_data(entry))
    headers = _pairs(template.get("Headers", ())) | _pairs(entry.get("ReplacementHeaders", ()))
    tags = _pairs(body.get("DefaultEmailTags", ())) | _pairs(entry.get("ReplacementTags", ()))
    subject, html, text = (ses_rules.render(content.get(part, ""), data) for part in ("Subject", "Html", "Text"))
    return SesMail(message_id, *_people(body, entry), subject, html, text, headers, tags, _set(body))


def single_mail(body: Mapping[str, Any], message_id: str) -> SesMail:
    """The mail of a SendEmail."""
    content, tags = body["Content"], _pairs(body.get("EmailTags", ()))
    if "Raw" in content:
        raw = base64.b64decode(content["Raw"]["Data"])
        return SesMail(message_id, *_people(body, body), "", "", "", {}, tags, _set(body), raw)
    simple = content["Simple"]
    html, text = (simple["Body"].get(part, {}).get("Data", "") for part in ("Html", "Text"))
    headers = _pairs(simple.get("Headers", ()))
    return SesMail(message_id, *_people(body, body), simple["Subject"]["Data"], html, text, headers, tags, _set(body))


def _people(body: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, Any, Any, Any, Any]:
    to, cc, bcc = (tuple(entry["Destination"].get(f"{kind}Addresses", ())) for kind in ("To", "Cc", "Bcc"))
    return body["FromEmailAddress"], tuple(body.get("ReplyToAddresses", ())), to, cc, bcc


def _set(body: Mapping[str, Any]) -> str:
    return str(body.get("ConfigurationSetName", ""))


def _pairs(items: Sequence[Mapping[str, str]]) -> dict[str, str]:
    return {item["Name"]: item["Value"] for item in items}


def _refuse(refusal: Refusal) -> web.Response:
    return web.Response(
        status=refusal.http_status,
        headers={"x-amzn-ErrorType": refusal.code},
        body=refusal.body,
        content_type="application/json",
    )


if __name__ == "__main__":
    ses_fast.main()
