"""An ingestor as a process: settings, logs, signals, exit status."""

import signal
import sys
import threading
from collections.abc import Callable

import psycopg

from worker.db import failed_statement
from worker.errors import EmailWorkerError, SettingsError
from worker.log import configure_logging
from worker.metrics_server import serve_metrics
from worker.settings import Settings
from worker.settings_loading import load_settings
from worker.vital_signs import VitalSigns


def run_process(name: str, run: Callable[[Settings, threading.Event, VitalSigns], None]) -> None:
    """Run until SIGTERM or SIGINT sets the event: exit status 0 then, 1 when it cannot go on, 2 for wrong settings."""
    if len(sys.argv) > 1:
        sys.exit(
            _complain(name, "takes no arguments: it is set by environment variables, see docs/configuration.md", 2)
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        settings = load_settings()
        configure_logging(settings)
        signs = VitalSigns()
        with serve_metrics(settings, signs):
            run(settings, stop, signs)
    except SettingsError as error:
        sys.exit(_complain(name, f"wrong settings\n{error}", 2))
    except EmailWorkerError as error:
        sys.exit(_complain(name, str(error), 1))
    except psycopg.Error as error:
        # A schema that is not there, above all.
        sys.exit(_complain(name, str(failed_statement(error)), 1))


def _complain(name: str, text: str, status: int) -> int:
    sys.stderr.write(f"{name}: {text}\n")
    return status
