"""A bad message never stops the line: jobs that could end a whole batch, and the worker with it.

When such a job does stop the line, the test takes it away again, so that the next one finds a working worker.
"""

from collections.abc import Iterator

import pytest

from tests.integration.office import Office
from tests.integration.rows import column
from tests.support import eventually

POISON = {
    "a number too large": {"data": '{"x": 1e5000}'},
    "loops nested too deeply": {"template": "loops"},
    "an argument given twice": {"template": "argument"},
    "a constant too large": {"template": "constant"},
}
TEMPLATES = {
    "loops": "{% for a in (1,) %}" * 25 + "{% endfor %}" * 25,
    "argument": "{{ range(start=1, start=2) }}",
    "constant": "{{ " + "9" * 5000 + " }}",
    "deep": "{{ x }}",
}
# Postgres takes these; Python's version and its stack decide whether they can be read, and printed.
NESTED = '{"x": ' + "[" * 5_000 + "]" * 5_000 + "}"


@pytest.fixture
def line(office: Office) -> Iterator[Office]:
    """The office, with the broken templates in stock; what a test leaves pending is removed."""
    for name, source in TEMPLATES.items():
        office.db.execute(
            "INSERT INTO email_templates (name, subject, html_content) VALUES (%s, 'Subject', %s)"
            " ON CONFLICT DO NOTHING",
            (name, source),
        )
    yield office
    office.db.execute("DELETE FROM email_jobs WHERE status = 'pending'")


@pytest.mark.parametrize("poison", POISON)
def test_one_job_does_not_stop_the_others(line: Office, poison: str) -> None:
    """The bad job ends as dead with a reason, and the good ones of its batch are sent."""
    with line.db.transaction():
        line.enqueue(f"before {poison}")
        line.enqueue(poison, **POISON[poison])
        line.enqueue(f"after {poison}")
    wanted = ["sent", "dead", "sent"]
    statement = "SELECT status FROM email_jobs WHERE right(job_id, length(%s)) = %s ORDER BY seq"
    eventually(lambda: column(line.db, statement, poison, poison) == wanted, "an end for each job", seconds=10)
    assert line.died(poison)


@pytest.mark.parametrize("nested", ["data", "options"])
def test_a_deeply_nested_job_harms_no_other(line: Office, nested: str) -> None:
    """The job is sent where its depth can be read, and else dead for it; the good ones of its batch are sent."""
    job_id = f"deep {nested}"
    with line.db.transaction():
        line.enqueue(f"before {job_id}")
        line.enqueue(job_id, **({"template": "deep", "data": '{"x": 1}'} | {nested: NESTED}))
        line.enqueue(f"after {job_id}")
    assert [line.end_of(f"before {job_id}"), line.end_of(f"after {job_id}")] == ["sent", "sent"]
    if line.end_of(job_id) != "sent":
        assert line.died(job_id).startswith((f"{nested}: ", "template deep (html)"))
