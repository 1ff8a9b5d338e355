"""Reads the deployment files: what they run, and which variables they set for processes of ours."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.deploy.tools import ROOT

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "Dockerfile"
KUBERNETES = ROOT / "deploy" / "kubernetes"
SYSTEMD = ROOT / "deploy" / "systemd"
# Of the image, and no settings.
PYTHONS_OWN = {"PATH", "PYTHONDONTWRITEBYTECODE"}


class Instruction(NamedTuple):
    """One instruction of the Dockerfile, in its stage."""

    stage: int
    word: str
    rest: str


def dockerfile() -> list[Instruction]:
    """The instructions, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Instruction] = []
    stage = -1
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.strip().partition(" ")
        stage += word == "FROM"
        found.append(Instruction(stage, word, rest.strip()))
    return found


def image_command() -> list[str]:
    """What the image runs by itself, in the form that needs no shell."""
    (rest,) = [one.rest for one in dockerfile() if one.word == "CMD"]
    command: list[str] = json.loads(rest)
    return command


def image_environment() -> dict[str, str]:
    """The variables of the image that is run."""
    last = dockerfile()[-1].stage
    pairs = [part for one in dockerfile() if one.word == "ENV" and one.stage == last for part in shlex.split(one.rest)]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs) if name not in PYTHONS_OWN}


def services() -> dict[str, dict[str, Any]]:
    """The services of the compose file, merge keys resolved."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def our_services() -> dict[str, dict[str, Any]]:
    """Those that run the image."""
    return {name: service for name, service in services().items() if "build" in service}


def env_file(path: Path) -> dict[str, str]:
    """`NAME=value` lines."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def env_files() -> dict[str, dict[str, str]]:
    """The settings of Kubernetes and systemd, by their places."""
    return {str(path.relative_to(ROOT)): env_file(path) for path in sorted((ROOT / "deploy").rglob("*.env"))}


def overlay_literals() -> dict[str, dict[str, str]]:
    """What overlays and components set beside those."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(KUBERNETES.rglob("kustomization.yaml")):
        kustomization = yaml.safe_load(path.read_text())
        for generator in kustomization.get("configMapGenerator", []) + kustomization.get("secretGenerator", []):
            for literal in generator.get("literals", []):
                name, _, value = literal.partition("=")
                found.setdefault(str(path.relative_to(ROOT)), {})[name] = value
    return found


def all_environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    """Everything that sets variables for our processes, by name."""
    yield "Dockerfile", image_environment()
    for name, service in our_services().items():
        yield f"docker-compose.yml {name}", service["environment"]
    yield from env_files().items()
    yield from overlay_literals().items()
