"""The sandbox: no template reaches Python, the disk, its neighbours, or more time and memory than it is given."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.rendering import content, html, outcome, problem, template
from worker import limits
from worker.catalog import shipped_source
from worker.errors import TemplateError
from worker.sandbox import GLOBALS, TEMPLATE_FOLDER, MailTemplate, compile_template

DATA = {"name": "Ann", "articles": [1, 2], "word": "__class__", "thing": {"a": 1}}


@pytest.mark.parametrize(
    "attack",
    [
        "name.__class__",
        "name['__class__']",
        "name | attr('__class__')",
        "name | attr('__cl' ~ 'ass__')",
        "name | attr(word)",
        "name[word]",
        "().__class__.__mro__",
        "(1).__class__.__base__.__subclasses__()",
        "dict.__mro__",
        "dict.mro()",
        "cycler.__init__.__globals__",
        "joiner.__init__.__globals__",
        "namespace.__init__.__globals__",
        "lipsum.__globals__['os']",
        "cycler('a').__class__",
        "range.__globals__",
        "brand.__class__",
        "brand.__struct_fields__",
        "recipient.__init__",
        "self.__init__.__globals__",
        "self._TemplateReference__context",
        "articles.append(3)",
        "articles.clear()",
        "thing.update(a=2)",
        "thing.pop('a')",
        "thing.setdefault('b', 1)",
        "recipient.update(email='eve@example.com')",
        "'{0.__class__}'.format(name)",
        "'{0[__class__]}'.format(name)",
        "'{x.__class__}'.format(x=name)",
        "'{x.__class__}'.format_map({'x': name})",
        "('{0.__class__}' | escape).format(name)",
        "('{0.__class__}' | safe).format(name)",
        "name.format.__self__",
        "name.format.__func__",
        "'%s' | format(name.__class__)",
        "config",
        "environment",
        "context",
        "request.application",
        "__import__('os')",
        "open('/etc/passwd')",
        "eval('1')",
        "range(100001) | list",
    ],
)
def test_no_expression_reaches_python(attack: str) -> None:
    """Attributes with underscores, changing methods, format strings and unknown names end in an error with its line."""
    assert problem("\n{{ " + attack + " }}", DATA).startswith("template t (html), line 2: ")


@pytest.mark.parametrize(
    "expression",
    [
        "[name] | map(attribute='__class__') | list",
        "[name] | groupby('__class__')",
        "thing | items | list",
        "name.upper",
    ],
)
def test_what_renders_shows_no_class(expression: str) -> None:
    """Filters that take an attribute's name get nothing that begins with underscores."""
    found = outcome(template("{{ " + expression + " }}"), DATA)
    assert "<class" not in str(getattr(found, "text", found))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../pyproject.toml", "_layout/../../pyproject.toml", "_layout/nope", "", "\\x00", "~/.env"]
)
@pytest.mark.parametrize("statement", ["include", "import", "extends", "from"])
def test_only_shipped_files_can_be_included(statement: str, name: str) -> None:
    """Whatever names a file outside of templates/ finds nothing."""
    tail = {"import": " as x", "from": " import x"}.get(statement, "")
    assert "TemplateNotFound" in problem(f'{{% {statement} "{name}"{tail} %}}')


@pytest.mark.parametrize(
    "attack",
    [
        "{% set ui.c = 1 %}",
        "{{ ui.c.update(accent='red') }}",
        "{{ ui.c.clear() }}",
        "{% set c = ui.c %}{% set c.accent = 'red' %}",
        "{% set range = 1 %}{% set brand = 2 %}{% set recipient = 3 %}",
        "{% macro p() %}mine{% endmacro %}",
    ],
)
def test_no_template_changes_what_others_use(attack: str) -> None:
    """Layouts are compiled once for all mails: an author's changes to them, or to the globals, end with the mail."""
    newsletter = compile_template(shipped_source("newsletter"))
    data = {"title": "T", "articles": []}
    before, globals_before = content(newsletter, data), dict(GLOBALS)
    outcome(template('{% import "_layout/parts.html.j2" as ui %}' + attack), DATA)
    assert content(newsletter, data) == before
    assert globals_before == GLOBALS


def test_a_variable_set_in_one_part_is_not_in_the_next() -> None:
    """The three parts share the data, not what a template makes of them."""
    found = outcome(template("{{ mine }}", subject="{% set mine = 1 %}{{ mine }}"))
    assert str(found) == "template t (html), line 1: 'mine' is undefined"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ order.items }}", "[1]"),
        ("{{ order.keys }} {{ order.values }}", "k v"),
        ("{{ order.get }} {{ order.update }}", "g u"),
        ("{% for item in order.items %}{{ item }}{% endfor %}", "1"),
        ("{{ order.copy().keys }}", "k"),
        ("{% for key, value in plain.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
        ("{{ plain.keys() | list }}", "['a']"),
        ("{{ items }}{{ keys }}", "xy"),
    ],
)
def test_keys_of_data_win_over_methods_of_dicts(source: str, expected: str) -> None:
    """Data have keys called items, keys and values; where they have not, the method is still there."""
    order = {"items": [1], "keys": "k", "values": "v", "get": "g", "update": "u"}
    found = content(template("x", text=source), {"order": order, "plain": {"a": 1}, "items": "x", "keys": "y"})
    assert found.text == expected


@pytest.fixture
def short_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clock with less patience."""
    monkeypatch.setattr(limits, "RENDER_SECONDS", 0.1)


ENDLESS = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("subject", "source", "text"), [(ENDLESS, "h", None), ("s", ENDLESS, None), ("s", "h", ENDLESS)]
)
@pytest.mark.usefixtures("short_time")
def test_a_render_has_a_time_limit(subject: str, source: str, text: str | None) -> None:
    """Loops in loops are interrupted in any part, and the next mail of the batch is rendered."""
    assert "rendering takes longer than" in str(outcome(template(source, subject, text)))


@pytest.mark.parametrize(
    "source",
    [
        "{% set ns = namespace(x='xx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{{ 'x' | center(1000000000) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '{:1000000000d}'.format(1) }}",
        "{{ ('a,' * 10000000).split(',') | list * 9 }}",
    ],
)
def test_a_render_has_a_memory_limit(source: str) -> None:
    """Doubling, padding and repeating end in an error, not in the machine's memory."""
    assert problem(source) == "template t (html): rendering needs more than 256 MB of memory"


@pytest.mark.parametrize("source", ["{% for i in range(99999) %}" + "x" * 30 + "{% endfor %}", "{{ 'x' * 2000001 }}"])
def test_a_part_has_an_output_limit(source: str) -> None:
    """Two million characters are enough for a mail; exactly so many are allowed."""
    assert problem(source) == "template t (html): its output exceeds 2,000,000 characters"
    assert len(content(template("h", text="{{ 'x' * 2000000 }}")).text) == 2_000_000


def test_a_macro_that_calls_itself_ends() -> None:
    """Recursion without end is that template's error."""
    assert "RecursionError" in problem("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_keys = st.sampled_from(
    [
        "name",
        "items",
        "self",
        "range",
        "brand",
        "recipient",
        "dict",
        "loop",
        "caller",
        "context",
        "locale",
        "environment",
    ]
)
BUSY = compile_template(shipped_source("booking-confirmation"))
_required = {"bookingId", "eventName", "ticketCount", "totalAmount", "items", "startsAt"}


@given(data=st.dictionaries(st.sampled_from(sorted(_required)) | _keys | st.text(max_size=8), _json, max_size=8))
@settings(max_examples=80)
def test_any_data_give_content_or_a_template_error(data: dict[str, object]) -> None:
    """Whatever JSON a producer sends, nothing but TemplateError comes out, and the neighbour is rendered."""
    outcome(BUSY, data)
    outcome(template("{{ name }}{% for i in items %}{{ i.a.b }}{{ i | money }}{% endfor %}"), data)


_fragments = st.sampled_from(
    [
        "{{", "}}", "{%", "%}", "{#", "#}", "{{ name }}", "{% if name %}", "{% endif %}", "{% else %}", "{% endfor %}",
        "{% for i in items %}", "{{ loop.index }}", "{{ self.title() }}", "{{ super() }}", "{% block title %}",
        "{% endblock %}", '{% extends "_layout/base.html.j2" %}', '{% import "_layout/parts.html.j2" as ui %}',
        "{% call ui.p() %}", "{% endcall %}", "{% macro m(a) %}", "{% endmacro %}", "{{ m(1) }}", "{{ caller() }}",
        "{% set name = 1 %}", "{% set a, b = name %}", "{{ name | money }}", "{{ name | when }}", "{{ name | nope }}",
        "{{ 1 / 0 }}", "{{ ui.facts(items) }}", "{{ ui._row(1, 2) }}", "{% raw %}", "{% endraw %}", "{{ items[0] }}",
        "{{ ui['_row'] }}", "{{ ui | attr('') }}", "{% filter upper %}", "{% endfilter %}", "{% include name %}",
        "{% do 1 %}", "{% break %}", "{{ name is divisibleby 0 }}", "{{ (name, items) | tojson }}", "{{ '\\ud800' }}",
        "{% with a = name %}", "{% endwith %}", "{% autoescape false %}", "{% endautoescape %}", "\x00", "\ud800",
        "{% set ns = namespace(a=1) %}", "{% set ns.a = name %}", "{% set name.a = 1 %}", "{{ None }}", "<p>", "</",
    ]
)  # fmt: skip


@given(source=st.lists(_fragments | st.text(max_size=10), max_size=10).map("".join), name=_json)
@settings(max_examples=250)
@example("{{ name }}", "\ud800")
@example("<p>\ud800", None)
def test_any_template_gives_content_or_a_template_error(source: str, name: object) -> None:
    """Whatever an author writes, compiling raises TemplateError or nothing, and rendering answers."""
    compiled = [attempt(source, source), attempt(source, None)]
    for of in compiled:
        if of is not None:
            outcome(of, {"name": name, "items": [[1, name]]})


def attempt(source: str, text: str | None) -> MailTemplate | None:
    """The template, or None for one that is refused in words of ours."""
    try:
        return template(source, subject=source, text=text)
    except TemplateError:
        return None


def test_every_shipped_file_is_in_the_sandboxes_folder() -> None:
    """The folder that templates may include from is the repository's, and holds samples that are JSON."""
    assert TEMPLATE_FOLDER.samefile(Path(__file__).parent.parent.parent / "templates")
    samples = sorted(TEMPLATE_FOLDER.glob("*/sample.json"))
    assert len(samples) == 15
    assert all(set(json.loads(sample.read_text("utf-8"))) == {"recipient", "data"} for sample in samples)


def test_html_is_escaped_by_the_sandbox_itself() -> None:
    """The replaced escape function is as thorough as markupsafe's for every kind of value."""
    values = ["<b>&\"'", 1, 1.5, True, None, ["<i>"], {"<k>": "'"}]
    found = html("{% for value in values %}{{ value }}|{% endfor %}", {"values": values})
    assert found == (
        "&lt;b&gt;&amp;&#34;&#39;|1|1.5|True|None|[&#39;&lt;i&gt;&#39;]|{&#39;&lt;k&gt;&#39;: &#34;&#39;&#34;}|"
    )
