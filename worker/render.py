"""Templates into content: one mail's three parts, within the limits of time, memory and output.

Which template a job gets is `worker.catalog`'s part, Jinja itself `worker.sandbox`'s. Nothing here touches the network
or the database, and nothing raises but TemplateError, whatever a producer or an author wrote.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jinja2
import msgspec

from worker.errors import TemplateError
from worker.explain import explain
from worker.job import Content, Job
from worker.limits import (
    PART_CHARACTERS,
    RENDER_MEMORY_BYTES,
    RENDER_SECONDS,
    RenderClock,
    RenderTooLong,
    render_limits,
)
from worker.plaintext import text_from_html
from worker.sandbox import GLOBALS, MailTemplate

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_clock = RenderClock()


class Brand(msgspec.Struct, frozen=True):
    """Who the mails are from, as templates see it."""

    name: str
    address: str


def render_batch(
    jobs: Sequence[tuple[Job, MailTemplate]],
    brand: Brand,
    unsubscribe_urls: Mapping[str, str],
    ends: float = float("inf"),
) -> list[Content | TemplateError]:
    """Content for each job, or why there is none. `unsubscribe_urls` holds, by job id, those that have one.

    Fewer than the jobs when `ends`, a moment of time.monotonic(), passes meanwhile.
    """
    rendered: list[Content | TemplateError] = []
    with limits():
        for job, template in jobs:
            if rendered and time.monotonic() > ends:
                break
            rendered.append(_render_or_error(job, template, brand, unsubscribe_urls.get(job.id)))
    return rendered


def limits() -> AbstractContextManager[None]:
    """Hold the limits of `worker.limits` while something is rendered."""
    return render_limits(_clock)


def _render_or_error(
    job: Job, template: MailTemplate, brand: Brand, unsubscribe_url: str | None
) -> Content | TemplateError:
    try:
        variables = GLOBALS | _data(job.data) if job.data else dict(GLOBALS)
        variables["recipient"] = {"email": job.recipient_email, "name": job.recipient_name}
        variables["brand"] = brand
        variables["unsubscribe_url"] = unsubscribe_url
        variables["locale"] = template.source.locale
        return render(template, variables, job.subject, job.content)
    except TemplateError as error:
        # A fresh one: this one's frames hold whatever the render had in memory, at its neighbours' expense.
        return TemplateError(str(error))


def _data(text: str) -> dict[str, Any]:
    try:
        return _decode_object(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TemplateError(f"data: {error}") from None


def render(
    template: MailTemplate, variables: dict[str, Any], subject: str | None = None, html: str | None = None
) -> Content:
    """The three parts of one mail; a given subject or HTML stands instead of the template's. Raises TemplateError.

    `variables` begin with GLOBALS: they are the whole of what the template sees.
    """
    if subject is None:
        subject = " ".join(_render_part(template.subject, variables).split())
    if html is not None:
        return Content(subject, html, _text_of(html, "the job's content"))
    rendered = _render_part(template.html, variables)
    if template.text is None:
        return Content(subject, rendered, _text_of(rendered, f"template {template.html.name}"))
    return Content(subject, rendered, _render_part(template.text, variables))


def _render_part(template: jinja2.Template, variables: dict[str, Any]) -> str:
    return _guarded(
        # Shared: the variables are the context; copying them three times a mail would cost more than it guards.
        lambda: "".join(template.root_render_func(template.new_context(variables, shared=True))),
        f"template {template.name}",
        lambda error: explain(template, error),
    )


def _text_of(html: str, what: str) -> str:
    return _guarded(
        lambda: text_from_html(html),
        f"the text part of {what}",
        lambda error: f"no text part can be made of {what}: {type(error).__name__}",
    )


def _guarded(make: Callable[[], str], what: str, explained: Callable[[Exception], str]) -> str:
    """What `make` returns, or a TemplateError: nothing that it does may reach further."""
    _clock.start()
    try:
        part = make()
        if len(part) > PART_CHARACTERS:
            raise TemplateError(f"{what}: its output exceeds {PART_CHARACTERS:,} characters")
        return part
    except TemplateError:
        raise
    except RenderTooLong:
        raise TemplateError(f"{what}: rendering takes longer than {RENDER_SECONDS:g} s") from None
    except MemoryError:
        limit = RENDER_MEMORY_BYTES // 1024 // 1024
        raise TemplateError(f"{what}: rendering needs more than {limit} MB of memory") from None
    except Exception as error:  # noqa: BLE001  A template can raise anything at all.
        raise TemplateError(explained(error)) from None
    finally:
        _clock.stop()
