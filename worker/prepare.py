"""From claimed jobs to mails: template, policy and options of each, rendered; or the reason why it cannot be sent."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import msgspec
from psycopg import AsyncConnection

from worker.catalog import Catalog, TypePolicy
from worker.compose import Sender, unsubscribe_url
from worker.db import query
from worker.errors import TemplateError
from worker.job import NO_OPTIONS, Content, Job, Mail, Options
from worker.render import Brand, render_batch
from worker.sandbox import MailTemplate

# A millisecond or so of rendering.
SLICE = 10

_decode_options = msgspec.json.Decoder(Options).decode


class Unsendable(msgspec.Struct):
    """A job that ends without a hand-over: `error` None means expired."""

    job: Job
    attempt: int
    error: str | None
    retries: int = 0


class _Ready(msgspec.Struct, frozen=True):
    """A job with everything that rendering needs."""

    job: Job
    template: MailTemplate
    options: Options
    can_opt_out: bool


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
    turn: AbstractAsyncContextManager[Any],
    most_seconds: float,
) -> tuple[list[Mail], list[Unsendable]]:
    """Content for each job that can be sent; the others with the reason why not.

    Jobs for whose rendering there was no time are in neither list.
    """
    edition = await catalog.edition(connection, jobs)
    unsendable: list[Unsendable] = []
    ready: list[_Ready] = []
    for claimed in jobs:
        policy = edition.policy(claimed)
        job = _with_retries(claimed, policy)
        try:
            if job.is_expired:
                unsendable.append(Unsendable(job, job.attempt_no + 1, None))
                continue
            ready.append(_Ready(job, edition.template(job), await _options(connection, job), policy.opt_out))
        except TemplateError as error:
            unsendable.append(Unsendable(job, job.attempt_no + 1, str(error)))
        except (msgspec.DecodeError, RecursionError) as error:
            unsendable.append(Unsendable(job, job.attempt_no + 1, f"options: {error}"))
    mails: list[Mail] = []
    async with turn:
        contents = await _render(ready, sender, most_seconds)
    for item, content in zip(ready, contents, strict=False):
        if isinstance(content, Content):
            mails.append(Mail(item.job, content, item.options, item.can_opt_out, item.job.attempt_no + 1))
        else:
            unsendable.append(Unsendable(item.job, item.job.attempt_no + 1, str(content)))
    return mails, unsendable


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
