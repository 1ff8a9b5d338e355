"""`python -m redis_ingest`: run the list's taker, and the stream's reader if one is named, until SIGTERM or SIGINT."""

import signal
import sys
import threading
from collections.abc import Callable

from redis_ingest.list_road import ListRoad
from redis_ingest.stream_road import StreamRoad
from worker.errors import EmailWorkerError, SettingsError
from worker.log import configure_logging
from worker.settings import Settings, load_settings


def main() -> None:
    """Exit status 0 after a signal, 1 when it cannot go on, 2 for wrong settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        configure_logging(settings)
        _run(settings, stop)
    except SettingsError as error:
        sys.exit(_complain(f"wrong settings\n{error}", 2))
    except EmailWorkerError as error:
        sys.exit(_complain(str(error), 1))


def _run(settings: Settings, stop: threading.Event) -> None:
    roads = [ListRoad(settings, stop).run]
    if settings.redis_stream_email_jobs:
        roads.append(StreamRoad(settings, stop).run)
    failures: list[BaseException] = []

    def travel(road: Callable[[], None]) -> None:
        try:
            road()
        except BaseException as failure:  # noqa: BLE001  Raised again below, in the main thread.
            failures.append(failure)
            stop.set()

    threads = [threading.Thread(target=travel, args=(road,), daemon=True) for road in roads]
    for thread in threads:
        thread.start()
    for thread in threads:
        # In pieces: signals are handled between them.
        while thread.is_alive():
            thread.join(0.2)
    if failures:
        raise failures[0]


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"redis_ingest: {text}\n")
    return status


if __name__ == "__main__":
    main()
