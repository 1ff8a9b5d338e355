"""Measurements of the providers: slow ones that take one mail or many at a time, and what a signature costs."""

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from lab.bench.measure import median
from lab.bench.scene import PROCRASTINATE, Run, Scene, drain
from lab.sink_process import Counts, Sink

# The final dot's reply, or the HTTP answer, comes after this.
DELAY_SECONDS = 0.1


class CalledSink:
    """`lab.ses_server`, which counts for SES and SendGrid, with the counters of a `Sink`."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    def counts(self) -> Counts:
        """What it has accepted since its start."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR1)
        said = json.loads(self._process.stdout.readline())
        return Counts(said["accepted"], 0, said["cpu_seconds"])


@contextmanager
def called_sink(delay_seconds: float) -> Iterator[CalledSink]:
    """A service for providers that are called."""
    command = [sys.executable, "-m", "lab.ses_server", "--delay", str(delay_seconds), "--until-stdin-closes"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield CalledSink(process, int(process.stdout.readline()))
        # It says its counts once more, and ends.
        process.communicate()


def by_ses(where: Scene, jobs: int, runs: int) -> list[Run]:
    """SES in calls of 50."""
    with called_sink(DELAY_SECONDS) as sink:
        own = {
            "EMAIL_PROVIDER_PRIMARY": "ses",
            "AWS_SES_ENDPOINT_URL": sink.url,
            "AWS_SES_ACCESS_KEY": "key",
            "AWS_SES_SECRET_KEY": "secret",
        }
        return [_drained(where, sink, own, jobs) for _ in range(runs)]


def by_sendgrid(where: Scene, jobs: int, runs: int, batch: int) -> list[Run]:
    """SendGrid with a dynamic template, in requests of so many."""
    with called_sink(DELAY_SECONDS) as sink:
        own = {
            "EMAIL_PROVIDER_PRIMARY": "sendgrid",
            "SENDGRID_API_HOST": sink.url,
            "SENDGRID_API_KEY": "key",
            "SENDGRID_TEMPLATE_ID": "d-1",
            "WORKER_BATCH_SIZE": str(batch),
            "EMAIL_JOB_BATCH_SIZE": str(batch),
        }
        return [_drained(where, sink, own, jobs) for _ in range(runs)]


def by_slow_smtp(where: Scene, jobs: int, runs: int) -> list[Run]:
    """SMTP with ten connections."""
    with Sink(reply_delay=DELAY_SECONDS) as sink:
        return [_drained(where, sink, {"SMTP_PORT": str(sink.port)}, jobs) for _ in range(runs)]


def signed_over_plain(where: Scene, jobs: int, runs: int) -> dict[str, float]:
    """The rate with DKIM over that without, by kind of key; pairs in turn, the median of their ratios."""
    keys: dict[str, ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey] = {
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
        "RSA-2048": rsa.generate_private_key(65537, 2048),
    }
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, key in keys.items():
            file = Path(folder) / kind
            file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            own = {"DKIM_DOMAIN": "example.org", "DKIM_SELECTOR": "mail", "DKIM_PRIVATE_KEY_FILE": str(file)}
            pairs = [
                (_drained(where, where.sink, own, jobs), _drained(where, where.sink, {}, jobs)) for _ in range(runs)
            ]
            found[kind] = median([signed.rate / plain.rate for signed, plain in pairs])
    return found


def _drained(where: Scene, sink: Sink | CalledSink, own: Mapping[str, str], jobs: int) -> Run:
    there = dataclasses.replace(where, sink=cast(Sink, sink), environment={**where.environment, **own})
    there.fresh_database()
    there.fill(jobs)
    there.settle_down()
    return drain(there, PROCRASTINATE)


def most_megabytes(runs: Sequence[Run]) -> float:
    """The most memory that a worker held."""
    return max(run.peak_megabytes for run in runs)
