"""Who may not be written to: the list and its one form of addresses, and what a running worker makes of it."""

import encodings.punycode as oracle
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.command import Command, Ended
from tests.integration.office import Office
from tests.integration.rows import Connection, insert_job, rows, value
from tests.support import Database

Desk = Callable[..., Ended]

# The types' policies matter here, not their templates.
MARKETING: dict[str, object] = {"type": "newsletter"}
RESET: dict[str, object] = {"type": "password-reset"}


@pytest.fixture
def desk(database: Database, command: Command) -> Desk:
    """`email-worker suppressions`, on a database of its own."""
    environment = database.environment()
    return lambda *arguments: command("suppressions", *arguments, **environment)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_punycode_is_that_of_the_standard_library(shared_db: Connection, label: str) -> None:
    """RFC 3492 for any text, plain or not."""
    expected = label if label.isascii() or len(label) > 63 else "xn--" + oracle.punycode_encode(label).decode("ascii")
    assert value(shared_db, "SELECT email_punycode(%s)", label) == expected


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("Ann@Example.COM", "ann@example.com"),
        ("ann@münchen.example", "ann@xn--mnchen-3ya.example"),
        ("ann@mu\u0308nchen.example", "ann@xn--mnchen-3ya.example"),
        ("ann@日本。example", "ann@xn--wgv71a.example"),
        ("ann@x\u00ad\u200b\ufe0f.de", "ann@x.de"),
        ("jürgen@example.com", "jürgen@example.com"),
        ("ju\u0308rgen@example.com", "jürgen@example.com"),
        ("ann@xn--mnchen-3ya.example", "ann@xn--mnchen-3ya.example"),
    ],
)
def test_an_address_has_one_form(shared_db: Connection, written: str, form: str) -> None:
    """Large and small letters, composed and decomposed ones, Unicode and ASCII domains meet."""
    assert value(shared_db, "SELECT email_normal_address(%s)", written) == form


def suppress(office: Office, address: str, reason: str, scope: str = "all", expires_at: str | None = None) -> None:
    """An entry, committed."""
    office.db.execute("SELECT email_suppress(%s, %s, %s, 'test', %s)", (address, reason, scope, expires_at))


@pytest.mark.parametrize(
    ("reason", "scope", "kind", "status"),
    [
        ("hard_bounce", "all", RESET, "suppressed"),
        ("complaint", "all", MARKETING, "suppressed"),
        ("manual", "account", RESET, "suppressed"),
        ("manual", "account", MARKETING, "sent"),
        ("unsubscribe", "all", MARKETING, "suppressed"),
        ("unsubscribe", "marketing", MARKETING, "suppressed"),
        ("unsubscribe", "all", RESET, "sent"),
        ("unsubscribe", "account", RESET, "sent"),
        ("unsubscribe", "booking", MARKETING, "sent"),
    ],
)
def test_what_an_entry_stops(office: Office, reason: str, scope: str, kind: dict[str, object], status: str) -> None:
    """An entry stops what its scope covers; an unsubscribe only what can be opted out of, never a password reset."""
    name = f"{reason}-{scope}-{kind['type']}"
    suppress(office, f"{name}@example.com", reason, scope)
    office.enqueue(name, recipient_email=f"{name}@Example.com", **kind)
    assert office.end_of(name) == status
    if status == "suppressed":
        assert value(office.db, "SELECT error_message FROM email_jobs WHERE job_id = %s", name) == f"{reason} ({scope})"
        events = "SELECT event_type::text FROM email_tracking AS t JOIN email_jobs AS j ON j.id = t.job_id"
        assert rows(office.db, events + " WHERE j.job_id = %s", name) == [("suppressed",)]
        journal = "SELECT a.state::text, a.provider FROM email_attempts AS a JOIN email_jobs USING (seq)"
        assert rows(office.db, journal + " WHERE job_id = %s", name) == [("not_sent", None)]


def test_an_entry_that_has_expired_stops_nothing(office: Office) -> None:
    """A soft entry ends by itself."""
    suppress(office, "over@example.com", "manual", expires_at="2020-01-01Z")
    office.enqueue("over", recipient_email="over@example.com")
    assert office.end_of("over") == "sent"


def test_foreign_domains_are_found_in_either_form(office: Office) -> None:
    """A bounce tells the ASCII form, a producer writes the other one."""
    suppress(office, "ann@xn--mnchen-3ya.example", "hard_bounce")
    office.enqueue("foreign", recipient_email="Ann@münchen.example")
    assert office.end_of("foreign") == "suppressed"


def test_a_suppressed_job_can_be_requeued_once_the_entry_is_gone(office: Office) -> None:
    """The status is an end like the others, and the books balance."""
    suppress(office, "back@example.com", "manual")
    office.enqueue("back", recipient_email="back@example.com")
    assert office.end_of("back") == "suppressed"
    assert value(office.db, "SELECT email_unsuppress('BACK@example.com')") == 1
    office.db.execute("SELECT email_requeue('back')")
    assert office.end_of("back") == "sent"
    assert rows(office.db, "SELECT * FROM email_books_difference()") == []


def test_a_weaker_word_makes_no_entry_weaker(db: Connection) -> None:
    """Reasons stand side by side; for good stays for good; what has expired counts for nothing."""
    assert value(db, "SELECT email_suppress('a@b.c', 'hard_bounce')") is True
    assert value(db, "SELECT email_suppress('A@B.c', 'unsubscribe', expires_at => '2090-01-01Z')") is True
    assert value(db, "SELECT email_suppress('A@B.c', 'hard_bounce', expires_at => '2090-01-01Z')") is False
    found = "SELECT reason::text, expires_at IS NULL FROM email_suppressions ORDER BY reason"
    assert rows(db, found) == [("hard_bounce", True), ("unsubscribe", False)]
    db.execute("UPDATE email_suppressions SET expires_at = '2020-01-01Z'")
    assert value(db, "SELECT email_suppress('a@b.c', 'hard_bounce', expires_at => '2080-01-01Z')") is False
    last = "SELECT expires_at = '2080-01-01Z' FROM email_suppressions WHERE reason = 'hard_bounce'"
    assert value(db, last) is True


def test_a_bare_insert_is_brought_into_form(db: Connection) -> None:
    """People write to the table too."""
    db.execute("INSERT INTO email_suppressions (address, reason) VALUES (' Ann@EXAMPLE.com ', 'manual')")
    assert value(db, "SELECT address FROM email_suppressions") == "ann@example.com"


def test_nothing_that_is_claimed_after_an_opt_out_leaves(office: Office) -> None:
    """Opt-out and job in one transaction: the worker sees both or neither."""
    for number in range(50):
        address = f"race{number}@example.com"
        with office.db.transaction():
            suppress(office, address, "manual")
            insert_job(office.db, f"race-{number}", recipient_email=address)
    assert {office.end_of(f"race-{number}") for number in range(50)} == {"suppressed"}


def test_the_commands(desk: Desk, db: Connection) -> None:
    """Add, list and remove, in words; a second remove is a mistake."""
    assert desk("add", "Ann@Example.com", "--reason", "complaint").out == "Ann@Example.com: suppressed (all)\n"
    again = desk("add", "ann@example.com", "--reason", "complaint", "--expires-at", "2030-01-01T00:00:00Z")
    assert again.out == "ann@example.com: was suppressed already; entry renewed (all)\n"
    table = desk("list").out.splitlines()
    assert table[0].split() == ["address", "scope", "reason", "source", "created_at", "expires_at"]
    assert table[1].split()[:3] == ["ann@example.com", "all", "complaint"]
    assert json.loads(desk("list", "ANN@example.com", "--json").out)["reason"] == "complaint"
    assert desk("list", "bob@example.com").out == "bob@example.com is not suppressed\n"
    assert desk("remove", "ann@EXAMPLE.com").out == "ann@EXAMPLE.com: 1 entry removed\n"
    gone = desk("remove", "ann@example.com")
    assert (gone.status, gone.err) == (1, "email-worker: ann@example.com is not suppressed\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "nobody"), "'nobody' is not an address like ann@example.com"),
        (("add", "a@b.c", "--expires-at", "tomorrow"), "expires_at 'tomorrow' must be like"),
        (("add", "a@b.c", "--expires-at", "2030-01-01"), "with its zone"),
        (("import", "missing.csv"), "cannot read missing.csv: No such file or directory"),
    ],
)
def test_mistakes_are_one_line(desk: Desk, arguments: tuple[str, ...], words: str) -> None:
    """What was wrong, and how it should be."""
    ended = desk(*arguments)
    assert ended.status == 1
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


def test_an_import_takes_plain_lists_and_csv(desk: Desk, db: Connection, tmp_path: Path) -> None:
    """One address a line, or a header that names the columns; the same address twice is one entry."""
    (tmp_path / "plain.txt").write_text("a@b.c\n\n  B@b.c\nb@b.c\n", encoding="utf-8-sig")
    assert desk("import", "plain.txt", "--reason", "unsubscribe").out == "2 new, 0 known already\n"
    (tmp_path / "full.csv").write_text(
        "address,reason,scope,source\na@b.c,hard_bounce,,ses\nc@b.c,complaint,marketing,\n"
    )
    assert desk("import", "full.csv", "--source", "export").out == "2 new, 0 known already\n"
    assert rows(db, "SELECT address, reason::text, scope, source FROM email_suppressions ORDER BY address, reason") == [
        ("a@b.c", "hard_bounce", "all", "ses"),
        ("a@b.c", "unsubscribe", "all", None),
        ("b@b.c", "unsubscribe", "all", None),
        ("c@b.c", "complaint", "marketing", "export"),
    ]


def test_an_import_with_wrong_lines_changes_nothing(desk: Desk, db: Connection, tmp_path: Path) -> None:
    """Every wrong line is named, and the good ones wait for the mended file."""
    (tmp_path / "bad.csv").write_text("address,scope\na@b.c,all\nnobody,all\nc@b.c,some\n")
    ended = desk("import", "bad.csv")
    assert ended.status == 1
    assert ended.err.splitlines()[0].startswith("email-worker: line 3: 'nobody' is not an address")
    assert ended.err.splitlines()[1].startswith("line 4: scope 'some' must be all or booking or")
    assert value(db, "SELECT count(*) FROM email_suppressions") == 0
    (tmp_path / "headless.csv").write_text("a@b.c,unsubscribe,marketing\n")
    assert "line 1: 3 fields where there are 1 columns: is a header missing?" in desk("import", "headless.csv").err
    (tmp_path / "latin.txt").write_bytes(b"j\xfcrgen@b.c\n")
    assert "not UTF-8" in desk("import", "latin.txt").err
