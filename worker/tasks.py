"""The procrastinate tasks: when things are done. What is done is in the modules that they call.

One procrastinate job per mail would cost more than sending it, so there are few and long ones: `deliver` drains a queue
for some seconds, and the periodic tasks keep the house.
"""

from typing import TYPE_CHECKING

import procrastinate
from procrastinate import JobContext

from worker.job import Queue

if TYPE_CHECKING:
    from worker.process import WorkerProcess

TASK_QUEUE = "email"
DELIVER = "email:deliver"

blueprint = procrastinate.Blueprint()


def deliver_lock(queue: Queue) -> str:
    """The queueing lock of a queue's deliver task: one at most waits to be picked up."""
    return f"deliver:{queue}"


def _process(context: JobContext) -> "WorkerProcess":
    process: WorkerProcess = context.additional_context["process"]
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
