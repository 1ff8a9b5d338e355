"""SendGrid's transactional templates, as far as they are documented: made, read, and given versions."""

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from aiohttp import web

PATH = "/v3/templates"
MOST_NAME = 100
MOST_SUBJECT = 255
GENERATIONS = ("legacy", "dynamic")


class Templates:
    """The templates of one account."""

    def __init__(self) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}
        self._numbers = count(1)

    def answer(self, method: str, path: str, raw: bytes) -> web.Response:
        """One request under PATH, whose key was right."""
        parts = path.removeprefix(PATH).strip("/").split("/")
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            return _refusal(400, "invalid JSON")
        if method == "POST" and parts == [""]:
            return self._create(body)
        template = self.by_id.get(parts[0])
        if template is None:
            return _refusal(404, "template not found")
        if method == "GET" and len(parts) == 1:
            return web.json_response(template)
        if method == "POST" and parts[1:] == ["versions"]:
            return self._add_version(template, body)
        return _refusal(404, "not found")

    def _create(self, body: Mapping[str, Any]) -> web.Response:
        name, generation = body.get("name"), body.get("generation", "legacy")
        if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
            return _refusal(400, "name is required, and 100 characters at most")
        if generation not in GENERATIONS:
            return _refusal(400, "generation must be legacy or dynamic")
        prefix = "d-" if generation == "dynamic" else ""
        template = {
            "id": f"{prefix}{next(self._numbers):032x}",
            "name": name,
            "generation": generation,
            "versions": [],
        }
        self.by_id[template["id"]] = template
        return web.json_response(template, status=201)

    def _add_version(self, template: dict[str, Any], body: Mapping[str, Any]) -> web.Response:
        name, subject = body.get("name"), body.get("subject")
        if not isinstance(name, str) or not 0 < len(name) <= MOST_NAME:
            return _refusal(400, "name is required, and 100 characters at most")
        if not isinstance(subject, str) or len(subject) > MOST_SUBJECT:
            return _refusal(400, "subject is required, and 255 characters at most")
        is_generated = body.get("generate_plain_content", True)
        version = {
            "id": f"version-{len(template['versions']) + 1}",
            "template_id": template["id"],
            "name": name,
            "subject": subject,
            "html_content": body.get("html_content", ""),
            "plain_content": body.get("html_content", "") if is_generated else body.get("plain_content", ""),
            "generate_plain_content": is_generated,
            "active": 1 if body.get("active") == 1 or not template["versions"] else 0,
        }
        if version["active"]:
            for other in template["versions"]:
                other["active"] = 0
        template["versions"].append(version)
        return web.json_response(version, status=201)


def _refusal(status: int, error: str) -> web.Response:
    # This part of the API has one error, not a list.
    return web.json_response({"error": error}, status=status)
