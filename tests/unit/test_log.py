"""Logs never stop the worker, and never tell who gets the mail."""

import subprocess
import sys

import pytest

from tests.unit.bounded import ROOT

CODE = """
import logging, sys
from worker.log import configure_logging
from worker.settings_loading import load_settings
{before}
configure_logging(load_settings({{"ENVIRONMENT": {environment!r}, "EMAIL_FROM_ADDRESS": "a@b.c"}}))
logging.getLogger("x").warning("dropped")
print("went on")
"""


@pytest.mark.parametrize("environment", ["development", "production"])
@pytest.mark.parametrize("redirection", ["2>&-", ""])
def test_a_closed_standard_error_stops_nothing(environment: str, redirection: str) -> None:
    """Whether standard error was closed at the start or later, the worker configures its logs and goes on."""
    before = "" if redirection else "sys.stderr.close()"
    code = CODE.format(before=before, environment=environment)
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert done.stdout == "went on\n"


@pytest.mark.parametrize("environment", ["development", "production"])
def test_a_traceback_does_not_tell_local_variables(environment: str) -> None:
    """Local variables of a failing delivery are people's addresses and data: a logged exception shows none of them."""
    code = CODE.format(before="", environment=environment) + (
        "import structlog\n"
        "def deliver(recipient):\n"
        "    try:\n"
        "        raise ValueError('broken')\n"
        "    except ValueError:\n"
        "        structlog.get_logger().exception('failed')\n"
        "deliver('se' + 'cret@example.com')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "broken" in done.stderr
    assert "secret@example.com" not in done.stderr


def test_a_reader_that_stalls_stalls_nobody() -> None:
    """A pipe that nobody reads is full after 64 KB: the worker goes on, and tells later how much was dropped."""
    code = CODE.format(before="", environment="production") + (
        "for _ in range(20_000): logging.getLogger('x').warning('a line of some length ' * 5)\n"
        "print('still there', flush=True)\n"
        "sys.stdin.readline()\n"
        "import time; time.sleep(0.5)\n"
        "logging.getLogger('x').warning('the last')\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"went on\n"
    assert process.stdout.readline() == b"still there\n"
    _, told = process.communicate(b"\n", timeout=30)
    assert b"lines of the log were dropped here" in told
    assert b"the last" in told
    assert process.returncode == 0
