"""What waits to be told to Redis: little, and not for ever."""

from tests.unit.values import make_job
from worker.job import Event, Settlement, Status
from worker.job_status import MOST_WAITING, JobStatus
from worker.settings import Settings

DATA = '{"secret": "' + "x" * 10_000 + '"}'


def _settlement(number: int, status: Status = Status.SENT, event: Event | None = Event.SENT) -> Settlement:
    own = make_job(seq=number, job_id=f"j-{number}", data=DATA, content=DATA)
    return Settlement(own, status, event, 3, error="550 no <ann@example.com> here")


async def test_the_news_keep_nothing_of_the_mail() -> None:
    """While Redis is away, thousands of jobs' data must not wait with their status."""
    status = JobStatus(Settings())
    status.tell([_settlement(1), _settlement(2, Status.DEAD, Event.DEAD), _settlement(3, Status.PENDING, None)])
    sent, dead = status._waiting
    assert sent == ("j-1", "sent", 3, "")
    assert dead[:3] == ("j-2", "dead", 3)
    assert "550 no <a***@example.com> here" in dead[3]
    assert "xxx" not in str(dead)


async def test_the_oldest_news_make_room() -> None:
    """A Redis that stays away costs a bounded memory: the newest are kept."""
    status = JobStatus(Settings())
    for number in range(0, MOST_WAITING + 500, 100):
        status.tell([_settlement(number + one) for one in range(100)])
    assert len(status._waiting) == MOST_WAITING
    assert status._waiting[0][0] == "j-500"
