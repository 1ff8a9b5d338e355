"""A worker process and its batches, as the plant keeps them."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection

from tests.stateful.plan import Plan
from worker.delivery import Delivered, Delivery
from worker.journal import Journal
from worker.settings import Settings


@dataclass
class Batch:
    """One running `deliver_batch`."""

    plan: Plan
    connection: AsyncConnection[Any]
    task: asyncio.Task[Delivered | None]
    pid: int
    is_lost: bool = False


@dataclass
class Process:
    """One worker process: what it shares between its batches."""

    name: str
    settings: Settings
    journal: Journal
    delivery: Delivery
    held: Batch | None = None
    batches: list[Batch] = field(default_factory=list)


async def forget(process: Process) -> None:
    """What SIGKILL does to a process: no more code of it runs, its sockets close, its memory is gone."""
    journal = process.journal
    journal._outcomes.clear()
    if journal._flush_timer is not None:
        journal._flush_timer.cancel()
    for task in (*(batch.task for batch in process.batches), journal._writer, journal._flush_task):
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    if journal._flush_timer is not None:
        journal._flush_timer.cancel()
    journal._outcomes.clear()
    if journal._connection is not None:
        await journal._connection.close()
