"""Templates into content: Jinja2 in its sandbox, strict about what is missing, limited in what it may use.

Owns the Jinja environments, the filters that templates may use, and the errors that name template, line and variable.
Which template a job gets is `worker.catalog`'s part. Nothing here touches the network or the database.
"""

import traceback
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
import markupsafe
import msgspec
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.errors import TemplateError
from worker.job import Content, Job
from worker.limits import (
    PART_CHARACTERS,
    RENDER_MEMORY_BYTES,
    RENDER_SECONDS,
    RenderClock,
    RenderTooLong,
    render_limits,
)

try:
    from markupsafe._speedups import _escape_inner as escape_text
except ImportError:
    from markupsafe._native import _escape_inner as escape_text

_WHEEL = Path(__file__).parent / "_templates"
TEMPLATE_FOLDER = _WHEEL if _WHEEL.is_dir() else Path(__file__).parent.parent / "templates"

# The names that every template sees beside the job's data; a key of the same name in the data is hidden.
RESERVED = ("recipient", "brand", "unsubscribe_url", "locale")

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class TemplateSource(msgspec.Struct, frozen=True):
    """What a template's row or files say. `text` None: made from the HTML."""

    label: str
    locale: str
    subject: str
    html: str
    text: str | None


class MailTemplate(msgspec.Struct, frozen=True):
    """A compiled template."""

    source: TemplateSource
    subject: jinja2.Template
    html: jinja2.Template
    text: jinja2.Template | None


class Brand(msgspec.Struct, frozen=True):
    """Who the mails are from, as templates see it."""

    name: str
    address: str


def _escape(value: object) -> str:
    """HTML-escape what is only going to be joined: without the Markup object that markupsafe wraps around it."""
    kind = type(value)
    if kind is str:
        return escape_text(value)  # type: ignore[arg-type]
    if kind is int or kind is float:
        return str(value)
    return markupsafe.escape(value)


class LeanTemplate(jinja2.Template):
    """A template whose output is escaped by `_escape`: printing a variable is most of what rendering costs."""

    @classmethod
    def from_code(
        cls,
        environment: jinja2.Environment,
        code: CodeType,
        globals: MutableMapping[str, Any],
        uptodate: Callable[[], bool] | None = None,
    ) -> jinja2.Template:
        """As in Jinja; the compiled module finds `escape` among its globals."""
        template = super().from_code(environment, code, globals, uptodate)
        template.root_render_func.__globals__["escape"] = _escape
        return template


class MailEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where `x.items` of a dict is its key: data have keys called items, and templates want them."""

    template_class = LeanTemplate

    def getattr(self, obj: Any, attribute: str) -> Any:
        """`obj.attribute`; the key first for a dict."""
        kind = type(obj)
        if kind is dict and attribute in obj:
            return obj[attribute]
        if kind is TemplateModule and attribute[0] != "_" and attribute in obj.__dict__:
            return obj.__dict__[attribute]
        return super().getattr(obj, attribute)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call in a template; a macro is the template's own code and needs no questions."""
        if type(obj) is Macro:
            return context.call(obj, *args, **kwargs)
        return super().call(context, obj, *args, **kwargs)


def money(value: Any, currency: str | None = None) -> str:
    """`1234.5 | money("EUR")` is `EUR 1,234.50`."""
    amount = f"{float(value):,.2f}"
    return f"{currency} {amount}" if currency else amount


def when(value: Any) -> str:
    """An ISO 8601 text as `Saturday 20 June 2026, 19:30`, in the offset that it carries."""
    return f"{day(value)}, {datetime.fromisoformat(str(value)):%H:%M}"


def day(value: Any) -> str:
    """An ISO 8601 text as `Saturday 20 June 2026`."""
    moment = datetime.fromisoformat(str(value))
    return f"{moment:%A} {moment.day} {moment:%B %Y}"


def _environment(*, autoescape: bool) -> MailEnvironment:
    environment = MailEnvironment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {"money": money, "when": when, "day": day}
    return environment


HTML = _environment(autoescape=True)
TEXT = _environment(autoescape=False)
GLOBALS: dict[str, Any] = dict(HTML.globals)
_clock = RenderClock()


@lru_cache(maxsize=512)
def compile_template(source: TemplateSource) -> MailTemplate:
    """Compile the three parts. Raises TemplateError naming template, part and line."""
    return MailTemplate(
        source,
        _compile(TEXT, source.subject, f"{source.label} (subject)"),
        _compile(HTML, source.html, f"{source.label} (html)"),
        None if source.text is None else _compile(TEXT, source.text, f"{source.label} (text)"),
    )


def _compile(environment: MailEnvironment, source: str, label: str) -> jinja2.Template:
    try:
        code = environment.compile(source, name=label, filename=label)
        return environment.template_class.from_code(environment, code, dict(environment.globals))
    except jinja2.TemplateSyntaxError as error:
        where = error.name or label
        raise TemplateError(f"template {where}, line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateError(f"template {label}: nested too deeply") from None


def render_batch(
    jobs: Sequence[tuple[Job, MailTemplate]], brand: Brand, unsubscribe_urls: Mapping[str, str]
) -> list[Content | TemplateError]:
    """Content for each job, or why there is none. `unsubscribe_urls` holds, by job id, those that have one."""
    with limits():
        return [_render_or_error(job, template, brand, unsubscribe_urls.get(job.id)) for job, template in jobs]


def limits() -> AbstractContextManager[None]:
    """Hold the limits of `worker.limits` while something is rendered."""
    return render_limits(_clock)


def _render_or_error(
    job: Job, template: MailTemplate, brand: Brand, unsubscribe_url: str | None
) -> Content | TemplateError:
    try:
        variables = GLOBALS | _decode_object(job.data) if job.data else dict(GLOBALS)
        variables["recipient"] = {"email": job.recipient_email, "name": job.recipient_name}
        variables["brand"] = brand
        variables["unsubscribe_url"] = unsubscribe_url
        variables["locale"] = template.source.locale
        return render(template, variables, job.subject, job.content)
    except TemplateError as error:
        return error


def render(
    template: MailTemplate, variables: dict[str, Any], subject: str | None = None, html: str | None = None
) -> Content:
    """The three parts of one mail; a given subject or HTML stands instead of the template's. Raises TemplateError.

    `variables` begin with GLOBALS: they are the whole of what the template sees.
    """
    if subject is None:
        subject = " ".join(_render_part(template.subject, variables).split())
    if html is not None:
        return Content(subject, html, text_from_html(html))
    rendered = _render_part(template.html, variables)
    if template.text is None:
        return Content(subject, rendered, text_from_html(rendered))
    return Content(subject, rendered, _render_part(template.text, variables))


def _render_part(template: jinja2.Template, variables: dict[str, Any]) -> str:
    _clock.start()
    try:
        # Shared: the variables are the context; copying them three times a mail would cost more than it guards.
        parts = list(template.root_render_func(template.new_context(variables, shared=True)))
        if sum(map(len, parts)) > PART_CHARACTERS:
            raise TemplateError(f"template {template.name}: its output exceeds {PART_CHARACTERS:,} characters")
        return "".join(parts)
    except TemplateError:
        raise
    except RenderTooLong:
        raise TemplateError(f"template {template.name}: rendering takes longer than {RENDER_SECONDS:g} s") from None
    except MemoryError:
        limit = RENDER_MEMORY_BYTES // 1024 // 1024
        raise TemplateError(f"template {template.name}: rendering needs more than {limit} MB of memory") from None
    except Exception as error:  # noqa: BLE001  A template can raise anything at all.
        raise TemplateError(_explain(template, error)) from None
    finally:
        _clock.stop()


def _explain(template: jinja2.Template, error: Exception) -> str:
    """Template, line and variable, without the values: they are somebody's data."""
    where = f"template {template.name}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename == template.filename or frame.filename.startswith(str(TEMPLATE_FOLDER)):
            name = frame.filename.removeprefix(f"{TEMPLATE_FOLDER}/")
            where = f"template {name}" if name == template.name else f"template {template.name} by way of {name}"
            where += f", line {_template_line(template, frame)}"
            break
    if isinstance(error, jinja2.TemplateError):
        return f"{where}: {error.message}"
    return f"{where}: {type(error).__name__} in an expression"


def _template_line(template: jinja2.Template, frame: traceback.FrameSummary) -> int:
    """The line in the source of a line in the compiled code."""
    compiled = frame.lineno or 0
    if frame.filename == template.filename:
        return template.get_corresponding_lineno(compiled)
    name = frame.filename.removeprefix(f"{TEMPLATE_FOLDER}/")
    return HTML.get_template(name).get_corresponding_lineno(compiled)


def text_from_html(html: str) -> str:
    """A readable text part for HTML that comes without one."""
    from inscriptis import get_text
    from inscriptis.css_profiles import STRICT_CSS_PROFILE
    from inscriptis.model.config import ParserConfig

    text: str = get_text(html, ParserConfig(css=STRICT_CSS_PROFILE, display_links=True))
    return text.strip()
