"""One bad row never stops the line: whatever a job or a template holds, rendering answers for each job, and ends.

An exception out of `render_batch` or `compile_template` ends the whole batch; its rows are claimed again at once, by
this worker or the next, and nothing behind them is ever sent.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import msgspec
import pytest
from psycopg import AsyncConnection

from lab.unlimited import free_way
from tests.unit.bounded import run_bounded
from tests.unit.test_catalog import Tables
from tests.unit.test_catalog_errors import EmptyDatabase
from tests.unit.values import make_job
from worker.audience import Audience
from worker.catalog import Catalog
from worker.compose import Sender
from worker.errors import TemplateError
from worker.job import Content, Job
from worker.prepare import prepare
from worker.render import Brand, render_batch
from worker.sandbox import TemplateSource, compile_template

TEMPLATE = compile_template(TemplateSource("t", "en", "Subject", "<p>{{ name }}</p>", None))
GOOD = make_job(seq=2, data='{"name": "Ann"}')
BRAND = Brand("Acme", "mail@example.com")

# How deep the JSON decoder goes is Python's to say: 3.11 gives up at 1,000 levels, 3.13 at 10,000, and since 3.14 the
# stack decides. Postgres's own limit is its stack too: about 16,000 levels of jsonb with the usual 2 MB.
DEEP = (900, 1_100, 9_000, 16_000)
TOO_DEEP = 1_000_000


def lists(levels: int) -> str:
    """JSON of lists in lists."""
    return "[" * levels + "]" * levels


def objects(levels: int) -> str:
    """JSON of objects in objects."""
    return '{"a":' * levels + "1" + "}" * levels


def render_beside_a_good_one(job: Job) -> Content | TemplateError:
    """What a batch of this job and a good one makes of it, once the good one has come out well."""
    bad, good = render_batch([(job, TEMPLATE), (GOOD, TEMPLATE)], BRAND, {})
    assert good == Content("Subject", "<p>Ann</p>", "Ann")
    return bad


@pytest.mark.parametrize(
    "value",
    ["1" + "0" * 5000, "-1" + "0" * 5000, "1" * 400 + ".5", lists(TOO_DEEP), objects(TOO_DEEP)],
    ids=["5001 digits", "minus 5001 digits", "400 digits and a half", "a million lists", "a million objects"],
)
def test_data_that_cannot_be_read_ends_that_job_alone(value: str) -> None:
    """jsonb holds numbers and depths that a JSON decoder refuses: the job gets an error, its neighbour its content."""
    found = render_beside_a_good_one(make_job(data=f'{{"name": {value}}}'))
    assert isinstance(found, TemplateError)
    assert str(found).startswith("data: ")


@pytest.mark.parametrize("levels", DEEP)
@pytest.mark.parametrize("nested", [lists, objects])
def test_deep_data_ends_that_job_alone_or_is_rendered(nested: Callable[[int], str], levels: int) -> None:
    """What can be read may still be too deep to be printed: then, too, it is that job's error and no other's."""
    found = render_beside_a_good_one(make_job(data=f'{{"name": {nested(levels)}}}'))
    assert isinstance(found, Content) or str(found).startswith(("data: ", "template t (html)"))


@pytest.mark.parametrize(
    "html",
    [
        "<?xml version='1.0' encoding='utf-16'?>" * 2,
        "<table><tr><td>" + "a" * 100_000 + "</td></tr>" + "<tr><td>b</td></tr>" * 5_000 + "</table>",
        "<div>" * 10_000 + "x",
        "",
        "<!-- nothing -->",
        "\x00",
    ],
    ids=["two XML declarations", "table of 500 MB as text", "deep", "empty", "comment", "NUL"],
)
def test_html_that_gives_no_text_ends_that_job_alone(html: str) -> None:
    """A job's own HTML may break the conversion to text: the job gets an error or content, its neighbour stays well."""
    found = render_beside_a_good_one(make_job(content=html, data='{"name": "Ann"}'))
    assert isinstance(found, TemplateError) or found.html == html


def test_making_text_of_html_has_the_time_limit_of_rendering() -> None:
    """900 KB of table cells take a quarter of a minute to convert: they are given up like any render that long."""
    code = """
from tests.unit.test_poison import render_beside_a_good_one
from tests.unit.values import make_job
from worker import limits
limits.RENDER_SECONDS = 0.5
html = "<table>" + ("<tr>" + "<td>a" * 300 + "</tr>") * 600 + "</table>"
print(render_beside_a_good_one(make_job(content=html, data='{"name": "Ann"}')))
"""
    assert "takes longer than" in run_bounded(code)


@pytest.mark.parametrize(
    "html",
    [
        "{% for a in b %}" * 25 + "{% endfor %}" * 25,
        "{% if a %}" * 120 + "{% endif %}" * 120,
        "{{ " + "1" * 5000 + " }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ a" + ".b" * 5000 + " }}",
        "{% block a %}" * 200 + "{% endblock %}" * 200,
    ],
    ids=["25 loops deep", "120 conditions deep", "5000 digits", "5000 brackets", "5000 attributes", "200 blocks"],
)
def test_a_template_that_does_not_compile_is_a_template_error(html: str) -> None:
    """Whatever Jinja or Python cannot compile is an error that names template and part, and nothing else is raised."""
    with pytest.raises(TemplateError, match=r"t \(html\)"):
        compile_template(TemplateSource("t", "en", "Subject", html, None))


def test_constants_are_computed_within_the_limits() -> None:
    """Jinja computes constants while it compiles: there, too, time and memory have their limits."""
    code = """
import pathlib, re
from worker import limits
from tests.unit.test_poison import BRAND, GOOD, TemplateError, TemplateSource, compile_template, render_batch
limits.RENDER_SECONDS = 0.5
for expression in (
    "9 ** (9 ** 9)", "'x' * 200000000", "'x' | center(200000000)", "'%200000000d' | format(1)"
):
    try:
        template = compile_template(TemplateSource("t", "en", "Subject", "{{ " + expression + " }}", None))
        print(str(render_batch([(GOOD, template)], BRAND, {})[0])[:200])
    except TemplateError as error:
        print(error)
# Not ru_maxrss: that of a child begins with what its parent had.
print(int(re.search(r"VmHWM:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024)
"""
    *errors, megabytes = run_bounded(code).splitlines()
    assert len(errors) == 4
    assert all(error.startswith("template t (html)") for error in errors), errors
    assert int(megabytes) < 600


@pytest.mark.parametrize(
    "expression",
    [
        "{'a': 1}[name]", "name[name]", "[1] | map(name) | list", "name | attr(name)", "name.name.name",
        "name | int + name",
    ],
)  # fmt: skip
def test_errors_never_tell_the_data(expression: str) -> None:
    """An error names template, line and what the template says, never a value: values are somebody's data."""
    template = compile_template(TemplateSource("t", "en", "Subject", f"{{{{ {expression} }}}}", None))
    [error] = render_batch([(make_job(data='{"name": "Ann Secret"}'), template)], BRAND, {})
    assert isinstance(error, TemplateError)
    assert "line 1" in str(error)
    assert "Secret" not in str(error)


def test_errors_never_tell_the_data_of_an_include() -> None:
    """The name of a file to include may be a value too."""
    template = compile_template(TemplateSource("t", "en", "Subject", "{% include name %}", None))
    [error] = render_batch([(make_job(data='{"name": "Ann Secret"}'), template)], BRAND, {})
    assert isinstance(error, TemplateError)
    assert "Secret" not in str(error)


def test_a_render_without_memory_does_not_take_its_neighbours_along() -> None:
    """What a failed render held is free again for the next: good mails beside greedy ones come out well."""
    grow = "{% for i in range(90000) %}{% set ns.s = [ns.s, 'x' * n * 900] %}{% endfor %}"
    greedy = compile_template(TemplateSource("greedy", "en", "s", "{% set ns = namespace(s=[]) %}" + grow, "t"))
    modest = compile_template(
        TemplateSource("modest", "en", "s", "{% for i in range(2000) %}{{ i }} {{ n }}{% endfor %}", "t")
    )
    jobs = [(make_job(seq=n, data='{"n": 9}'), modest if n % 5 else greedy) for n in range(10)]
    found = render_batch(jobs, BRAND, {})
    assert all("MB of memory" in str(found[n]) for n in (0, 5)), (found[0], found[5])
    assert [str(found[n]) for n in range(10) if n % 5 and isinstance(found[n], TemplateError)] == []


async def prepare_beside_a_good_one(options: str) -> str | None:
    """Why a job with these options is unsendable, once the good one of its batch has become a mail."""
    job, good = (make_job(seq=n, template="welcome-email", data='{"username": "ann"}') for n in (1, 2))
    jobs = [msgspec.structs.replace(job, options=options), good]
    catalog, database = Catalog(), cast(AsyncConnection[Any], EmptyDatabase())
    sender = Sender("a@example.com")
    prepared = await prepare(database, jobs, catalog, sender, Audience(), free_way(), nullcontext(), 60.0)
    assert prepared.mails[-1].job.seq == good.seq
    assert len(prepared.mails) + len(prepared.unsendable) == 2
    return prepared.unsendable[0].error if prepared.unsendable else None


async def test_options_that_cannot_be_read_end_that_job_alone() -> None:
    """Nested deeper than any decoder goes: the job is unsendable with a reason, and nothing is raised."""
    error = await prepare_beside_a_good_one(f'{{"ignored": {lists(TOO_DEEP)}}}')
    assert error is not None
    assert error.startswith("options: ")


@pytest.mark.parametrize("levels", DEEP)
async def test_deep_options_end_that_job_alone_or_are_read(levels: int) -> None:
    """Under a key that is ignored, some depths are no harm even to the job itself."""
    error = await prepare_beside_a_good_one(f'{{"ignored": {lists(levels)}}}')
    assert error is None or error.startswith("options: ")


async def test_a_job_that_cannot_be_rendered_keeps_its_types_retries() -> None:
    """A dead worker's doubt about it is judged by them, not by EMAIL_MAX_RETRIES."""
    nameless, unreadable = (make_job(seq=n, template=f"nope-{n}", type="newsletter") for n in (1, 2))
    jobs = [nameless, msgspec.structs.replace(unreadable, options='{"cc": 1}')]
    database = cast(AsyncConnection[Any], Tables())
    sender = Sender("a@example.com")
    prepared = await prepare(database, jobs, Catalog(), sender, Audience(), free_way(), nullcontext(), 60.0)
    assert [item.job.max_retries for item in prepared.unsendable] == [5, 5]
