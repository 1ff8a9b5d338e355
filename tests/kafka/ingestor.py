"""An ingestor process, and what its log says."""

import json
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import eventually


@dataclass
class Ingestor:
    """A `python -m kafka_ingest` and its log, JSON lines."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def log_text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text(errors="replace")

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this name, without the last one while it is being written."""
        written = self.log_text().rpartition("\n")[0].splitlines()
        parsed = [json.loads(line) for line in written if line.startswith("{")]
        return [line for line in parsed if line["event"] == event]

    def counts(self) -> Counter[str]:
        """How many messages it has reported, by what became of them; complete when it has ended."""
        found: Counter[str] = Counter()
        for line in self.lines("ingested"):
            found.update({key: value for key, value in line.items() if isinstance(value, int)})
        return found

    def partitions(self) -> list[int]:
        """What it reads now."""
        news = [line for event in ("reading", "revoked") for line in self.lines(event)]
        last = max(news, key=lambda line: str(line["timestamp"]), default={})
        return [int(partition) for partition in last.get("offsets", {})]

    def reads(self, times: int = 1) -> "Ingestor":
        """Wait until it has been placed that often."""
        eventually(lambda: len(self.lines("reading")) >= times, "the ingestor reads")
        return self

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = 15.0) -> int:
        """SIGTERM, and its exit status."""
        self.ask_to_stop()
        return self.status(seconds)

    def status(self, seconds: float = 15.0) -> int:
        """Its exit status, when it ends."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no exit within {seconds:g} s:\n{self.log_text()}") from None

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
