"""The procrastinate tasks: when things are done. What is done is in the modules that they call.

One procrastinate job per mail would cost more than sending it, so there are few and long ones: `deliver` drains a queue
for some seconds, and the periodic tasks keep the house.
"""

from typing import Protocol

import procrastinate
from procrastinate import JobContext

from worker.drain import Drain
from worker.job import Queue

TASK_QUEUE = "email"
DELIVER = "email:deliver"
RELAY = "email:relay"
RELAY_LOCK = "relay"

blueprint = procrastinate.Blueprint()


class Process(Protocol):
    """What the tasks need of the process that they run in; `worker.process` is it."""

    drain: Drain

    async def defer_deliver(self, queue: Queue) -> None:
        """Put one more deliver task of the queue into procrastinate."""

    async def remove_stalled_tasks(self) -> None:
        """Delete the tasks of dead workers."""

    async def apply_late_outcomes(self) -> None:
        """Settle doubts whose answer came late."""

    async def tidy_limits(self) -> None:
        """Forget token buckets that say nothing any more."""

    async def relay_events(self) -> None:
        """Publish events to Kafka for a while."""

    async def purge(self) -> None:
        """Remove what is older than it is to be kept."""

    async def read_gauges(self) -> None:
        """Read what the metrics tell of the queue."""


def deliver_lock(queue: Queue) -> str:
    """The queueing lock of a queue's deliver task: one at most waits to be picked up."""
    return f"deliver:{queue}"


def _process(context: JobContext) -> Process:
    process: Process = context.additional_context["process"]
    return process


@blueprint.task(name="deliver", queue=TASK_QUEUE, pass_context=True)
async def deliver(context: JobContext, queue: str) -> None:
    """Drain one queue for a slice of time."""
    await _process(context).drain.run(Queue(queue))


@blueprint.periodic(cron="* * * * * */5", queueing_lock="revive")
@blueprint.task(name="revive", queue=TASK_QUEUE, pass_context=True)
async def revive(context: JobContext, timestamp: int) -> None:
    """See that every queue has a deliver task, whatever happened to the last one."""
    for queue in Queue:
        await _process(context).defer_deliver(queue)


@blueprint.periodic(cron="* * * * * */20", queueing_lock="tidy")
@blueprint.task(name="tidy", queue=TASK_QUEUE, pass_context=True)
async def tidy(context: JobContext, timestamp: int) -> None:
    """Remove the tasks of dead workers, and settle doubts whose answer came late."""
    await _process(context).remove_stalled_tasks()
    await _process(context).apply_late_outcomes()
    await _process(context).tidy_limits()


@blueprint.periodic(cron="17 * * * *", queueing_lock="purge")
@blueprint.task(name="purge", queue=TASK_QUEUE, pass_context=True)
async def purge(context: JobContext, timestamp: int) -> None:
    """Remove what is older than it is to be kept, a part of it each hour."""
    await _process(context).purge()


@blueprint.periodic(cron="* * * * * */15", queueing_lock="gauges")
@blueprint.task(name="gauges", queue=TASK_QUEUE, pass_context=True)
async def gauges(context: JobContext, timestamp: int) -> None:
    """Read what the metrics tell of the queue, in one process of the cluster."""
    await _process(context).read_gauges()


@blueprint.periodic(cron="* * * * * */5", queueing_lock=RELAY_LOCK)
@blueprint.task(name="relay", queue=TASK_QUEUE, pass_context=True)
async def relay(context: JobContext, timestamp: int) -> None:
    """Publish events; ends at once when another process does it already, or there is no Kafka."""
    await _process(context).relay_events()
