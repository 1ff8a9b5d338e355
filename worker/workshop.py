"""Templates on the workbench: lint, preview, sync. For people at a command line, never used by a running worker."""

import json
import tempfile
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from jinja2 import meta, nodes
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from worker.catalog import SHIPPED_LOCALE, shipped_names, shipped_source, template_now
from worker.db import connection_parameters, query, unreachable
from worker.errors import TemplateError
from worker.job import Content
from worker.render import Brand, limits, render
from worker.sandbox import (
    GLOBALS,
    HTML,
    RESERVED,
    TEMPLATE_FOLDER,
    TEXT,
    MailTemplate,
    TemplateSource,
    compile_template,
)
from worker.settings import Settings

SUBJECT_LENGTH = 120


def names() -> list[str]:
    """The shipped templates."""
    return shipped_names()


def lint(name: str, settings: Settings) -> str | None:
    """What is wrong with a template, or None: it must compile, and render its own sample data."""
    try:
        content = preview(name, settings)
    except TemplateError as error:
        return str(error)
    if len(content.subject) > SUBJECT_LENGTH:
        return f"the sample's subject has {len(content.subject)} characters, {SUBJECT_LENGTH} are readable"
    return None


def preview(name: str, settings: Settings, data: Path | None = None) -> Content:
    """A shipped template rendered with its sample, or with the data of a file. Raises TemplateError."""
    if name not in shipped_names():
        raise TemplateError(f'no template ships as "{name}". preview --stored looks into email_templates')
    template = compile_template(shipped_source(name))
    return _rendered(template, _sample(data or TEMPLATE_FOLDER / name / "sample.json"), SHIPPED_LOCALE, settings)


async def preview_stored(name: str, locale: str | None, settings: Settings, data: Path | None = None) -> Content:
    """What a worker would choose, rows of email_templates first. Raises TemplateError, DatabaseUnreachable."""
    shipped_sample = TEMPLATE_FOLDER / name / "sample.json"
    file = data or (shipped_sample if shipped_sample.is_file() else None)
    parameters = connection_parameters(settings, "email-worker template", planned=True)
    try:
        async with await AsyncConnection.connect(**parameters, autocommit=True) as connection:
            template = await template_now(connection, name, locale)
    except psycopg.OperationalError as error:
        raise unreachable(settings, error) from None
    return _rendered(template, _sample(file) if file else {}, locale or SHIPPED_LOCALE, settings)


def _rendered(template: MailTemplate, sample: dict[str, Any], locale: str, settings: Settings) -> Content:
    variables: dict[str, Any] = {
        **GLOBALS,
        **sample.get("data", {}),
        "recipient": {"name": None, "email": "ann@example.com"} | sample.get("recipient", {}),
        "brand": Brand(settings.email_from_name or settings.email_from_address, settings.email_from_address),
        "unsubscribe_url": settings.email_unsubscribe_url or None,
        "locale": locale,
    }
    with limits():
        return render(template, variables)


def _sample(file: Path) -> dict[str, Any]:
    try:
        sample: Any = json.loads(file.read_text())
    except OSError as error:
        raise TemplateError(f"cannot read {file}: {error.strerror}") from None
    except ValueError as error:
        raise TemplateError(f"{file} is not JSON: {error}") from None
    parts = (sample.get("data", {}), sample.get("recipient", {})) if isinstance(sample, dict) else (None,)
    # Variables at the top level would be missed one by one.
    is_sample = isinstance(sample, dict) and sample.keys() <= {"data", "recipient"}
    if not is_sample or not all(isinstance(part, dict) for part in parts):
        raise TemplateError(f'{file} must hold an object such as {{"recipient": {{…}}, "data": {{…}}}}')
    return dict(sample)


def show(name: str, content: Content) -> Path:
    """Write the HTML into a file and open the browser on it."""
    file = Path(tempfile.mkdtemp(prefix="email-preview-")) / f"{name}.html"
    file.write_text(content.html)
    webbrowser.open(file.as_uri())
    return file


def sync(connection: psycopg.Connection[Any]) -> Iterator[tuple[str, str]]:
    """Store each shipped template that differs from the newest row as a new version; yields (name, what was done)."""
    for name in shipped_names():
        source = shipped_source(name)
        compile_template(source)
        row = connection.execute(query("newest_template"), {"name": name}).fetchone()
        version = 0 if row is None else row[0]
        if row is not None and row[1:] == (source.subject, source.html, source.text):
            yield name, "unchanged"
            continue
        connection.execute(
            query("store_template"),
            {
                "name": name,
                "version": version + 1,
                "subject": source.subject,
                "html": source.html,
                "text": source.text,
                "variables": Jsonb(variables_of(source)),
            },
        )
        yield name, f"version {version + 1}"


def variables_of(source: TemplateSource) -> list[str]:
    """The names of the data that a template mentions, optional ones included."""
    found: set[str] = set()
    for environment, text in ((TEXT, source.subject), (HTML, source.html), (TEXT, source.text or "")):
        tree = environment.parse(text)
        # A block of a template that extends another sees its imports, which Jinja does not count as declared.
        found |= meta.find_undeclared_variables(tree) - {node.target for node in tree.find_all(nodes.Import)}
    return sorted(found - set(RESERVED))
