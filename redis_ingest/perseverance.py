"""Going on although Redis goes away: turns of work in a session, a new session after each loss."""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import redis
import structlog

from worker.patience import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Stopped
from worker.vital_signs import VitalSigns

log = structlog.get_logger(__name__)


def persevere(
    stop: threading.Event,
    signs: VitalSigns,
    session: Callable[[], AbstractContextManager[None]],
    turn: Callable[[], None],
) -> None:
    """Do turn after turn until the stop event is set; what is in hand then is finished."""
    pause = FIRST_PAUSE_SECONDS
    while not stop.is_set():
        try:
            with session():
                while not stop.is_set():
                    signs.turned()
                    turn()
                    pause = FIRST_PAUSE_SECONDS
        except Stopped:
            return
        except redis.RedisError as error:
            signs.turned()
            refuses = isinstance(error, redis.ResponseError)
            log.warning("Redis refuses" if refuses else "Redis is away", error=str(error), pause=pause)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
