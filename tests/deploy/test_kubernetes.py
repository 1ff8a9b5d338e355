"""The manifests: what kustomize makes of them is valid, confined, and understood by our processes."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import KUBERNETES
from tests.deploy.test_containers import SHUTDOWN_SECONDS
from tests.deploy.tools import output, tool
from tests.integration.rows import insert_job
from tests.support import Database
from worker.db import OTHER_CONNECTIONS
from worker.settings import Settings
from worker.settings_loading import load_settings

Manifest = dict[str, Any]
# Kinds of others, of which kubernetes-validate has no schema.
FOREIGN = {"ScaledObject", "TriggerAuthentication", "PodMonitor"}


def built(folder: Path) -> list[Manifest]:
    """What would be applied."""
    return list(yaml.safe_load_all(output([tool("kubectl"), "kustomize", folder])))


@pytest.fixture(scope="module")
def base() -> list[Manifest]:
    """The base alone."""
    return built(KUBERNETES / "base")


@pytest.fixture(scope="module")
def example() -> list[Manifest]:
    """The example of an overlay."""
    return built(KUBERNETES / "overlays" / "example")


def with_components(folder: Path, names: Sequence[str]) -> list[Manifest]:
    """The base with some components."""
    places = {
        "resources": [os.path.relpath(KUBERNETES / "base", folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / name, folder) for name in names],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(places))
    return built(folder)


def of_kind(manifests: Sequence[Manifest], *kinds: str) -> list[Manifest]:
    """Those of some kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: Sequence[Manifest]) -> dict[str, Manifest]:
    """The pods' specifications, by the names of what makes them."""
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
        for manifest in of_kind(manifests, "Deployment", "Job")
    }


def environment(pod: Manifest, manifests: Sequence[Manifest]) -> dict[str, str]:
    """The variables of a pod's container; what is not there fails here as it would there."""
    plain = {one["metadata"]["name"]: one["data"] for one in of_kind(manifests, "ConfigMap")}
    secret = {one["metadata"]["name"]: one["data"] for one in of_kind(manifests, "Secret")}
    found: dict[str, str] = {}
    for source in pod["containers"][0]["envFrom"]:
        if "configMapRef" in source:
            found |= plain[source["configMapRef"]["name"]]
        else:
            coded = secret[source["secretRef"]["name"]]
            found |= {name: base64.b64decode(value).decode() for name, value in coded.items()}
    return found


@pytest.mark.parametrize(
    "components", [(), ("hpa",), ("keda", "podmonitor")], ids=lambda names: "+".join(names) or "base"
)
def test_the_manifests_are_valid(tmp_path: Path, components: Sequence[str]) -> None:
    """By Kubernetes' own schemas, with nothing that they do not know; KEDA's and the operator's are not among them."""
    manifests = with_components(tmp_path, components)
    known = tmp_path / "known.yaml"
    known.write_text(yaml.safe_dump_all(one for one in manifests if one["kind"] not in FOREIGN))
    output([tool("kubernetes-validate"), "--strict", known])


def test_the_example_is_valid(example: list[Manifest], tmp_path: Path) -> None:
    """It is what people copy."""
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(example))
    output([tool("kubernetes-validate"), "--strict", tmp_path / "all.yaml"])
    assert {one["metadata"]["namespace"] for one in example} == {"email"}
    assert {pod["containers"][0]["image"] for pod in pods(example).values()} == {
        "registry.example.com/email-worker:0.3.0"
    }


def test_the_settings_are_accepted_by_our_processes(base: list[Manifest], example: list[Manifest]) -> None:
    """Each process would start with what it is given, and no more: only workers know how mail leaves."""
    for manifests in (base, example):
        for name, pod in pods(manifests).items():
            given = environment(pod, manifests)
            load_settings(given)
            assert given["METRICS_PORT"] == "9464"
            assert ("SMTP_PASSWORD" in given) == (name == "email-worker")


def test_every_pod_is_confined(base: list[Manifest]) -> None:
    """As the standard `restricted` asks, and read-only, without a token and without the variables of services."""
    assert set(pods(base)) == {"email-worker", "email-kafka-ingest", "email-redis-ingest", "email-migrate"}
    for pod in pods(base).values():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["containers"][0]["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_probes_ask_where_the_process_serves(base: list[Manifest]) -> None:
    """The container's port is METRICS_PORT."""
    for pod in pods(of_kind(base, "Deployment")).values():
        container = pod["containers"][0]
        assert container["ports"] == [{"name": "metrics", "containerPort": 9464}]
        asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
        assert asked == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}


def test_a_worker_has_time_to_end(base: list[Manifest]) -> None:
    """Longer than its slowest shutdown; and it hears SIGTERM from its first moment on, which a number 1 does not."""
    assert all(pod["shareProcessNamespace"] is True for pod in pods(base).values())
    assert pods(base)["email-worker"]["terminationGracePeriodSeconds"] > SHUTDOWN_SECONDS


def test_labels_find_their_pods(base: list[Manifest]) -> None:
    """Selectors of budgets and policies each meet a pod's labels."""
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(base, "Deployment", "Job")]
    for one in of_kind(base, "PodDisruptionBudget", "NetworkPolicy"):
        selector = one["spec"].get("selector") or one["spec"]["podSelector"]
        assert any(selector["matchLabels"].items() <= found.items() for found in labels), one["metadata"]["name"]


@pytest.mark.parametrize("component", ["hpa", "keda"])
def test_an_autoscaler_has_the_number_of_workers_to_itself(tmp_path: Path, component: str) -> None:
    """Else each apply would set it back."""
    (worker,) = [
        one
        for one in of_kind(with_components(tmp_path, [component]), "Deployment")
        if one["metadata"]["name"] == "email-worker"
    ]
    assert "replicas" not in worker["spec"]


@pytest.mark.parametrize("component", ["hpa", "keda"])
def test_the_comments_count_connections_rightly(component: str) -> None:
    """The number that the database must have room for is the one that is written beside the limit."""
    (file,) = [
        path for path in (KUBERNETES / "components" / component).glob("*.yaml") if path.name != "kustomization.yaml"
    ]
    each = Settings().worker_concurrency + OTHER_CONNECTIONS
    assert f"10 hold up to {10 * each} connections, {11 * each} during a roll-out" in file.read_text()


def test_keda_asks_a_question_that_postgres_answers(tmp_path: Path, database: Database) -> None:
    """The age of the oldest transactional job that is due; none of one that waits, or of bulk mail."""
    (scaled,) = of_kind(with_components(tmp_path, ["keda"]), "ScaledObject")
    question = scaled["spec"]["triggers"][0]["metadata"]["query"]
    with database.connect() as db:
        assert db.execute(question).fetchone() == (0.0,)
        insert_job(db, "later", scheduled_at="2099-01-01")
        insert_job(db, "bulk", queue="bulk")
        assert db.execute(question).fetchone() == (0.0,)
        insert_job(db, "now")
        row = db.execute(question).fetchone()
        assert row is not None
        assert 0 < row[0] < 60


def test_keda_takes_its_variables_from_a_container_that_has_them(tmp_path: Path) -> None:
    """A misspelled name would be an empty password."""
    manifests = with_components(tmp_path, ["keda"])
    (authentication,) = of_kind(manifests, "TriggerAuthentication")
    worker = pods(manifests)["email-worker"]
    for variable in authentication["spec"]["env"]:
        assert variable["containerName"] == worker["containers"][0]["name"]
        assert variable["name"] in environment(worker, manifests)


def test_prometheus_knows_the_jobs_by_the_names_that_its_rules_ask_for(base: list[Manifest], tmp_path: Path) -> None:
    """The label that names the job is on each pod that serves figures, and the monitor chooses by it."""
    (monitor,) = of_kind(with_components(tmp_path, ["podmonitor"]), "PodMonitor")
    label = monitor["spec"]["jobLabel"]
    names = {one["spec"]["template"]["metadata"]["labels"][label] for one in of_kind(base, "Deployment")}
    assert names == {"email-worker", "email-ingest"}
    assert set(monitor["spec"]["selector"]["matchExpressions"][0]["values"]) == names
