"""Log lines: JSON in production, whoever writes them, and of an address no more than its first letter and domain."""

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import procrastinate
import psycopg
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from procrastinate.exceptions import ConnectorException
from procrastinate.testing import InMemoryConnector
from psycopg_pool import PoolTimeout

from worker.log import configure_logging, mask_address
from worker.log_handler import flush_logs
from worker.settings_loading import load_settings

Configure = Callable[..., None]
_LOGGERS = ("", "procrastinate", "psycopg", "psycopg.pool")


@pytest.fixture
def configure() -> Iterator[Configure]:
    """Configures logging as a worker does; everything is as before afterwards."""
    root = logging.getLogger()
    handlers, raises = root.handlers[:], logging.raiseExceptions
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}

    def call(environment: str = "production", level: str = "INFO") -> None:
        configure_logging(
            load_settings(
                {
                    "ENVIRONMENT": environment,
                    "LOG_LEVEL": level,
                    "EMAIL_FROM_ADDRESS": "mail@example.com",
                    "WORKER_NAME": "worker-7",
                }
            )
        )

    yield call
    root.handlers[:] = handlers
    logging.raiseExceptions = raises
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged, each line an object of JSON."""
    flush_logs()
    captured = capsys.readouterr()
    assert captured.out == ""
    found = [json.loads(line) for line in captured.err.splitlines()]
    assert all(isinstance(line, dict) for line in found)
    return found


NASTY = {
    "quotes": "\"'",
    "lines": "a\nb\r\nc",
    "nul": "\x00",
    "half": "\ud800",
    "object": object(),
    1: 2,
    "ä": "ä\u2028",
}


def test_a_line_is_json_in_production(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, with event, level, time and worker, whatever the values hold."""
    configure()
    structlog.get_logger("x").warning("it\nhappened", n=1, **{str(key): value for key, value in NASTY.items()})
    [line] = lines(capsys)
    assert (line["event"], line["level"], line["n"], line["worker"]) == ("it\nhappened", "warning", 1, "worker-7")
    assert line["timestamp"].endswith("Z")
    assert line["lines"] == "a\nb\r\nc"


def test_a_librarys_line_is_json_too(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Records of the standard library take the same pipe, with their arguments in the text."""
    configure()
    logging.getLogger("some.library").error("%s of %s\n failed", 1, {"a": "b"})
    [line] = lines(capsys)
    assert (line["event"], line["level"], line["worker"]) == ("1 of {'a': 'b'}\n failed", "error", "worker-7")


@pytest.mark.parametrize("through", ["structlog", "logging"])
def test_a_traceback_is_in_its_line(configure: Configure, capsys: pytest.CaptureFixture[str], through: str) -> None:
    """An exception with its traceback is one field of one line."""
    configure()
    logger: Any = structlog.get_logger("x") if through == "structlog" else logging.getLogger("x")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("failed")
    [line] = lines(capsys)
    assert line["event"] == "failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: two\nlines")


async def _run_procrastinate() -> None:
    """A worker of procrastinate's that runs one good and one failing job."""
    app = procrastinate.App(connector=InMemoryConnector())

    @app.task(name="good")
    async def good() -> None:
        """Nothing."""

    @app.task(name="bad")
    async def bad() -> None:
        raise RuntimeError("broken")

    async with app.open_async():
        await good.defer_async()
        await bad.defer_async()
        await app.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)


def test_procrastinates_lines_are_json_too(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Its records carry jobs and workers as extra fields; at DEBUG all of them are logged, and each is an object."""
    configure(level="DEBUG")
    asyncio.run(_run_procrastinate())
    found = lines(capsys)
    assert any("good" in line["event"] for line in found)
    assert any("broken" in line.get("exception", "") for line in found)


def test_procrastinate_is_quiet_unless_something_is_wrong(
    configure: Configure, capsys: pytest.CaptureFixture[str]
) -> None:
    """At INFO it does not tell of each of its jobs; a failing one is still told."""
    configure()
    asyncio.run(_run_procrastinate())
    found = lines(capsys)
    assert found
    assert not [line for line in found if line["level"] in ("debug", "info")]


@pytest.mark.parametrize(("level", "expected"), [("DEBUG", 4), ("INFO", 3), ("WARNING", 2), ("ERROR", 1)])
def test_the_level_decides_for_both_kinds(
    configure: Configure, capsys: pytest.CaptureFixture[str], level: str, expected: int
) -> None:
    """LOG_LEVEL is the least that is written, for our own lines and for libraries'."""
    configure(level=level)
    for logger in (structlog.get_logger("x"), logging.getLogger("y")):
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)(name)
    assert len(lines(capsys)) == 2 * expected


def test_development_is_readable(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain words without escape sequences where nobody reads at a terminal."""
    configure("development")
    assert not sys.stderr.isatty()
    structlog.get_logger("x").info("batch", claimed=3)
    flush_logs()
    text = capsys.readouterr().err
    assert "batch" in text
    assert "claimed=3" in text
    assert "\x1b" not in text


def test_configuring_again_does_not_double_lines(configure: Configure, capsys: pytest.CaptureFixture[str]) -> None:
    """The handler replaces what was there."""
    configure()
    configure()
    logging.getLogger("x").warning("once")
    assert len(lines(capsys)) == 1


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("ann@example.com", "a***@example.com"),
        ("a@b", "a***@b"),
        ("a@b@c.org", "a***@c.org"),
        ('"x y"@example.com', '"***@example.com'),
        ("@example.com", "***@example.com"),
    ],
)
def test_an_address_is_masked(address: str, masked: str) -> None:
    """The first letter and the domain are enough to find a mail."""
    assert mask_address(address) == masked


@given(local=st.text(min_size=2), domain=st.text(st.characters(exclude_characters="@")))
def test_no_more_of_an_address_is_told(local: str, domain: str) -> None:
    """Whatever stands before the last @ is one letter and three stars, so that its length is not told either."""
    assert mask_address(f"{local}@{domain}") == f"{local[0]}***@{domain}"


def _raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except type(error) as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "is_line"),
    [
        (psycopg.OperationalError("server closed the connection\n\tunexpectedly"), True),
        (psycopg.errors.AdminShutdown("terminating connection"), True),
        (_raised(ConnectorException(), psycopg.OperationalError("gone")), True),
        (PoolTimeout("couldn't get a connection"), True),
        (psycopg.errors.DeadlockDetected("deadlock detected"), False),
        (psycopg.errors.UndefinedTable("no such table"), False),
        (_raised(KeyError("a mistake of ours"), psycopg.OperationalError("gone")), False),
        (ValueError("a mistake of ours"), False),
    ],
    ids=str,
)
def test_a_lost_postgres_is_a_line_and_no_traceback(
    configure: Configure, capsys: pytest.CaptureFixture[str], error: BaseException, is_line: bool
) -> None:
    """Whoever noticed it; every other error keeps its traceback, and a line its own words."""
    configure()
    logging.getLogger("x").error("it failed", exc_info=_raised(error, error.__cause__))
    structlog.get_logger().error("it failed", exc_info=_raised(error, error.__cause__), error="ours")
    theirs, ours = lines(capsys)
    assert ("exception" not in theirs) is ("exception" not in ours) is is_line
    assert ours["error"] == "ours"
    assert ("error" in theirs) is is_line
    assert "\n" not in theirs.get("error", "")
