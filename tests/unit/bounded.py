"""Running code that may never end: in a process of its own, which is killed when its time is up."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
# Far beyond what the work takes; only what would go on for minutes comes near.
GIVE_UP_SECONDS = 15


def run_bounded(code: str) -> str:
    """What this code prints; fails when it raises, or goes on as if for ever."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=GIVE_UP_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it was still running after {GIVE_UP_SECONDS} s") from None
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
