"""Logs: structlog over the standard library's handler, so that libraries' records take the same pipe.

JSON in production, readable in a terminal. Secrets and contents never reach an event in the first place; addresses are
masked in every text that a log line carries, whoever wrote it, unless LOG_PII says otherwise.
"""

import logging
import re
import sys

import psycopg
import structlog
from psycopg_pool import PoolTimeout
from structlog.typing import EventDict, Processor

from worker.log_handler import PatientHandler
from worker.settings import Settings

_ADDRESS = re.compile(r"([^\s<>@,;:'\"])[^\s<>@,;:'\"]*@([^\s<>@,;:'\"]+)")
# procrastinate tells of each of its jobs at info; ours last some seconds each and say more themselves.
_QUIETER = {"procrastinate": logging.WARNING, "psycopg": logging.WARNING, "psycopg.pool": logging.ERROR}


def configure_logging(settings: Settings) -> None:
    """Send everything to standard error, in the form that ENVIRONMENT asks for."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _without_traceback,
    ]
    if not settings.log_pii:
        shared.append(_mask_addresses)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = PatientHandler(sys.stderr, (lambda line: line) if settings.log_pii else mask_addresses)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=_rendering(settings), foreign_pre_chain=shared))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    logging.raiseExceptions = False
    if settings.log_level != "DEBUG":
        for name, level in _QUIETER.items():
            logging.getLogger(name).setLevel(level)
    structlog.contextvars.bind_contextvars(worker=settings.worker_name)


def _without_traceback(_logger: object, _method: str, event: EventDict) -> EventDict:
    """A lost Postgres is a line: where in a library it was noticed tells nobody anything."""
    given = event.get("exc_info")
    error = given[1] if isinstance(given, tuple) else given
    if isinstance(error, BaseException) and type(error).__module__ == "procrastinate.exceptions":
        error = error.__cause__
    if isinstance(error, PoolTimeout) or (isinstance(error, psycopg.OperationalError) and _is_loss(error)):
        del event["exc_info"]
        event.setdefault("error", " ".join(str(error).split()) or type(error).__name__)
    return event


def _is_loss(error: psycopg.OperationalError) -> bool:
    """Whether there is no connection any more: classes 08 and 57P of SQLSTATE, or psycopg's own word."""
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


def _rendering(settings: Settings) -> list[Processor]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if settings.environment == "production":
        return [remove, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    # A plain traceback: the pretty ones print local variables, which are somebody's data.
    plain = structlog.dev.plain_traceback
    return [remove, structlog.dev.ConsoleRenderer(colors=_is_terminal(), exception_formatter=plain)]


def _is_terminal() -> bool:
    """Whether somebody reads along; standard error may be closed, or not be there at all."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def _mask_addresses(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Mask every address in an event's texts, whoever wrote it."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = mask_addresses(value)
    return event


def mask_addresses(text: str) -> str:
    """A text with every address in it masked."""
    return _ADDRESS.sub(r"\1***@\2", text) if "@" in text else text


def mask_address(address: str) -> str:
    """`ann@example.com` becomes `a***@example.com`: enough to find, too little to write to."""
    local, _, domain = address.rpartition("@")
    return f"{local[:1]}***@{domain}"
