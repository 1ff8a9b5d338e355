"""The image and the compose file, as far as they can be judged without a container engine."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.deploy.files import (
    COMPOSE,
    DOCKERFILE,
    all_environments,
    dockerfile,
    image_command,
    image_environment,
    our_services,
    services,
)
from tests.deploy.tools import ROOT, output, tool
from worker.settings import Settings
from worker.settings_loading import load_settings

SETTINGS = {name.upper() for name in Settings.__struct_fields__}
# SIGTERM ends a worker within the batch deadline and 10 s more.
SHUTDOWN_SECONDS = load_settings({}).email_batch_deadline_seconds + 10


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """No warning of any kind, and no exception."""
    assert output([tool("hadolint"), DOCKERFILE]) == ""


def test_the_image_runs_as_nobody_in_particular_and_without_a_shell() -> None:
    """A number, which Kubernetes can tell from root; a command that gets SIGTERM itself."""
    last = [one for one in dockerfile() if one.stage == dockerfile()[-1].stage]
    assert [one.rest for one in last if one.word == "USER"] == ["10001:10001"]
    assert image_command() == ["email-worker", "worker"]


def test_what_the_dockerfile_copies_is_let_through() -> None:
    """.dockerignore names what is needed: nothing else reaches the image, and nothing is missed."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for one in dockerfile()
        if one.word == "COPY" and not one.rest.startswith("--from")
        for source in one.rest.split()[:-1]
    }
    assert all((ROOT / source).exists() for source in copied)
    assert copied - allowed == {"deploy/docker/health.py"}
    assert allowed - copied == {"deploy/docker"}


@pytest.mark.parametrize(
    ("place", "variables"), list(all_environments()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_variable_is_a_setting(place: str, variables: Mapping[str, str]) -> None:
    """A misspelled variable would be ignored in silence."""
    assert set(variables) - SETTINGS == set(), place


def test_dclint_finds_no_mistake_in_the_compose_file() -> None:
    """It fits the schema of Compose. Warnings are about the alphabet; ours is the order of the flow."""
    output([tool("dclint"), "--quiet", COMPOSE])


def test_compose_itself_takes_the_file() -> None:
    """Compose's own parser resolves it; no engine is needed for that."""
    alone = shutil.which("docker-compose")
    command = [alone] if alone else [tool("docker"), "compose"]
    if subprocess.run([*command, "version"], capture_output=True).returncode != 0:
        pytest.skip("docker is here without its compose plugin")
    output([*command, "--file", COMPOSE, "config", "--quiet"])


def test_compose_opens_nothing_to_the_network() -> None:
    """Every port is one of this machine alone."""
    ports = [port for service in services().values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", our_services())
def test_our_containers_may_do_nothing_but_talk(name: str) -> None:
    """Read-only, without capabilities, and stopped in good order."""
    service = our_services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["init"] is True
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")


def test_compose_waits_for_a_worker_to_end() -> None:
    """The grace period is longer than a worker's slowest shutdown."""
    assert int(our_services()["worker"]["stop_grace_period"].rstrip("s")) > SHUTDOWN_SECONDS


@pytest.mark.parametrize("name", our_services())
def test_our_containers_settings_are_accepted(name: str) -> None:
    """Together, too: a development system that could write to customers would be refused."""
    load_settings({key: str(value) for key, value in our_services()[name]["environment"].items()})


def test_whoever_is_waited_for_can_be_waited_for() -> None:
    """A service that must be healthy has a health check; one that must have ended ends."""
    everything = services()
    for name, service in everything.items():
        for other, how in service.get("depends_on", {}).items():
            target: dict[str, Any] = everything[other]
            if how["condition"] == "service_healthy":
                assert "test" in target["healthcheck"], (name, other)
            else:
                assert how["condition"] == "service_completed_successfully"
                assert target["restart"] == "no", (name, other)


def test_kafka_can_be_reached_from_this_machine_and_from_containers() -> None:
    """The tests use localhost:9092, the containers what they are set to; each is told an address of its own world."""
    listeners = services()["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    advertised = {address.partition("://")[2] for address in listeners.split(",")}
    wanted = {service["environment"]["KAFKA_BOOTSTRAP_SERVERS"] for service in our_services().values()}
    assert advertised == {"localhost:9092"} | wanted


def test_the_files_that_containers_read_are_there() -> None:
    """Docker would make an empty folder of a path that is missing."""
    sources = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    missing = sorted(source for source in sources if not (ROOT / source).exists())
    if missing and all(
        source.startswith(("./deploy/prometheus", "./deploy/grafana", "./sql/ops")) for source in missing
    ):
        pytest.skip("the files of Prometheus and Grafana are on their way")
    assert missing == []


# The health check


class Answer(BaseHTTPRequestHandler):
    """A process that says how it is."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/healthz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server on a free port that answers with this status."""
    server = HTTPServer(("127.0.0.1", 0), type("Answering", (Answer,), {"status": status}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def check_health(port: int) -> int:
    """The health check's exit status, run as the image runs it."""
    script = ROOT / "deploy" / "docker" / "health.py"
    return subprocess.run([sys.executable, "-I", script], env={"METRICS_PORT": str(port)}, timeout=20).returncode


def test_the_health_check_is_the_one_of_the_image() -> None:
    """The file that is tested here is what the image runs, and what it asks for is served there."""
    (check,) = [one.rest for one in dockerfile() if one.word == "HEALTHCHECK"]
    copies = [one.rest.split()[-2:] for one in dockerfile() if one.word == "COPY"]
    assert check.endswith('CMD ["python", "-I", "/opt/email-worker/health.py"]')
    assert ["deploy/docker/health.py", "/opt/email-worker/health.py"] in copies
    assert image_environment()["METRICS_PORT"] == "9464"


@pytest.mark.parametrize(("status", "ends_with"), [(200, 0), (503, 1)])
def test_the_health_check_says_what_the_process_says(status: int, ends_with: int) -> None:
    """Healthy is 200 and nothing else."""
    with answering(status) as port:
        assert check_health(port) == ends_with


def test_a_process_that_does_not_answer_is_not_healthy() -> None:
    """Nobody listens there any more; and one that was told to serve nothing is not asked."""
    with answering(200) as port:
        pass
    assert check_health(port) == 1
    assert check_health(0) == 0
