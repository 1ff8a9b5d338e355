"""Why a template failed, in words for its author: template, line and variable, never a value of somebody's data."""

import re
from types import CodeType, TracebackType

import jinja2
from jinja2.exceptions import SecurityError

from worker.sandbox import HTML, TEMPLATE_FOLDER

_QUOTED = re.compile(r"'([^']*)'")
# What Jinja says of types: "'dict object' has no attribute …", "… of 'str' object is unsafe".
_TYPE_WORDS = re.compile(r"[\w.]+ object|str|dict|list|int|float|bool|tuple|function|method|Brand|None")


def explain(template: jinja2.Template, error: Exception) -> str:
    """One line about an exception that a render raised."""
    where = f"template {template.name}"
    found = _innermost(template, error.__traceback__)
    words = f"{type(error).__name__} in an expression"
    if found is not None:
        code, name, line = found
        where = f"template {name}" if name == template.name else f"template {template.name} by way of {name}"
        where += f", line {line}"
        if isinstance(error, jinja2.UndefinedError | SecurityError) and _is_the_templates_own(error.message, code):
            words = str(error.message)
    return f"{where}: {words}"


def _innermost(template: jinja2.Template, trace: TracebackType | None) -> tuple[CodeType, str, int] | None:
    """The deepest frame of a template's code: its code, the template's name, and the line in the source."""
    found = None
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == template.filename:
            found = (code, str(template.name), template.get_corresponding_lineno(trace.tb_lineno))
        elif code.co_filename.startswith(f"{TEMPLATE_FOLDER}/"):
            name = code.co_filename.removeprefix(f"{TEMPLATE_FOLDER}/")
            found = (code, name, HTML.get_template(name).get_corresponding_lineno(trace.tb_lineno))
        trace = trace.tb_next
    return found


def _is_the_templates_own(message: str | None, code: CodeType) -> bool:
    """Whether every name in a message stands in the template itself; others come out of the data."""
    return all(
        name in code.co_consts or _TYPE_WORDS.fullmatch(name) is not None for name in _QUOTED.findall(message or "")
    )
