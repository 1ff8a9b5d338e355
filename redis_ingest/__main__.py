"""`python -m redis_ingest`: run the list's taker, and the stream's reader if one is named, until SIGTERM or SIGINT."""

import threading
import time
from collections.abc import Callable

import structlog

from redis_ingest.list_road import ListRoad
from redis_ingest.stream_road import StreamRoad
from worker.ingestor_process import run_process
from worker.patience import STOP_SECONDS
from worker.settings import Settings
from worker.vital_signs import VitalSigns

log = structlog.get_logger(__name__)


def run(settings: Settings, stop: threading.Event, signs: VitalSigns) -> None:
    """Run each road in a thread; the end of one ends all, and its error is raised here."""
    roads: list[ListRoad | StreamRoad] = [ListRoad(settings, stop, signs)]
    if settings.redis_stream_email_jobs:
        roads.append(StreamRoad(settings, stop, signs))
    failures: list[BaseException] = []

    def travel(run_road: Callable[[], None]) -> None:
        try:
            run_road()
        except BaseException as failure:  # noqa: BLE001  Raised again below, in the main thread.
            failures.append(failure)
            stop.set()

    threads = [threading.Thread(target=travel, args=(road.run,), daemon=True) for road in roads]
    for thread in threads:
        thread.start()
    stream = settings.redis_stream_email_jobs
    log.info("started", list=settings.redis_list_email_jobs, stream=stream or None, redis_db=settings.redis_db)
    # In pieces: signals are handled between them.
    while not stop.wait(0.2):
        pass
    _join(threads, STOP_SECONDS)
    for road, thread in zip(roads, threads, strict=True):
        if thread.is_alive():
            road.hang_up()
        thread.join()
    if failures:
        raise failures[0]
    log.info("stopped")


def _join(threads: list[threading.Thread], seconds: float) -> None:
    ends = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))


if __name__ == "__main__":
    run_process("redis_ingest", run)
