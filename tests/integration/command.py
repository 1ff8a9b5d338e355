"""The command line in this process: as quick as a function call."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from worker import cli


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str


class Command:
    """Runs `email-worker` with arguments, and settings as the whole environment."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        # No .env file is there.
        monkeypatch.chdir(folder)

    def __call__(self, *arguments: str, **settings: str) -> Ended:
        status = 0
        with self._monkeypatch.context() as patch:
            patch.setattr(os, "environ", settings)
            try:
                cli.main(arguments)
            except SystemExit as end:
                status = int(end.code or 0)
        said = self._capsys.readouterr()
        return Ended(status, said.out, said.err)
