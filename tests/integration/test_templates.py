"""Which template a mail is made of, as a running worker chooses it."""

import pytest

from tests.integration.command import Command
from tests.integration.office import Office, part
from tests.support import eventually


def store(
    office: Office, name: str, subject: str, *, locale: str = "default", version: int = 1, active: bool = True
) -> None:
    """Put a template row; its HTML repeats the subject."""
    office.db.execute(
        "INSERT INTO email_templates (name, locale, version, subject, html_content, is_active)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (name, locale, version, subject, f"<p>{subject}</p>", active),
    )


def eventually_subject(office: Office, wanted: str, **columns: object) -> None:
    """Send one mail after the other until one has the subject."""
    numbers = iter(range(10_000))
    eventually(
        lambda: office.deliver(f"{wanted}-{next(numbers)}", **columns)["Subject"] == wanted,
        f"the running worker sends the subject {wanted!r}",
    )


def test_rows_win_over_files_in_a_running_worker(office: Office) -> None:
    """The shipped files are used until a row of that name is there, and again when it is gone."""
    issue = {"type": "newsletter", "template": "newsletter", "data": '{"title": "The files", "articles": []}'}
    assert office.deliver("files-first", **issue)["Subject"] == "The files"
    store(office, "newsletter", "The row")
    eventually_subject(office, "The row", **issue)
    office.db.execute("DELETE FROM email_templates WHERE name = 'newsletter'")
    eventually_subject(office, "The files", **issue)


def test_a_job_enqueued_after_a_change_gets_the_changed_template(office: Office) -> None:
    """ "At once" is meant: whoever corrects a template and then enqueues never gets the old wording."""
    store(office, "corrected", "wording 0")
    assert office.deliver("wording 0", template="corrected")["Subject"] == "wording 0"
    outdated = []
    for number in range(1, 41):
        wording = f"wording {number}"
        with office.db.transaction():
            office.db.execute("UPDATE email_templates SET subject = %s WHERE name = 'corrected'", (wording,))
            office.enqueue(wording, template="corrected")
        if office.delivered(wording)["Subject"] != wording:
            outdated.append(number)
    assert outdated == []


def test_the_highest_active_version_is_used(office: Office) -> None:
    """Newer versions replace older ones, unless they are inactive."""
    store(office, "versions", "first", version=1)
    store(office, "versions", "second", version=2)
    store(office, "versions", "a draft", version=10, active=False)
    mail = office.deliver("highest", template="versions")
    assert mail["Subject"] == "second"
    assert part(mail, "html").strip() == "<p>second</p>"
    assert part(mail, "plain").strip() == "second"


def test_a_job_may_pin_a_version(office: Office) -> None:
    """template_version names one version, inactive ones included; one that does not exist is an error in words."""
    store(office, "pinned", "first", version=1)
    store(office, "pinned", "second", version=2)
    store(office, "pinned", "a draft", version=3, active=False)
    assert office.deliver("pin-1", template="pinned", template_version=1)["Subject"] == "first"
    assert office.deliver("pin-3", template="pinned", template_version=3)["Subject"] == "a draft"
    assert office.refuse("pin-9", template="pinned", template_version=9) == (
        'unknown template: no version 9 of "pinned" in email_templates'
    )


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        (None, "default en"),
        ("de", "default en"),
        ("pt", "pt pt"),
        ("pt-PT", "pt pt"),
        ("pt-BR", "pt-BR pt-BR"),
        ("PT_br", "pt-BR pt-BR"),
    ],
)
def test_a_locale_falls_back_to_its_language_and_then_to_the_default(
    office: Office, locale: str | None, expected: str
) -> None:
    """(name, locale), else (name, language), else (name, default); the template is told which it is."""
    if not office.db.execute("SELECT 1 FROM email_templates WHERE name = 'worldly'").fetchone():
        for stored in ("default", "pt", "pt-BR"):
            store(office, "worldly", stored + " {{ locale }}", locale=stored)
    assert office.deliver(f"locale-{locale}", template="worldly", locale=locale)["Subject"] == expected


@pytest.mark.parametrize("stored", ["pt_BR", "PT-br"])
def test_spellings_of_a_locale_are_the_same_locale(office: Office, stored: str) -> None:
    """Both tables allow pt-BR and pt_BR: a row in either spelling serves a job in the other."""
    name = f"spelled-{stored}"
    store(office, name, "the default")
    store(office, name, "o certo", locale=stored)
    assert office.deliver(name, template=name, locale="pt-BR")["Subject"] == "o certo"


def test_the_versions_of_a_locale_are_its_own(office: Office) -> None:
    """A newer default does not replace an older version of the locale that was asked for."""
    store(office, "local", "the default", version=7)
    store(office, "local", "français", locale="fr", version=2)
    assert office.deliver("local-fr", template="local", locale="fr-CA")["Subject"] == "français"


def test_a_synced_template_makes_the_same_mail(office: Office, command: Command) -> None:
    """Rows that were written by sync render as the files that they came from, layout included."""
    data = {"type": "newsletter", "template": "newsletter", "data": '{"title": "T", "articles": []}'}
    from_files = office.deliver("files", **data)
    command("template", "sync", **office.database.environment())
    # A version asked for by number can only come from a row.
    from_rows = office.deliver("rows", template_version=1, **data)
    office_id, rows_id = ({"id": str(m["X-Job-Id"])} for m in (from_files, from_rows))
    assert from_rows["Subject"] == "T"
    for kind in ("html", "plain"):
        assert part(from_rows, kind) == part(from_files, kind).replace(office_id["id"], rows_id["id"])
