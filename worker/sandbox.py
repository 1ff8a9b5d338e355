"""Jinja2 as mails use it: sandboxed, strict about what is missing, nothing evaluated before the limits hold.

Owns the two environments (HTML escapes, TEXT does not), the filters, and compiling, with errors that name the line.
"""

from collections.abc import Callable, MutableMapping
from datetime import datetime
from functools import lru_cache
from math import isfinite
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
import markupsafe
import msgspec
from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.environment import TemplateModule
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from worker.errors import TemplateError

try:
    from markupsafe._speedups import _escape_inner as escape_text
except ImportError:
    from markupsafe._native import _escape_inner as escape_text

_WHEEL = Path(__file__).parent / "_templates"
TEMPLATE_FOLDER = _WHEEL if _WHEEL.is_dir() else Path(__file__).parent.parent / "templates"

# The names that every template sees beside the job's data; a key of the same name in the data is hidden.
RESERVED = ("recipient", "brand", "unsubscribe_url", "locale")


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


class PlainGenerator(CodeGenerator):
    """Compiles expressions and evaluates none: `9 ** 9 ** 9` must wait for the render, which has limits."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: Any) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class MailEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, where `x.items` of a dict is its key: data have keys called items, and templates want them."""

    template_class = LeanTemplate
    code_generator_class = PlainGenerator

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
    number = float(value)
    if not isfinite(number):
        raise ValueError("not an amount")
    amount = f"{number:,.2f}"
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
        optimized=False,
    )
    environment.filters |= {"money": money, "when": when, "day": day}
    return environment


HTML = _environment(autoescape=True)
TEXT = _environment(autoescape=False)
GLOBALS: dict[str, Any] = dict(HTML.globals)


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
        raise TemplateError(f"template {error.name or label}, line {error.lineno}: {error.message}") from None
    except Exception as error:  # noqa: BLE001  Python's own compiler has limits, and says so in many ways.
        raise TemplateError(f"template {label}: cannot be compiled ({type(error).__name__})") from None
