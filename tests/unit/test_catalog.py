"""Which template a job gets: locale before language before default, rows before files, versions as asked for."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from tests.unit.values import make_job
from worker import catalog as catalog_module
from worker.catalog import (
    DEFAULT_LOCALE,
    MAX_KEPT,
    NO_POLICY,
    SHIPPED_LOCALE,
    Catalog,
    Edition,
    TypePolicy,
    locale_chain,
    shipped_names,
    shipped_source,
)
from worker.db import query
from worker.errors import TemplateError
from worker.job import Job

Row = tuple[str, str, int, str, str, str | None, bool]


def row(name: str, locale: str = DEFAULT_LOCALE, version: int = 1, *, active: bool = True) -> Row:
    """A row of email_templates whose subject tells which one it is."""
    return (name, locale, version, f"{locale} {version}", "<p>html</p>", None, active)


class Tables:
    """A connection to rows of email_templates and email_types, as far as the catalog looks."""

    def __init__(self, *rows: Row) -> None:
        self.rows = list(rows)
        self.routes: list[tuple[str | None, str | None, list[str]]] = []
        self.asked: list[list[str]] = []
        self._answer: list[Any] = []

    async def execute(self, statement: bytes, parameters: dict[str, Any] | None = None) -> "Tables":
        """The statements of the catalog."""
        if statement == query("load_types"):
            self._answer = [("newsletter", "marketing", True, 5)]
            return self
        if statement == query("load_routes"):
            self._answer = self.routes
            return self
        if statement in (query("load_ceilings"), query("load_pauses")):
            self._answer = []
            return self
        assert parameters is not None
        self.asked.append(parameters["names"])
        self._answer = [
            found
            for found in sorted(self.rows, key=lambda found: -found[2])
            if found[0] in parameters["names"] and (found[6] or found[2] in parameters["versions"])
        ]
        return self

    async def fetchall(self) -> list[Any]:
        """The rows of the last one."""
        return self._answer


async def prepare(catalog: Catalog, tables: Tables, *jobs: Job) -> Edition:
    """The catalog's edition for these jobs."""
    return await catalog.edition(cast(AsyncConnection[Any], tables), jobs)


async def chosen(tables: Tables, **job: Any) -> str:
    """The subject of the template that a new catalog chooses, or its error."""
    catalog, wanted = Catalog(), make_job(**job)
    edition = await prepare(catalog, tables, wanted)
    try:
        return edition.template(wanted).source.subject
    except TemplateError as error:
        return str(error)


@pytest.mark.parametrize(
    ("locale", "chain"),
    [
        (None, ["default"]),
        ("", ["default"]),
        ("pt", ["pt", "default"]),
        ("pt-BR", ["pt-br", "pt", "default"]),
        ("pt_BR", ["pt-br", "pt", "default"]),
        ("PT_br", ["pt-br", "pt", "default"]),
        ("zh-Hant-TW", ["zh-hant-tw", "zh", "default"]),
        ("default", ["default", "default"]),
    ],
)
def test_a_locale_has_a_chain(locale: str | None, chain: list[str]) -> None:
    """The locale itself, its language, the default; either spelling of the separator and any case."""
    assert locale_chain(locale) == chain


@given(st.text(max_size=12))
def test_any_locale_ends_in_the_default(locale: str) -> None:
    """Whatever a producer writes, the chain is at most three long and ends in the default."""
    chain = locale_chain(locale)
    assert chain[-1] == DEFAULT_LOCALE
    assert len(chain) <= 3
    assert chain == locale_chain(locale.replace("-", "_"))


@pytest.mark.parametrize("asked", ["pt-BR", "pt_BR", "PT-br", "pt_br"])
@pytest.mark.parametrize("stored", ["pt-BR", "pt_BR", "PT-br", "pt_br"])
async def test_spellings_of_a_locale_meet(asked: str, stored: str) -> None:
    """A row in one spelling serves a job in any other, and is labelled as it is stored."""
    tables = Tables(row("x"), row("x", "pt", 7), row("x", stored, 3))
    assert await chosen(tables, template="x", locale=asked) == f"{stored} 3"


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("pt-BR", "pt 2"),
        ("pt", "pt 2"),
        ("de-AT", "default 1"),
        (None, "default 1"),
        ("p", "default 1"),
        ("en", "default 1"),
    ],
)
async def test_what_is_missing_falls_back(locale: str | None, expected: str) -> None:
    """No row of the locale: the language's; none of the language: the default one; a region of another is no match."""
    tables = Tables(row("x"), row("x", "pt", 2), row("x", "pt-PT", 9), row("y", "de"))
    assert await chosen(tables, template="x", locale=locale) == expected


async def test_the_newest_active_version_is_chosen() -> None:
    """Inactive ones are for those who ask by number."""
    tables = Tables(row("x", version=1), row("x", version=2), row("x", version=3, active=False))
    assert await chosen(tables, template="x") == "default 2"
    assert await chosen(tables, template="x", template_version=1) == "default 1"
    assert await chosen(tables, template="x", template_version=3) == "default 3"
    assert "no version 4" in await chosen(tables, template="x", template_version=4)


async def test_a_job_with_a_version_does_not_change_its_neighbours_choice() -> None:
    """Asking for an inactive version by number loads it for that job only."""
    tables, catalog = Tables(row("x", version=1), row("x", version=2, active=False)), Catalog()
    pinned, plain = make_job(template="x", template_version=2), make_job(template="x")
    edition = await prepare(catalog, tables, pinned, plain)
    assert edition.template(pinned).source.subject == "default 2"
    assert edition.template(plain).source.subject == "default 1"


async def test_rows_win_over_files() -> None:
    """A shipped template is used while no active row has its name; a pinned version never comes from a file."""
    assert await chosen(Tables(), template="newsletter") == shipped_source("newsletter").subject
    assert await chosen(Tables(row("newsletter")), template="newsletter") == "default 1"
    inactive = Tables(row("newsletter", active=False))
    assert await chosen(inactive, template="newsletter") == shipped_source("newsletter").subject
    assert "no version 1" in await chosen(Tables(), template="newsletter", template_version=1)


UNKNOWN = ["nope", "_layout", "Newsletter", "newsletter-", "sample", "x" * 100]


@pytest.mark.parametrize("name", UNKNOWN)
async def test_an_unknown_name_is_an_error_in_words(name: str) -> None:
    """No other name that email_jobs takes finds a file: not the layout, not another case."""
    assert (await chosen(Tables(), template=name)).startswith("unknown template")


async def test_a_broken_row_is_an_answer() -> None:
    """Its jobs get the error, each time and without a new look, and jobs of other templates are none the worse."""
    tables, catalog = Tables(("x", "default", 1, "s", "{{", None, True), row("y")), Catalog()
    broken, good = make_job(template="x"), make_job(template="y")
    await prepare(catalog, tables, broken, good)
    edition = await prepare(catalog, tables, broken, good)
    assert tables.asked == [["x", "y"]]
    with pytest.raises(TemplateError, match=r"^template x version 1 \(html\), line 1"):
        edition.template(broken)
    assert edition.template(good).source.label == "y version 1"


async def test_templates_are_read_once_and_again_with_a_newer_version() -> None:
    """Known ones cost no look; a job claimed with a newer version of the catalog gets everything read anew."""
    tables, catalog = Tables(row("x", version=1)), Catalog()
    job = make_job(template="x", type="newsletter", catalog_version=1)
    for _ in range(3):
        old = await prepare(catalog, tables, job)
    assert tables.asked == [["x"]]
    tables.rows.append(row("x", version=2))
    new = await prepare(catalog, tables, make_job(template="x", type="newsletter", catalog_version=2))
    assert new.template(job).source.subject == "default 2"
    assert old.template(job).source.subject == "default 1", "a batch keeps the edition that it began with"
    assert new.policy(job) == TypePolicy("marketing", True, 5)
    assert new.policy(make_job(type="gone")) == NO_POLICY


async def test_a_flood_of_names_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a limit everything is forgotten, and what is needed is read again."""
    assert MAX_KEPT == 2000
    monkeypatch.setattr(catalog_module, "MAX_KEPT", 10)
    tables, catalog = Tables(), Catalog()
    for number in range(11):
        await prepare(catalog, tables, make_job(template=f"nope-{number}"))
    job = make_job(template="nope-0")
    edition = await prepare(catalog, tables, job)
    assert [names for names in tables.asked if names == ["nope-0"]] == [["nope-0"]] * 2
    with pytest.raises(TemplateError):
        edition.template(job)


def test_shipped_templates_have_their_three_files() -> None:
    """Each shipped name has subject, HTML and text in the shipped language."""
    sources = [shipped_source(name) for name in shipped_names()]
    assert len(sources) == 15
    assert all(source.subject and source.html and source.text for source in sources)
    assert {source.locale for source in sources} == {SHIPPED_LOCALE}


@pytest.mark.parametrize(
    ("kind", "address", "providers"),
    [
        ("newsletter", "ann@example.com", ("ses", "smtp")),
        ("newsletter", "ann@EXAMPLE.com", ("ses", "smtp")),
        ("newsletter", "ann@example.org", ("sendgrid",)),
        ("welcome-email", "ann@example.com", ("smtp",)),
        ("welcome-email", "ann@münchen.example", ("smtp_fallback",)),
        ("welcome-email", "ann@example.org", ()),
        ("welcome-email", "ann@-.-", ()),
    ],
)
async def test_the_closest_route_wins(kind: str, address: str, providers: tuple[str, ...]) -> None:
    """Type and domain, then the domain, then the type; a domain is compared in its ASCII form."""
    tables = Tables(row("x"))
    tables.routes = [
        ("newsletter", "example.com", ["ses", "smtp"]),
        ("newsletter", None, ["sendgrid"]),
        (None, "example.com", ["smtp"]),
        (None, "xn--mnchen-3ya.example", ["smtp_fallback"]),
    ]
    job = make_job(template="x", type=kind, recipient_email=address)
    edition = await prepare(Catalog(), tables, job)
    assert edition.route(job) == providers
