"""Runs `aws-ses-v2-local` (npm), an SES by somebody else: it renders templates with Handlebars and parses raw mail.

    with SesLocal() as local:
        SesServer(upstream=local.url)

Installed once into the user's cache folder, or the one that EMAIL_WORKER_LAB_CACHE names.
"""

import json
import os
import re
import select
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

PACKAGE = "aws-ses-v2-local"
VERSION = "2.10.2"
INSTALL_SECONDS = 180.0
START_SECONDS = 20.0


def missing() -> str:
    """Why it cannot run here, for a test that is skipped; empty where it can."""
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"{PACKAGE} needs {' and '.join(absent)}" if absent else ""


def install() -> Path:
    """The package's command, installed if it is not yet."""
    cache = os.environ.get("EMAIL_WORKER_LAB_CACHE") or Path.home() / ".cache" / "email-worker-lab"
    folder = Path(cache) / f"{PACKAGE}-{VERSION}"
    command = folder / "node_modules" / PACKAGE / "dist" / "cli.js"
    if not command.exists():
        folder.mkdir(parents=True, exist_ok=True)
        npm = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
        subprocess.run([*npm, f"{PACKAGE}@{VERSION}"], check=True, capture_output=True, timeout=INSTALL_SECONDS)
    return command


class SesLocal:
    """A running one; `store` is what it has taken."""

    def __init__(self) -> None:
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = ["node", str(install()), "--host", "127.0.0.1", "--port", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        try:
            # It says "localhost", which may be the other family's.
            self.url = f"http://127.0.0.1:{self._read_port()}"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def store(self) -> list[dict[str, Any]]:
        """Its mails, oldest first: messageId, from, replyTo, destination, subject, body, headers, attachments."""
        with urllib.request.urlopen(f"{self.url}/store", timeout=START_SECONDS) as response:
            emails: list[dict[str, Any]] = json.load(response)["emails"]
        return emails

    def _read_port(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        output, deadline, heard = self._process.stdout, time.monotonic() + START_SECONDS, b""
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while not (found := re.search(rb"running at \S+:(\d+)\s", heard)):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError(f"{PACKAGE} said nothing within {START_SECONDS:g} s: {heard!r}")
            chunk = os.read(output.fileno(), 65_536)
            if not chunk:
                raise ChildProcessError(f"{PACKAGE} exited with {self._process.wait()}: {heard!r}")
            heard += chunk
        return int(found[1])
