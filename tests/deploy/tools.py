"""Finds the checkers, which are no part of the tests' own environment: `make judges` installs them."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FOLDERS = (ROOT / ".venv-deploy" / "bin", ROOT / ".venv-deploy" / "node_modules" / ".bin")
SECONDS = 120


def tool(name: str) -> str:
    """The program's path; the test is skipped where it is missing."""
    found = shutil.which(name, path=":".join(map(str, FOLDERS))) or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not here; make judges installs what the registries have")
    return found


def output(command: Sequence[str | Path], folder: Path = ROOT, *, silent: bool = False) -> str:
    """What a command prints; it must end with status 0, and without a complaint where it should be silent."""
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    assert not (silent and ended.stderr), ended.stderr
    return ended.stdout
