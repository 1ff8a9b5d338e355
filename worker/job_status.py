"""A job's status in Redis, for services that poll, and dead letters, for those who watch. Postgres has the truth.

Written after the commit, by a task of its own, one command for many jobs. Redis being away, or slow, costs warnings and
the news of that time, never a mail and never a batch's time.
"""

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from worker.job import Settlement, Status
from worker.log import mask_addresses
from worker.redis_client import async_client
from worker.settings import Settings

if TYPE_CHECKING:
    from redis.commands.core import AsyncScript

# News beyond this are dropped, the oldest first.
MOST_WAITING = 20_000
MOST_AT_ONCE = 500
PAUSE_SECONDS = 1.0

# job_id, status, attempts, and a dead letter's entry or nothing: the arguments of `job_status.lua`.
News = tuple[str, str, int, str]

_SCRIPT = (Path(__file__).parent / "job_status.lua").read_text()

log = structlog.get_logger(__name__)


class JobStatus:
    """Tells Redis what became of jobs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ttl = settings.redis_status_ttl_seconds
        self._dead_letters = settings.email_dead_letter_queue
        self._kept = settings.redis_dead_letters_kept
        self._waiting: deque[News] = deque(maxlen=MOST_WAITING)
        self._there_is_news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_idle = asyncio.Event()
        self._is_idle.set()
        self._overflown = 0

    def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.create_task(self._run(), name="job status")

    async def close(self) -> None:
        """Tell what is left, if Redis takes it within a second."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._is_idle.wait()
        except TimeoutError:
            log.warning("Redis was not told of all jobs", jobs=len(self._waiting))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def tell(self, settlements: Sequence[Settlement]) -> None:
        """Note what a committed batch came to; never waits."""
        news = [_news(settlement) for settlement in settlements if settlement.event is not None]
        self._overflown += max(0, len(self._waiting) + len(news) - MOST_WAITING)
        self._waiting.extend(news)
        if self._waiting:
            self._is_idle.clear()
            self._there_is_news.set()

    async def _run(self) -> None:
        client = async_client(self._settings)
        script = client.register_script(_SCRIPT)
        try:
            while True:
                await self._there_is_news.wait()
                self._there_is_news.clear()
                while self._waiting:
                    await self._tell_some(script)
                self._is_idle.set()
        finally:
            await client.aclose()

    async def _tell_some(self, script: "AsyncScript") -> None:
        from redis import RedisError

        some = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        arguments: list[str | int] = [self._ttl, self._kept]
        for news in some:
            arguments += news
        dropped, self._overflown = self._overflown, 0
        try:
            await script(keys=[self._dead_letters], args=arguments)
        except (RedisError, OSError) as error:
            log.warning("Redis was not told of jobs", jobs=len(some) + dropped, error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            if dropped:
                log.warning("Redis was not told of jobs", jobs=dropped, error="it is slower than the jobs end")


def _news(settlement: Settlement) -> News:
    """What there is to tell of a job: not the job itself, which would keep its data while Redis is away."""
    entry = _entry(settlement) if settlement.status is Status.DEAD else ""
    return (settlement.job.job_id, settlement.status, settlement.attempt_no, entry)


def _entry(settlement: Settlement) -> str:
    """A dead letter's entry: where to look, not what was in the mail."""
    job = settlement.job
    return json.dumps(
        {
            "kind": "dead",
            "job_id": job.job_id,
            "type": job.type,
            "template": job.template,
            "attempts": settlement.attempt_no,
            "provider": settlement.provider,
            "error": mask_addresses(settlement.error or ""),
        }
    )
