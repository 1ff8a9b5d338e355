"""The unit files, as far as systemd judges them without running them."""

import re
import sys
from pathlib import Path

import pytest

from tests.deploy.files import SYSTEMD, env_file
from tests.deploy.test_containers import SHUTDOWN_SECONDS
from tests.deploy.tools import output, tool
from worker.settings_loading import load_settings


def test_systemd_finds_no_mistake(tmp_path: Path) -> None:
    """It has nothing to say, with a program that is here in place of those that are not installed."""
    for unit in SYSTEMD.glob("*.service"):
        (tmp_path / unit.name).write_text(re.sub(r"/opt/email-worker/bin/[\w-]+", sys.executable, unit.read_text()))
    output([tool("systemd-analyze"), "verify", "--man=no", *sorted(tmp_path.glob("*.service"))], silent=True)


@pytest.mark.parametrize("unit", ["email-worker@.service"])
def test_systemd_waits_for_a_worker_to_end(unit: str) -> None:
    """Longer than its slowest shutdown."""
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", (SYSTEMD / unit).read_text(), re.MULTILINE)
    assert int(seconds) > SHUTDOWN_SECONDS


def test_the_example_of_settings_is_accepted() -> None:
    """It is what people copy."""
    load_settings(env_file(SYSTEMD / "settings.env"))
