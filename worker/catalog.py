"""Which template and which policy a job gets: rows of email_templates over shipped files, and email_types.

Read when first needed, kept in the process, and read again when a claim shows a newer version. The highest active
version of (name, locale) wins, then (name, language), then (name, default), then the shipped files of that name. A
broken template is an answer too: it is kept, and its jobs are dead. Routes, ceilings and pauses come with the types.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from typing import Any

import msgspec
from psycopg import AsyncConnection

from worker.db import query
from worker.errors import TemplateError
from worker.headers import domain_of
from worker.job import Job
from worker.pauses import Pauses, pauses_of
from worker.sandbox import TEMPLATE_FOLDER, MailTemplate, TemplateSource, compile_template

DEFAULT_LOCALE = "default"
# The language that the shipped files are written in.
SHIPPED_LOCALE = "en"
# Names of templates are producers' input: a flood of unknown ones must not fill the memory.
MAX_KEPT = 2000

TemplateKey = tuple[str, str | None, int | None]


class TypePolicy(msgspec.Struct, frozen=True):
    """What the worker needs of a row of email_types."""

    category: str
    opt_out: bool
    max_retries: int | None


# (type or None, domain or None) -> providers, as in email_routes
Routes = dict[tuple[str | None, str | None], tuple[str, ...]]

# (provider, domain or *, day) -> mails, as in email_warmup
Ceilings = dict[tuple[str, str, date], int]


NO_POLICY = TypePolicy("", False, None)


class TemplateRow(msgspec.Struct, frozen=True):
    """A row of `load_templates.sql`."""

    name: str
    locale: str
    version: int
    subject: str
    html_content: str
    text_content: str | None
    is_active: bool


class Edition:
    """The catalog in one version: only ever added to, so that a batch can hold on to it."""

    def __init__(
        self, version: int, types: dict[str, TypePolicy], routes: Routes, ceilings: Ceilings, pauses: Pauses
    ) -> None:
        self.version = version
        self.ceilings = ceilings
        self.pauses = pauses
        self._routes = routes
        self.templates: dict[TemplateKey, MailTemplate | TemplateError] = {}
        self._types = types

    def template(self, job: Job) -> MailTemplate:
        """The template of a prepared job. Raises TemplateError when there is none, or it is broken."""
        found = self.templates[template_key(job)]
        if isinstance(found, TemplateError):
            # A fresh one: an exception that is raised again and again collects the frames of all its batches.
            raise TemplateError(str(found))
        return found

    def policy(self, job: Job) -> TypePolicy:
        """The policy of a job's type; that of nobody when the type was deleted meanwhile."""
        return self._types.get(job.type, NO_POLICY)

    def route(self, job: Job) -> tuple[str, ...]:
        """The providers that email_routes names for a job, in turn; nothing where it names none."""
        if not self._routes:
            return ()
        domain = domain_of(job.recipient_email)
        keys = ((job.type, domain), (None, domain), (job.type, None))
        return next((self._routes[key] for key in keys if key in self._routes), ())


class Catalog:
    """Templates and types as this process knows them. Shared by all batches."""

    def __init__(self) -> None:
        self._edition: Edition | None = None

    @property
    def pauses(self) -> Pauses:
        """What is not sent now, as far as the last claim told."""
        return self._edition.pauses if self._edition is not None else Pauses()

    async def look_for_news(self, connection: AsyncConnection[Any]) -> None:
        """Read what has changed, although no claim has shown it."""
        cursor = await connection.execute(query("catalog_version"))
        row = await cursor.fetchone()
        if row is not None and (self._edition is None or self._edition.version < row[0]):
            self._edition = Edition(row[0], *await _load_types(connection))

    async def edition(self, connection: AsyncConnection[Any], jobs: Sequence[Job]) -> Edition:
        """The edition that was true when these jobs were claimed, with all that they need of it."""
        version = max(job.catalog_version for job in jobs)
        edition = self._edition
        if edition is None or edition.version < version or len(edition.templates) > MAX_KEPT:
            edition = self._edition = Edition(version, *await _load_types(connection))
        missing = {key for job in jobs if (key := template_key(job)) not in edition.templates}
        if missing:
            rows = await _load_templates(connection, missing)
            edition.templates |= {key: _choose(key, rows) for key in missing}
        return edition


async def template_now(connection: AsyncConnection[Any], name: str, locale: str | None) -> MailTemplate:
    """The template that a worker would give a job now. Raises TemplateError."""
    key = (name, locale, None)
    found = _choose(key, await _load_templates(connection, {key}))
    if isinstance(found, TemplateError):
        raise found
    return found


def template_key(job: Job) -> TemplateKey:
    """What a job asks for: name, locale, version."""
    return (job.template, job.locale, job.template_version)


async def _load_types(connection: AsyncConnection[Any]) -> tuple[dict[str, TypePolicy], Routes, Ceilings, Pauses]:
    cursor = await connection.execute(query("load_types"))
    types = {name: TypePolicy(*rest) for name, *rest in await cursor.fetchall()}
    cursor = await connection.execute(query("load_routes"))
    routes = {(kind, domain): tuple(providers) for kind, domain, providers in await cursor.fetchall()}
    cursor = await connection.execute(query("load_ceilings"))
    ceilings = {(provider, domain, day): most for provider, domain, day, most in await cursor.fetchall()}
    cursor = await connection.execute(query("load_pauses"))
    return types, routes, ceilings, pauses_of(await cursor.fetchall())


async def _load_templates(connection: AsyncConnection[Any], keys: Iterable[TemplateKey]) -> list[TemplateRow]:
    names = sorted({name for name, _, _ in keys})
    versions = sorted({version for _, _, version in keys if version is not None})
    cursor = await connection.execute(query("load_templates"), {"names": names, "versions": versions})
    return [TemplateRow(*row) for row in await cursor.fetchall()]


def _choose(key: TemplateKey, rows: Iterable[TemplateRow]) -> MailTemplate | TemplateError:
    name, locale, version = key
    try:
        for wanted in locale_chain(locale):
            for row in rows:
                right_version = row.is_active if version is None else row.version == version
                if row.name == name and _tag(row.locale) == wanted and right_version:
                    return compile_template(_from_row(row))
        if version is not None:
            raise TemplateError(f'unknown template: no version {version} of "{name}" in email_templates')
        return compile_template(shipped_source(name))
    except TemplateError as error:
        return error


def locale_chain(locale: str | None) -> list[str]:
    """`pt-BR` tries pt-br, then pt, then default."""
    chain = [DEFAULT_LOCALE]
    if locale:
        chain[:0] = dict.fromkeys([_tag(locale), _tag(locale).partition("-")[0]])
    return chain


def _tag(locale: str) -> str:
    return locale.lower().replace("_", "-")


def _from_row(row: TemplateRow) -> TemplateSource:
    label = f"{row.name} version {row.version}" + ("" if row.locale == DEFAULT_LOCALE else f" {row.locale}")
    locale = SHIPPED_LOCALE if row.locale == DEFAULT_LOCALE else row.locale
    return TemplateSource(label, locale, row.subject, row.html_content, row.text_content)


@cache
def shipped_source(name: str) -> TemplateSource:
    """The files `templates/{name}/`. Raises TemplateError when there are none."""
    folder = TEMPLATE_FOLDER / name
    subject, html, text = folder / "subject.j2", folder / "body.html.j2", folder / "body.txt.j2"
    if name.startswith("_") or not (subject.is_file() and html.is_file()):
        raise TemplateError(f'unknown template "{name}": no active row in email_templates and no shipped files')
    return TemplateSource(
        name, SHIPPED_LOCALE, subject.read_text(), html.read_text(), text.read_text() if text.is_file() else None
    )


def shipped_names() -> list[str]:
    """The templates that ship as files."""
    return sorted(folder.name for folder in TEMPLATE_FOLDER.iterdir() if not folder.name.startswith("_"))
