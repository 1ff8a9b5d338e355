"""Rendering one template beside a good neighbour, as a batch does."""

import json
from typing import Any

from tests.unit.values import make_job
from worker.errors import TemplateError
from worker.job import Content
from worker.render import Brand, render_batch
from worker.sandbox import MailTemplate, TemplateSource, compile_template

BRAND = Brand("Acme", "mail@example.com")
_NEIGHBOUR = compile_template(
    TemplateSource("neighbour", "en", "Subject", "<p>{{ name }} {{ range(2) | list }}</p>", None)
)
_NEIGHBOURS_JOB = make_job(seq=2, data='{"name": "Ann"}')


def template(html: str, subject: str = "Subject", text: str | None = None) -> MailTemplate:
    """A compiled template labelled `t`. Raises TemplateError."""
    return compile_template(TemplateSource("t", "en", subject, html, text))


def outcome(of: MailTemplate, data: Any = None, url: str | None = None, **job: Any) -> Content | TemplateError:
    """What a batch makes of a job with this template and data, once its neighbour has come out well."""
    mail = make_job(data=None if data is None else json.dumps(data), **job)
    urls = {} if url is None else {mail.id: url}
    found, good = render_batch([(mail, of), (_NEIGHBOURS_JOB, _NEIGHBOUR)], BRAND, urls)
    assert isinstance(good, Content)
    assert good.html == "<p>Ann [0, 1]</p>"
    return found


def content(of: MailTemplate, data: Any = None, url: str | None = None, **job: Any) -> Content:
    """The content; fails when there is none."""
    found = outcome(of, data, url, **job)
    assert isinstance(found, Content), found
    return found


def html(source: str, data: Any = None) -> str:
    """The HTML that this source makes of the data."""
    return content(template(source), data).html


def problem(source: str, data: Any = None) -> str:
    """Why this HTML source does not render these data; fails when it does."""
    try:
        found = outcome(template(source), data)
    except TemplateError as error:
        return str(error)
    assert isinstance(found, TemplateError), found
    return str(found)
