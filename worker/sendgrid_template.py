"""SendGrid's side of SENDGRID_TEMPLATE_ID: a dynamic template that holds nothing but our three texts, made and mended.

Documented under "Transactional Templates" of SendGrid's v3 API.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from worker.errors import AnswerLost, ProviderUnreachable, SettingsError, TemplateError
from worker.providers.http import HttpAnswer, HttpPool
from worker.settings import Settings

NAME = "email-worker"
# generate_plain_content would make a text part out of {{{html}}}, as it stands there.
VERSION = {
    "subject": "{{{subject}}}",
    "html_content": "{{{html}}}",
    "plain_content": "{{{text}}}",
    "generate_plain_content": False,
}
ANSWER_SECONDS = 30.0
_REFUSED = 400


class _Templates:
    """The template calls of one account."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.sendgrid_api_host.rstrip("/") + "/v3/templates"
        self._headers = {
            "Authorization": f"Bearer {settings.sendgrid_api_key.reveal()}",
            "Content-Type": "application/json",
        }
        self._http = HttpPool(1)

    def ask(self, method: str, path: str = "", body: dict[str, Any] | None = None) -> Any:
        """The answer's JSON. Raises TemplateError with what SendGrid says."""
        content = None if body is None else msgspec.json.encode(body)
        try:
            answer = self._http.request(method, self._url + path, self._headers, content, ANSWER_SECONDS)
        except (ProviderUnreachable, AnswerLost) as error:
            raise TemplateError(f"SendGrid: {error}") from None
        if answer.status >= _REFUSED:
            raise TemplateError(f"SendGrid refuses to {method} {path or '/'}: {answer.status} {_said(answer)}")
        try:
            return msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            raise TemplateError(f"SendGrid's answer to {method} {path or '/'} is not JSON") from None


def sync(settings: Settings) -> tuple[str, str]:
    """Make the template, or mend the one of SENDGRID_TEMPLATE_ID; returns its id, and what was done.

    Raises SettingsError without a key, and TemplateError with SendGrid's words when it refuses.
    """
    if not settings.sendgrid_api_key:
        raise SettingsError("SENDGRID_API_KEY is not set: it must hold a key with the right to write templates.")
    templates = _Templates(settings)
    number = settings.sendgrid_template_id
    if not number:
        number = templates.ask("POST", body={"name": NAME, "generation": "dynamic"})["id"]
        _add_version(templates, number)
        return number, "created"
    found = templates.ask("GET", f"/{quote(number, safe='')}")
    if found.get("generation") != "dynamic":
        raise TemplateError(f"SENDGRID_TEMPLATE_ID={number!r} is no dynamic template; leave it empty to make one.")
    active: dict[str, Any] = next((one for one in found.get("versions", ()) if one.get("active") == 1), {})
    if {name: active.get(name) for name in VERSION} == VERSION:
        return number, "unchanged"
    _add_version(templates, number)
    return number, "mended"


def _add_version(templates: _Templates, number: str) -> None:
    templates.ask("POST", f"/{quote(number, safe='')}/versions", {"name": NAME, "active": 1, **VERSION})


def _said(answer: HttpAnswer) -> str:
    """The words of an error, in either of the forms that SendGrid has for them."""
    try:
        body = msgspec.json.decode(answer.body)
        errors = body.get("errors") or [{"message": body.get("error", "")}]
        return "; ".join(str(error.get("message", "")) for error in errors)
    except (msgspec.DecodeError, AttributeError):
        return "without words"
