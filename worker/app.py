"""The procrastinate App, `worker.app:app`: what `procrastinate --app=worker.app.app worker` runs.

Owns the start (are the settings right, is the schema ours), the watchdog, signals and the exit status. It is the only
module that does something when it is imported: it reads the settings and configures the logs, because procrastinate's
command imports an app and nothing else.
"""

import asyncio
import signal
from typing import Any, Unpack

import procrastinate
import psycopg
import structlog
from procrastinate import exceptions, utils
from procrastinate.app import WorkerOptions
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from worker.db import POOL_SECONDS, check_room, check_session, connection_parameters, unreachable
from worker.errors import DatabaseUnreachable, SettingsError
from worker.log import configure_logging
from worker.metrics_server import serve_metrics
from worker.process import open_process
from worker.providers.registry import signer_of
from worker.schema import check_schema
from worker.settings import Settings
from worker.settings_loading import load_settings
from worker.tasks import TASK_QUEUE, blueprint
from worker.vital_signs import IDLE_SECONDS, VitalSigns
from worker.watchdog import Watchdog

# Slots for the periodic tasks, beside those that deliver.
PERIODIC_SLOTS = 2
# procrastinate's transactions are one statement each: whoever is frozen in one must not hold up everybody's tasks.
TASK_SESSION = {"idle_in_transaction_session_timeout": "5000"}
# Options of procrastinate's worker command that would contradict our settings.
_NOT_HERE = {
    "queues": "every worker serves all mail; email_pause() stops a queue",
    "concurrency": "set WORKER_CONCURRENCY",
    "name": "set WORKER_NAME",
}
# The end of a shutdown that the batch deadline does not bound.
SHUTDOWN_GRACE_SECONDS = 10.0

log = structlog.get_logger(__name__)


class WorkerApp(procrastinate.App):
    """procrastinate's App with our start and our end around its worker."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        # All slots may be busy with batches that use their whole time.
        self.signs = VitalSigns(idle_seconds=max(IDLE_SECONDS, 2 * settings.email_batch_deadline_seconds))
        super().__init__(
            connector=procrastinate.PsycopgConnector(
                kwargs=connection_parameters(settings, "email-worker tasks", TASK_SESSION, planned=True),
                min_size=1,
                max_size=2,
                timeout=POOL_SECONDS,
                reconnect_timeout=POOL_SECONDS,
                pool_factory=AsyncConnectionPool,
            ),
            worker_defaults=WorkerOptions(
                name=settings.worker_name,
                queues=[TASK_QUEUE],
                concurrency=settings.worker_concurrency + PERIODIC_SLOTS,
                delete_jobs="always",
                shutdown_graceful_timeout=settings.email_batch_deadline_seconds + SHUTDOWN_GRACE_SECONDS,
                install_signal_handlers=False,
            ),
        )
        self.add_tasks_from(blueprint, namespace=TASK_QUEUE)

    def open_async(self, pool: Any = None) -> utils.AwaitableContext[procrastinate.App]:
        """Look at the database before procrastinate does, so that trouble is told in words."""

        watchdog = Watchdog(self.settings)
        self.signs.checks = [watchdog.silence]

        async def open_checked() -> None:
            # First of all: a server that freezes must not hang the start either.
            watchdog.start()
            try:
                await self._look_at_database()
                await self.connector.open_async(pool)
            except BaseException:
                watchdog.stop()
                raise

        async def close() -> None:
            await self.connector.close_async()
            watchdog.stop()

        return utils.AwaitableContext(open_checked, close, self)

    async def _look_at_database(self) -> None:
        try:
            parameters = connection_parameters(self.settings, "email-worker start", planned=True)
            async with await psycopg.AsyncConnection.connect(**parameters, autocommit=True) as connection:
                await check_session(connection)
                await check_schema(connection)
                await check_room(connection, self.settings)
            return
        except psycopg.OperationalError as error:
            away = unreachable(self.settings, error)
        # Not in the except clause: procrastinate's command prints the context of an error too.
        raise away

    async def run_worker_async(self, **options: Unpack[WorkerOptions]) -> None:
        """Run until SIGTERM or SIGINT; then finish what is in a provider's hands. Raises when it ends by itself."""
        for option, instead in _NOT_HERE.items():
            if options.get(option) not in (None, self.worker_defaults.get(option)):
                raise SettingsError(f"the option --{option} of a worker has no effect here: {instead}")
        with serve_metrics(self.settings, self.signs):
            await self._run_worker(options)

    async def _run_worker(self, options: WorkerOptions) -> None:
        is_lost = False
        async with open_process(self, self.settings, self.signs) as process:
            self.signs.is_work_waiting = process.is_work_waiting
            running = asyncio.create_task(
                super().run_worker_async(**(options | {"additional_context": {"process": process}})), name="worker"
            )

            def stop() -> None:
                if not process.delivery.stop.is_set:
                    log.info("stopping: no new claim, no new hand-over")
                    process.delivery.stop.event.set()
                    running.cancel()

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            log.info("started", slots=self.settings.worker_concurrency, providers=self.settings.email_provider_primary)
            try:
                await running
            except asyncio.CancelledError:
                if not process.delivery.stop.is_set:
                    raise
            except exceptions.ConnectorException as error:
                if not isinstance(error.__cause__, psycopg.OperationalError | PoolTimeout):
                    raise
                log.warning("procrastinate lost Postgres", error=str(error.__cause__).strip())
                is_lost = True
        if process.delivery.stop.is_set:
            log.info("stopped")
        elif is_lost or options.get("wait", True):
            raise DatabaseUnreachable("a part of the worker lost Postgres and ended; see the log. Start it again.")


def make_app() -> WorkerApp:
    """The app, as the environment configures it; wrong settings end the program with one line each."""
    try:
        settings = load_settings()
        # A key that is none is a wrong setting too.
        signer_of(settings)
    except SettingsError as error:
        raise SystemExit(f"email-worker: wrong settings\n{error}") from None
    configure_logging(settings)
    return WorkerApp(settings)


app = make_app()
