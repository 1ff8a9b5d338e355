"""`python -m kafka_ingest`: run an ingestor until SIGTERM or SIGINT."""

import signal
import sys
import threading

from kafka_ingest.ingestor import Ingestor
from worker.errors import EmailWorkerError, SettingsError
from worker.log import configure_logging
from worker.settings import load_settings


def main() -> None:
    """Exit status 0 after a signal, 1 when it cannot go on, 2 for wrong settings."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        configure_logging(settings)
        Ingestor(settings, stop).run()
    except SettingsError as error:
        sys.exit(_complain(f"wrong settings\n{error}", 2))
    except EmailWorkerError as error:
        sys.exit(_complain(str(error), 1))


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"kafka_ingest: {text}\n")
    return status


if __name__ == "__main__":
    main()
