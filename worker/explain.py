"""Why a template failed, in words for its author: template, line and variable, never a value of somebody's data."""

import re
from collections.abc import Iterator, Sequence
from types import CodeType, TracebackType

import jinja2
from jinja2.exceptions import SecurityError

from worker.sandbox import HTML, TEMPLATE_FOLDER

_MESSAGE = re.compile(
    r"'[^']*' is undefined|'[^']*' has no attribute '[^']*'|access to attribute '[^']*' of '[^']*' object is unsafe\."
)
_QUOTED = re.compile(r"'([^']*)'")
# What Jinja says of types: "'dict object' has no attribute …", "… of 'str' object is unsafe".
_TYPE_WORDS = re.compile(r"[\w.]+ object|str|dict|list|int|float|bool|tuple|function|method|Brand|None")


def explain(template: jinja2.Template, error: Exception) -> str:
    """One line about an exception that a render raised."""
    where = f"template {template.name}"
    frames = list(_frames(template, error.__traceback__))
    words = f"{type(error).__name__} in an expression"
    if frames:
        _, name, line = frames[-1]
        where = f"template {name}" if name == template.name else f"template {template.name} by way of {name}"
        where += f", line {line}"
        codes = [code for code, _, _ in frames]
        if isinstance(error, jinja2.UndefinedError | SecurityError) and _is_the_templates_own(error.message, codes):
            words = str(error.message)
    return f"{where}: {words}"


def _frames(template: jinja2.Template, trace: TracebackType | None) -> Iterator[tuple[CodeType, str, int]]:
    """The frames of templates' code, outermost first: code, the template's name, and the line in the source."""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == template.filename:
            yield code, str(template.name), template.get_corresponding_lineno(trace.tb_lineno)
        elif code.co_filename.startswith(f"{TEMPLATE_FOLDER}/"):
            name = code.co_filename.removeprefix(f"{TEMPLATE_FOLDER}/")
            yield code, name, HTML.get_template(name).get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next


def _is_the_templates_own(message: str | None, codes: Sequence[CodeType]) -> bool:
    """Whether a message is of a known form, and every name in it stands in a template itself; others are data."""
    known = _MESSAGE.fullmatch(message or "")
    return known is not None and all(
        any(name in code.co_consts for code in codes) or _TYPE_WORDS.fullmatch(name) is not None
        for name in _QUOTED.findall(known.string)
    )
