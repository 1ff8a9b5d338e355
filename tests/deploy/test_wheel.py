"""What the image's build makes: the Dockerfile's own steps, run here, and a mail's journey through what they built.

Nothing of the source is in reach of the processes: they have the environment that was built, and an empty folder.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import redis
from confluent_kafka import Producer

from lab.kafka import broker
from lab.postgres import PostgresServer
from lab.postgres_process import free_tcp_port
from lab.redis import redis_server
from lab.sink_process import Sink
from tests.deploy.files import dockerfile, image_command, our_services, services
from tests.deploy.test_containers import check_health
from tests.deploy.tools import ROOT
from tests.support import eventually

BUILD_SECONDS = 400
# What pip says of a registry that it cannot reach.
UNREACHED = ("NewConnectionError", "Failed to establish", "Temporary failure in name resolution", "Read timed out")


@dataclass(frozen=True)
class Image:
    """What the build made, at another place than in the image, and an empty folder."""

    environment: Path
    folder: Path

    def command(self, words: Sequence[str]) -> list[str]:
        """A command of the image."""
        return [str(self.environment / "bin" / words[0]), *words[1:]]

    def output(self, *words: str) -> str:
        """What it prints; it must end with status 0."""
        ended = subprocess.run(self.command(words), cwd=self.folder, env={}, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The steps of the Dockerfile's first stage, with this Python."""
    work = tmp_path_factory.mktemp("image")
    source, built, wheels, python = (work / name for name in ("source", "built", "wheels", "python"))
    # Whatever the steps install beside it goes into an environment of their own.
    subprocess.run([sys.executable, "-m", "venv", python], check=True)
    for one in dockerfile():
        if one.stage == 0 and one.word == "COPY":
            copy(one.rest.split(), source)
        if one.stage == 0 and one.word == "RUN":
            step = one.rest.replace("/opt/email-worker", str(built)).replace("/wheels", str(wheels))
            run_step(step, source, {**os.environ, "PATH": f"{python / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": ""})
    (work / "empty").mkdir()
    return Image(built, work / "empty")


def copy(words: Sequence[str], source: Path) -> None:
    """COPY: files and folders into the working folder."""
    source.mkdir(exist_ok=True)
    *names, target = words
    for name in names:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / target)


def run_step(step: str, source: Path, environment: Mapping[str, str]) -> None:
    """RUN: by a shell, as there."""
    ended = subprocess.run(
        ["/bin/sh", "-c", step], cwd=source, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS
    )
    said = ended.stdout + ended.stderr
    if ended.returncode != 0 and any(words in said for words in UNREACHED):
        pytest.skip("no package registry can be reached")
    assert ended.returncode == 0, f"{step}\n{said}"


def test_the_commands_are_there(image: Image) -> None:
    """The console script, and both ingestors, without the source."""
    assert "COMMAND" in image.output("email-worker", "--help")
    assert "WORKER_CONCURRENCY" in image.output("email-worker", "config")
    assert "ok    booking-confirmation" in image.output("email-worker", "template", "lint", "booking-confirmation")
    where = image.output("python", "-c", "import kafka_ingest, redis_ingest; print(kafka_ingest.__file__)")
    assert where.startswith(str(image.environment))


def test_nothing_is_left_that_builds(image: Image) -> None:
    """No pip, no build backend, no tools of ours."""
    installed = {path.name.partition("-")[0].lower() for path in image.environment.rglob("*.dist-info")}
    assert "email_worker" in installed
    assert installed & {"pip", "setuptools", "wheel", "hatchling", "pytest", "mypy", "ruff"} == set()


def test_everything_is_compiled_for_good(image: Image) -> None:
    """A read-only image cannot compile; what was compiled does not ask for the source's time, which builders change."""
    modules = image.output(
        "python", "-c", "import worker.delivery, sys; print(sys.modules['worker.delivery'].__cached__)"
    )
    header = Path(modules.strip()).read_bytes()[:8]
    # PEP 552: bit 0, by hash; bit 1, look at the source.
    assert int.from_bytes(header[4:], "little") == 0b01


# A mail's way through the whole system, with the compose file's own settings and commands


@dataclass(frozen=True)
class System:
    """The servers of the compose file, as embedded ones."""

    postgres: PostgresServer
    sink: Sink
    addresses: Mapping[str, str]
    kafka: str

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """A connection to the worker's database, as its role."""
        return psycopg.connect(
            host=self.postgres.socket_folder, port=self.postgres.port, dbname="email", user="email", autocommit=True
        )


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """Postgres with the role that the compose file makes, Kafka with its topics, Redis, and a sink for the catcher."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(settings={"fsync": "off"}))
        make_role(postgres)
        kafka, store = stack.enter_context(broker()), stack.enter_context(redis_server())
        if not (kafka.controllable and store.controllable):
            pytest.skip("the names of the compose file may be in use on these servers")
        for topic in re.findall(r"email-\w+", services()["topics"]["command"][-1]):
            kafka.create_topic(topic, 4)
        sink = stack.enter_context(Sink())
        addresses = {
            "DB_HOST": postgres.socket_folder,
            "DB_PORT": str(postgres.port),
            "KAFKA_BOOTSTRAP_SERVERS": kafka.servers,
            "REDIS_HOST": store.host,
            "REDIS_PORT": str(store.port),
            "SMTP_HOST": sink.host,
            "SMTP_PORT": str(sink.port),
        }
        yield System(postgres, sink, addresses, kafka.servers)


def make_role(postgres: PostgresServer) -> None:
    """The file that the compose file's Postgres begins with."""
    text = re.sub(r"^--.*$", "", (ROOT / "deploy" / "compose" / "role.sql").read_text(), flags=re.MULTILINE)
    with psycopg.connect(postgres.dsn(), autocommit=True) as db:
        for statement in filter(str.strip, text.split(";")):
            db.execute(statement.encode())


class Running(NamedTuple):
    """A process, and where it serves its health."""

    process: subprocess.Popen[bytes]
    port: int

    def ends(self, *, asked: bool = False) -> int:
        """Its exit status, after SIGTERM where it is to be asked."""
        if asked:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def service(name: str, image: Image, system: System) -> Iterator[Running]:
    """A service of the compose file: its command, its settings, other addresses."""
    described = our_services()[name]
    given = {key: str(value) for key, value in described["environment"].items()}
    port = free_tcp_port()
    own = {"METRICS_PORT": str(port)} | {key: value for key, value in system.addresses.items() if key in given}
    # Ports are the defaults there.
    own |= {key: system.addresses[key] for key in ("DB_PORT", "REDIS_PORT")}
    command = image.command(described.get("command") or image_command())
    process = subprocess.Popen(command, cwd=image.folder, env=given | own)
    try:
        yield Running(process, port)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def documented_message() -> bytes:
    """The line that docs/deploy.md puts into Kafka."""
    line: str
    (line,) = re.findall(r'^ *(\{"id": "hello-1".*\})$', (ROOT / "docs" / "deploy.md").read_text(), re.MULTILINE)
    assert json.loads(line)["id"] == "hello-1"
    return line.encode()


def status(db: psycopg.Connection[tuple[object, ...]], job_id: str) -> object:
    """A job's status, None while it is not there."""
    row = db.execute("SELECT status FROM email_jobs WHERE job_id = %s", (job_id,)).fetchone()
    return row and row[0]


def test_a_message_in_kafka_becomes_a_mail(image: Image, system: System) -> None:
    """migrate, an ingestor and a worker, from the wheel alone, set as in the compose file; each ends on SIGTERM."""
    with service("migrate", image, system) as migrate:
        assert migrate.ends() == 0
    with (
        service("worker", image, system) as worker,
        service("kafka-ingest", image, system) as ingestor,
        system.connect() as db,
    ):
        producer = Producer({"bootstrap.servers": system.kafka})
        producer.produce("email-jobs", documented_message())
        producer.flush(10)
        eventually(lambda: status(db, "hello-1") == "sent", "the mail is sent", 60)
        assert system.sink.counts().accepted == 1
        assert (check_health(worker.port), check_health(ingestor.port)) == (0, 0)
        assert (worker.ends(asked=True), ingestor.ends(asked=True)) == (0, 0)


def test_a_message_in_redis_becomes_a_job(image: Image, system: System) -> None:
    """The other road, on the same database; migrate is safe to repeat."""
    with service("migrate", image, system) as migrate:
        assert migrate.ends() == 0
    message = json.loads(documented_message()) | {"id": "hello-2"}
    client = redis.Redis(host=system.addresses["REDIS_HOST"], port=int(system.addresses["REDIS_PORT"]), db=5)
    with service("redis-ingest", image, system) as ingestor, client, system.connect() as db:
        client.rpush("email-jobs", json.dumps(message))
        eventually(lambda: status(db, "hello-2") == "pending", "the job is there", 30)
        assert ingestor.ends(asked=True) == 0
