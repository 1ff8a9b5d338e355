"""Rendering: three parts of a mail, strict about what is missing, and errors that tell an author all but the data."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.rendering import content, html, outcome, problem, template
from worker.catalog import shipped_names, shipped_source
from worker.errors import TemplateError
from worker.job import Content
from worker.plaintext import LONGEST_TEXT
from worker.sandbox import TEMPLATE_FOLDER, compile_template


@pytest.mark.parametrize(
    "source",
    [
        "{{ nobody }}",
        "{% if nobody %}{% endif %}",
        "{% for n in nobody %}{% endfor %}",
        "{{ nobody.name }}",
        "{{ nobody == 1 }}",
        "{{ 'a' ~ nobody }}",
        "{{ nobody | upper }}",
        "{{ nobody | money }}",
    ],
)
def test_an_undefined_variable_is_named_with_template_and_line(source: str) -> None:
    """Every use but `default` and `is defined` fails, and says where and of which variable."""
    assert problem("<p>\n\n" + source) == "template t (html), line 3: 'nobody' is undefined"


def test_each_part_is_named() -> None:
    """An error tells whether it is in the subject, the HTML or the text."""
    assert str(outcome(template("h", "{{ x }}"))) == "template t (subject), line 1: 'x' is undefined"
    assert str(outcome(template("h", text="\n{{ x }}"))) == "template t (text), line 2: 'x' is undefined"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("{{ order.customer }}", "customer"),
        ("{{ order['customer'] }}", "customer"),
        ("{{ order.lines[0].price }}", "price"),
        ("{{ brand.colour }}", "colour"),
        ("{{ recipient.phone }}", "phone"),
    ],
)
def test_a_missing_key_is_named(source: str, name: str) -> None:
    """Inside of objects, too, the error says what was looked for."""
    assert f"has no attribute '{name}'" in problem(source, {"order": {"lines": [{}]}})


def test_what_may_be_missing_is_allowed() -> None:
    """`default` and `is defined` take what is not there."""
    assert html("{{ a | default('b') }}{{ c is defined }}{% if d is defined and d %}d{% endif %}") == "bFalse"


MISSING = [
    ("{{ ui.prose(nobody) }}", "parts.html.j2"),
    ("{{ ui.facts([['Label', nobody]]) }}", "parts.html.j2"),
    ("{{ ui.price(nobody, 'EUR') }}", "parts.html.j2"),
    ("{{ ui.button('Label', nobody) }}", "parts.html.j2"),
]


@pytest.mark.parametrize(("source", "file"), MISSING)
def test_an_error_in_a_shipped_macro_names_both_files(source: str, file: str) -> None:
    """The error names the author's template and the file by way of which it came."""
    found = problem('{% import "_layout/parts.html.j2" as ui %}\n' + source)
    assert found.startswith(f"template t (html) by way of _layout/{file}, line ")


@pytest.mark.parametrize(("source", "file"), MISSING)
def test_a_variable_that_a_shipped_macro_misses_is_named(source: str, file: str) -> None:
    """Handing an undefined variable to a macro is the commonest mistake: its author must learn its name."""
    found = problem('{% import "_layout/parts.html.j2" as ui %}\n' + source)
    assert file in found
    assert "'nobody' is undefined" in found


@pytest.mark.parametrize("name", shipped_names())
def test_a_missing_required_variable_of_a_shipped_template_is_named(name: str) -> None:
    """Whoever leaves out a required key of a shipped template's data reads in the error which it was."""
    unnamed = {key: str(error) for key, error in _required(name).items() if f"'{key}'" not in str(error)}
    assert unnamed == {}


def test_an_error_in_a_block_of_the_layout_names_the_line_of_the_author() -> None:
    """A block that the layout calls is the author's own code, and so is the line."""
    source = '{% extends "_layout/base.html.j2" %}\n{% block content %}\n{{ nobody }}{% endblock %}'
    assert problem(source) == "template t (html), line 3: 'nobody' is undefined"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("a\n{{ b", 2),
        ("a\n{% if b %}\n", 2),
        ("\n\n{% nope %}", 3),
        ("{{ a | nope }}", 1),
        ("{% for %}", 1),
        ("{{ }}", 1),
        ("\n{% endif %}", 2),
    ],
)
def test_a_syntax_error_names_the_line(source: str, line: int) -> None:
    """A template that is no template is refused with part and line when it is compiled."""
    with pytest.raises(TemplateError, match=rf"^template t \(html\), line {line}: "):
        template(source)


def test_html_is_escaped_and_texts_are_not() -> None:
    """Data are escaped in HTML, even in attributes, and nowhere else; `safe` is the author's word."""
    source = "{{ x }}|{{ x | upper }}|{{ x | safe }}|{{ [x] }}"
    found = content(template(source, "{{ x }}", "{{ x }}"), {"x": "<b a='1'> & \"c\""})
    assert found.subject == found.text == "<b a='1'> & \"c\""
    escaped = "&lt;b a=&#39;1&#39;&gt; &amp; &#34;c&#34;"
    first, upper, safe, listed = found.html.split("|")
    assert (first, safe) == (escaped, "<b a='1'> & \"c\"")
    assert "<" not in upper + listed


@given(value=st.text())
@example("\"'<>&")
def test_no_data_become_markup(value: str) -> None:
    """Whatever text a producer sends, between tags and in attributes it opens no tag and ends no quotation."""
    found = html('<a title="{{ x }}">{{ x }}</a>', {"x": value})
    inner = found.removeprefix('<a title="').removesuffix("</a>").replace('">', "", 1)
    assert not set(inner) & set("<>\"'")


@pytest.mark.parametrize("name", ["recipient", "brand", "unsubscribe_url", "locale"])
def test_reserved_names_win_over_data(name: str) -> None:
    """A producer cannot change the recipient, brand, link or language that a template sees."""
    shown = html("{{ " + name + " }}", {name: "forged", "other": 1})
    assert "forged" not in shown


def test_a_template_sees_job_and_brand() -> None:
    """Recipient, brand, the opt-out's link and the language are there without any data."""
    source = "{{ recipient.email }} {{ recipient.name }} {{ brand.name }} {{ brand.address }} {{ locale }}"
    found = content(template("h", text=source + " {{ unsubscribe_url }}"), None, "https://u", recipient_name="Ann")
    assert found.text == "ann@example.com Ann Acme mail@example.com en https://u"
    assert html("{{ unsubscribe_url }}") == "None"


@pytest.mark.parametrize("data", [[1], "text", 1, True])
def test_data_that_are_no_object_are_an_error(data: object) -> None:
    """Only an object has variables; anything else is said to be wrong, and none at all is no data."""
    assert str(outcome(template("h"), data)).startswith("data: ")
    assert html("h", None) == html("h", {}) == "h"


SECRETS = {"key": "O'Secret", "hidden": "_O'Secret", "number": 4111111111111111, "ratio": 4111.5, "list": [1]}


@pytest.mark.parametrize(
    "expression",
    [
        "{'a': 1}[key]",
        "{}[number]",
        "{}[ratio]",
        "list[number]",
        "brand[key]",
        "brand | attr(hidden)",
        "list[0][key]",
        "key | money",
        "key | when",
        "key | day",
        "number | day",
        "key + number",
        "key.format(key)[number]",
        "(key ~ '{').format()",
        "range(number)",
    ],
)
def test_errors_never_tell_a_value(expression: str) -> None:
    """Texts with quotation marks and numbers of somebody's data are not in the error, whatever raised it."""
    found = problem("{{ " + expression + " }}", SECRETS)
    assert found.startswith("template t (html), line 1: ")
    assert "Secret" not in found
    assert "4111" not in found


@given(key=st.text().map("§".__add__))
@example("§O'Brien")
@example('§ it\'s "both"')
def test_errors_never_tell_a_key(key: str) -> None:
    """A look-up by any text of the data that finds nothing does not repeat the text."""
    assert "§" not in problem("{{ {}[key] }}", {"key": key})


def test_the_jobs_own_subject_and_content_win() -> None:
    """They stand as they are, unrendered and unescaped, and the text is made from the given HTML."""
    given_html = "<p>{{ nobody }} &amp; <a href='https://example.com/a'>more</a></p>"
    found = content(template("{{ x }}", "{{ x }}", "{{ x }}"), None, subject="{{ y }}  z", content=given_html)
    assert found == Content("{{ y }}  z", given_html, "{{ nobody }} & [more](https://example.com/a)")
    assert content(template("<p>h</p>", "s"), None, content="", subject="") == Content("", "", "")


def test_a_subject_is_one_line() -> None:
    """White space of a subject template, line ends included, is one space; none at the ends."""
    assert content(template("h", "\n  a\n{# #}\t b{{ x }} \n"), {"x": "\r\nBcc: c"}).subject == "a b Bcc: c"


def test_a_text_part_is_made_from_html() -> None:
    """Words, lists and links survive; styles, scripts and titles do not."""
    source = (
        "<html><head><title>T</title><style>p {}</style></head><body><h1>One</h1><p>Two &amp; three</p>"
        "<ul><li>a</li></ul><a href='https://example.com/x'>Go</a><script>no()</script></body></html>"
    )
    text = content(template(source)).text
    for words in ("One", "Two & three", "* a", "Go", "https://example.com/x"):
        assert words in text
    for others in ("no()", "p {}", "<", "&amp;"):
        assert others not in text
    assert text == text.strip()
    assert len(content(template("<p>" + "word " * LONGEST_TEXT + "</p>")).text) == LONGEST_TEXT


GOOD = [
    ("1234.5 | money('EUR')", "EUR 1,234.50"),
    ("1234.5 | money", "1,234.50"),
    ("'7' | money('USD')", "USD 7.00"),
    ("0 | money", "0.00"),
    ("-3.999 | money('EUR')", "EUR -4.00"),
    ("1 | money('')", "1.00"),
    ("'2026-06-20T19:30:00+02:00' | when", "Saturday 20 June 2026, 19:30"),
    ("'2026-06-02T00:05:00Z' | when", "Tuesday 2 June 2026, 00:05"),
    ("'2026-06-20' | when", "Saturday 20 June 2026, 00:00"),
    ("'2026-06-20T19:30:00+02:00' | day", "Saturday 20 June 2026"),
    ("'2024-02-29' | day", "Thursday 29 February 2024"),
]
BAD = [
    *(f"{value} | money" for value in ("'seven'", "''", "none", "[1]", "{}", "'1,5'", "'nan'", "'inf'")),
    *(f"{value} | {name}" for name in ("when", "day") for value in ("'tomorrow'", "''", "none", "1.5", "'2026-13-01'")),
]


@pytest.mark.parametrize(("expression", "expected"), GOOD)
def test_filters_write_what_people_read(expression: str, expected: str) -> None:
    """Amounts have two places and thousands; times keep the offset that they carry."""
    assert html("{{ " + expression + " }}") == expected


@pytest.mark.parametrize("expression", BAD)
def test_filters_refuse_what_is_no_amount_or_time(expression: str) -> None:
    """Wrong data end in an error: "EUR nan" must not reach a customer."""
    assert problem("\n{{ " + expression + " }}").startswith("template t (html), line 2: ")


def _sample(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((TEMPLATE_FOLDER / name / "sample.json").read_text("utf-8"))["data"]
    return data


def _required(name: str) -> dict[str, TemplateError]:
    """The keys of a sample that its template cannot do without, with what it says of their absence."""
    of, data = compile_template(shipped_source(name)), _sample(name)
    found = {key: outcome(of, {other: data[other] for other in data if other != key}) for key in data}
    return {key: error for key, error in found.items() if isinstance(error, TemplateError)}


@pytest.mark.parametrize("name", shipped_names())
def test_a_shipped_template_renders_its_sample_and_with_the_required_data(name: str) -> None:
    """Optional keys may all be missing at once, and either way the three parts are whole and without leftovers."""
    data = _sample(name)
    least = {key: data[key] for key in _required(name)}
    for given_data in (data, least):
        found = content(compile_template(shipped_source(name)), given_data, "https://example.com/out")
        assert found.subject
        assert found.html.count("<html") == found.html.count("</html>") == 1
        assert "https://example.com/out" in found.html
        assert "https://example.com/out" in found.text
        for part in (found.subject, found.html, found.text):
            assert not [word for word in ("{{", "{%", "None", "Undefined") if word in part]
