"""Fixtures: a Redis of this session, and the command line."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.redis import RedisServer, redis_server
from tests.integration.command import Command


@pytest.fixture(scope="session")
def limits_redis() -> Iterator[RedisServer]:
    """The embedded server of this session, or the one that the environment names."""
    with redis_server() as server:
        yield server


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The command line, in this process."""
    return Command(monkeypatch, capsys, tmp_path)
