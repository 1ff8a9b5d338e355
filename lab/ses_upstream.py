"""Asks an `aws-ses-v2-local` for its judgement of what the lab's SES has accepted."""

from collections.abc import Mapping, Sequence
from email.utils import parseaddr
from typing import Any

from aiohttp import ClientSession

from lab.ses_conduct import BULK, Refusal, Request

_PATHS = {BULK: "/v2/email/outbound-bulk-emails"}


async def ask(
    client: ClientSession, url: str, request: Request, taken: Sequence[Mapping[str, Any]]
) -> list[str] | Refusal:
    """Its message id for each of these entries (a single mail is its own entry), or why it takes them not."""
    path = _PATHS.get(request.operation, "/v2/email/outbound-emails")
    body: Mapping[str, Any] = request.body
    if request.operation == BULK:
        body = {**body, "BulkEmailEntries": [_bare(entry) for entry in taken]}
    async with client.post(url + path, json=body, headers={"Authorization": request.authorization}) as response:
        if response.status != 200:
            return Refusal("BadRequestException", f"aws-ses-v2-local: {(await response.text())[:500]}")
        answer = await response.json()
    results = answer["BulkEmailEntryResults"] if request.operation == BULK else [{"Status": "SUCCESS", **answer}]
    for result in results:
        if result["Status"] != "SUCCESS":
            return Refusal("BadRequestException", f"aws-ses-v2-local: {result}")
    return [str(result["MessageId"]) for result in results]


def _bare(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry whose addresses have no names: SES takes them, aws-ses-v2-local does not."""
    destination = {kind: [parseaddr(person)[1] for person in people] for kind, people in entry["Destination"].items()}
    return {**entry, "Destination": destination}
