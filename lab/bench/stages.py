"""CPU of each stage of a delivery, in the worker's own process: claim, render, compose, journal, send, settle.

The batches run one after the other on one loop, so that the CPU spent between a stage's begin and end is the stage's.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg

from lab.bench.scene import Scene
from lab.unlimited import unlimited
from worker import delivery as delivery_module
from worker.catalog import Catalog
from worker.compose import Composer
from worker.db import connection_parameters
from worker.delivery import Delivery
from worker.job import Queue
from worker.journal import Journal
from worker.log import configure_logging
from worker.providers.registry import make_provider, sender_of
from worker.providers.router import Patience, Router
from worker.settings import Settings
from worker.settings_loading import load_settings

# No breaker opens.
ENDLESS = Patience(0, 30.0, 60.0)

STAGES = ("claim", "render", "compose", "journal", "send", "settle")


def stage_microseconds(where: Scene, jobs: int) -> dict[str, float]:
    """Microseconds of CPU per mail, by stage."""
    where.fresh_database()
    where.fill(jobs)
    where.settle_down()
    return asyncio.run(_measure(where, jobs))


async def _measure(where: Scene, jobs: int) -> dict[str, float]:
    settings = load_settings(where.environment)
    configure_logging(settings)
    spent = dict.fromkeys(STAGES, 0.0)
    sender = sender_of(settings)
    journal = Journal(settings)
    provider = make_provider("smtp", settings, sender)
    engine = Delivery(settings, Catalog(), journal, Router([provider], ENDLESS), unlimited(), sender)
    metered: list[tuple[Any, str, str]] = [
        (delivery_module, "claim_jobs", "claim"),
        (delivery_module, "prepare", "render"),
        (delivery_module, "settle", "settle"),
        (journal, "open_intents", "journal"),
        (journal, "flush", "journal"),
        (engine, "_send", "send"),
        (Composer, "compose", "compose"),
    ]
    with ExitStack() as stack:
        for owner, name, stage in metered:
            stack.enter_context(_meter(owner, name, stage, spent))
        await _deliver_all(settings, engine, jobs)
        await provider.close()
        await journal.close()
    spent["send"] -= spent["compose"] + spent["journal"]
    return {stage: seconds / jobs * 1e6 for stage, seconds in spent.items()}


async def _deliver_all(settings: Settings, engine: Delivery, jobs: int) -> None:
    parameters = connection_parameters(settings, "bench stages")
    async with await psycopg.AsyncConnection.connect(**parameters, autocommit=True) as connection:
        delivered = 0
        while delivered < jobs:
            delivered += (await engine.deliver_batch(connection, Queue.TRANSACTIONAL)).claimed


@contextmanager
def _meter(owner: Any, name: str, stage: str, spent: dict[str, float]) -> Iterator[None]:
    """Let every call of a function add its CPU to a stage, for as long as the context lasts."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return await original(*args, **kwargs)
        finally:
            spent[stage] += time.process_time() - began

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        began = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            spent[stage] += time.process_time() - began

    setattr(owner, name, awaited if asyncio.iscoroutinefunction(original) else called)
    try:
        yield
    finally:
        setattr(owner, name, original)
