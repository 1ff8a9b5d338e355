"""From claimed jobs to mails: template, policy and options of each, rendered; or the reason why it cannot be sent."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import msgspec
from psycopg import AsyncConnection

from worker.allowance import Allowance
from worker.audience import Audience, suppressed_because
from worker.catalog import Catalog, Edition, TypePolicy
from worker.compose import Sender, unsubscribe_url
from worker.db import query
from worker.errors import TemplateError
from worker.job import NO_OPTIONS, Content, Job, Mail, Options, Settlement, Status
from worker.message import fault_of_options
from worker.render import Brand, render_batch
from worker.retry import wait_for_turn
from worker.sandbox import MailTemplate

# A millisecond or so of rendering.
SLICE = 10

_NOT_ALLOWED = "EMAIL_ALLOWED_RECIPIENTS does not name the address"

_decode_options = msgspec.json.Decoder(Options).decode


class Unsendable(msgspec.Struct):
    """A job that ends without a hand-over: dead, expired or suppressed, and why."""

    job: Job
    attempt: int
    status: Status
    error: str
    retries: int = 0


class Prepared(msgspec.Struct):
    """What a claim came to: mails to send, jobs that end without, and those whose turn comes later."""

    mails: list[Mail]
    unsendable: list[Unsendable]
    waiting: list[Settlement]
    render_seconds: float = 0.0


class _Ready(msgspec.Struct, frozen=True):
    """A job with everything that rendering needs; `claimed` is it as it was before its mail was redirected."""

    job: Job
    claimed: Job
    template: MailTemplate
    options: Options
    can_opt_out: bool
    route: tuple[str, ...]


class Turns:
    """Rendering is work for the processor: batches of bulk mail take turns, and transactional ones wait for nobody."""

    def __init__(self) -> None:
        self._bulk = asyncio.Lock()

    def turn(self, *, is_urgent: bool) -> AbstractAsyncContextManager[Any]:
        """A batch's turn to render."""
        return nullcontext() if is_urgent else self._bulk


async def prepare(
    connection: AsyncConnection[Any],
    jobs: Sequence[Job],
    catalog: Catalog,
    sender: Sender,
    audience: Audience,
    allowance: Allowance,
    turn: AbstractAsyncContextManager[Any],
    most_seconds: float,
) -> Prepared:
    """Content for each job that can be sent; the others with the reason why not.

    Jobs of a type that is paused, and those for whose rendering there was no time, are in none of the lists.
    """
    edition = await catalog.edition(connection, jobs)
    allowance.follow(edition.ceilings, edition.pauses.providers)
    prepared = Prepared([], [], [])
    ready: list[_Ready] = []
    for claimed in jobs:
        if allowance.is_paused(edition.pauses, claimed.type):
            # Paused since the last claim: it stays as due as it was.
            continue
        # Before anything can fail: what the journal knows of a job is judged by its type's retries too.
        job = _with_retries(claimed, edition.policy(claimed))
        item = await _judge(connection, job, edition, audience)
        if isinstance(item, _Ready):
            ready.append(item)
        else:
            prepared.unsendable.append(item)
    ready = await _hold_up(ready, allowance, prepared)
    async with turn:
        began = time.monotonic()
        contents = await _render(ready, sender, most_seconds)
        prepared.render_seconds = time.monotonic() - began
    for item, content in zip(ready, contents, strict=False):
        if isinstance(content, Content):
            attempt = item.job.attempt_no + 1
            prepared.mails.append(Mail(item.job, content, item.options, item.can_opt_out, attempt, route=item.route))
        else:
            prepared.unsendable.append(_dead(item.job, str(content)))
    return prepared


async def _hold_up(ready: list[_Ready], allowance: Allowance, prepared: Prepared) -> list[_Ready]:
    """Put those apart whose turn comes later; returns the others."""
    held = await allowance.hold_up([item.claimed for item in ready])
    if not held:
        return ready
    for item in ready:
        if (why := held.get(item.job.seq)) is not None:
            prepared.waiting.append(wait_for_turn(item.claimed, why.seconds, why.reason))
    return [item for item in ready if item.job.seq not in held]


async def _judge(
    connection: AsyncConnection[Any], job: Job, edition: Edition, audience: Audience
) -> _Ready | Unsendable:
    """What a job's rendering needs, or why it is not rendered."""
    try:
        return await _look_at(connection, job, edition, audience)
    except TemplateError as error:
        return _dead(job, str(error))
    except msgspec.ValidationError as error:
        return _dead(job, fault_of_options(error).removeprefix("$."))
    except (msgspec.DecodeError, RecursionError) as error:
        return _dead(job, f"options: {error}")


async def _look_at(
    connection: AsyncConnection[Any], job: Job, edition: Edition, audience: Audience
) -> _Ready | Unsendable:
    """The same; raises what its template or its options raise."""
    claimed = job
    policy, route = edition.policy(job), edition.route(job)
    if job.is_expired:
        return Unsendable(job, job.attempt_no + 1, Status.EXPIRED, "expired before it could be sent")
    if job.suppressions:
        why = suppressed_because(job.suppressions, policy.category, can_opt_out=policy.opt_out)
        if why is not None:
            return Unsendable(job, job.attempt_no + 1, Status.SUPPRESSED, why)
    options = await _options(connection, job)
    if not audience.is_everybody:
        turned = audience.turned(job, options)
        if turned is None:
            return Unsendable(job, job.attempt_no + 1, Status.SUPPRESSED, _NOT_ALLOWED)
        job, options = turned
    return _Ready(job, claimed, edition.template(job), options, policy.opt_out, route)


def _dead(job: Job, error: str) -> Unsendable:
    return Unsendable(job, job.attempt_no + 1, Status.DEAD, error)


async def _render(ready: Sequence[_Ready], sender: Sender, most_seconds: float) -> list[Content | TemplateError]:
    """Render in slices, with a turn of the loop for others between them; the first so many that there is time for."""
    ends = time.monotonic() + most_seconds
    urls: dict[str, str] = {}
    if sender.unsubscribe_url:
        urls = {item.job.id: unsubscribe_url(sender.unsubscribe_url, item.job) for item in ready if item.can_opt_out}
    brand = Brand(sender.name or sender.address, sender.address)
    contents: list[Content | TemplateError] = []
    for start in range(0, len(ready), SLICE):
        if start:
            await asyncio.sleep(0)
        some = [(item.job, item.template) for item in ready[start : start + SLICE]]
        contents += render_batch(some, brand, urls, ends)
        if len(contents) < start + len(some):
            break
    return contents


def _with_retries(job: Job, policy: TypePolicy) -> Job:
    """The job with its type's own number of retries, where it names none itself."""
    if job.max_retries is not None or policy.max_retries is None:
        return job
    return msgspec.structs.replace(job, max_retries=policy.max_retries)


async def _options(connection: AsyncConnection[Any], job: Job) -> Options:
    """The job's options; large ones were left behind by the claim and are fetched for this job alone."""
    if job.has_large_options:
        cursor = await connection.execute(query("read_options"), {"id": job.id})
        row = await cursor.fetchone()
        return _decode_options(row[0]) if row else NO_OPTIONS
    return _decode_options(job.options) if job.options else NO_OPTIONS
