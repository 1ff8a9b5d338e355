"""email-worker template lint, preview and sync."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from lab.sendgrid_server import SendGridServer
from tests.integration.command import Command
from tests.integration.rows import Connection, column, row, rows
from tests.support import Database
from worker import catalog, pictures, workshop
from worker.catalog import shipped_names, shipped_source


def test_all_shipped_templates_are_sound(command: Command) -> None:
    """Each compiles and renders its own sample."""
    ended = command("template", "lint")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.splitlines() == [f"ok    {name}" for name in shipped_names()]
    assert len(shipped_names()) == 15


def test_lint_looks_at_the_named_ones(command: Command) -> None:
    """Only those; an unknown name is a failure."""
    ended = command("template", "lint", "newsletter", "nope")
    assert ended.status == 1
    assert ended.out.splitlines() == [
        "ok    newsletter",
        'FAIL  nope  no template ships as "nope". preview --stored looks into email_templates',
    ]


BROKEN = {
    "lint-syntax": ("Hello {{ name", "x", "template lint-syntax (subject), line 1:"),
    "lint-missing": ("Hello", "\n\n{{ nobody }}", "template lint-missing (html), line 3: 'nobody' is undefined"),
    "lint-long": ("x" * 121, "x", "the sample's subject has 121 characters, 120 are readable"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_lint_finds_what_is_wrong(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """A broken template fails with its name, part and line."""
    subject, html, problem = BROKEN[name]
    folder = tmp_path / "templates" / name
    folder.mkdir(parents=True)
    (folder / "subject.j2").write_text(subject)
    (folder / "body.html.j2").write_text(html)
    (folder / "sample.json").write_text('{"data": {"name": "Ann"}}')
    for module in (catalog, workshop):
        monkeypatch.setattr(module, "TEMPLATE_FOLDER", tmp_path / "templates")
    ended = command("template", "lint")
    assert ended.status == 1
    assert ended.out.startswith(f"FAIL  {name}  {problem}")


def test_preview_shows_the_three_parts(command: Command, tmp_path: Path) -> None:
    """Subject, text and HTML, of the sample or of data from a file; the brand is the sender's."""
    ended = command("template", "preview", "newsletter", EMAIL_FROM_NAME="Acme Bookings")
    assert ended.status == 0
    assert ended.out.startswith("Subject: What's on in June: open air, late nights and a new hall\n")
    assert "Acme Bookings" in ended.out
    assert "</html>" in ended.out
    (tmp_path / "data.json").write_text(json.dumps({"data": {"title": "Mine", "articles": []}}))
    ended = command("template", "preview", "newsletter", "--data", str(tmp_path / "data.json"))
    assert ended.out.startswith("Subject: Mine\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "must hold an object"),
        (b'{"data": {}}', "template newsletter (subject), line 1: 'title' is undefined"),
        (b'{"data": [1]}', "must hold an object"),
        (b'{"title": "t", "articles": []}', "must hold an object"),
        (b'{"recipient": "ann", "data": {"title": "t", "articles": []}}', "must hold an object"),
    ],
)
def test_preview_of_wrong_data_fails_in_words(
    command: Command, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """Whatever is wrong with the file is one line, and no traceback."""
    file = tmp_path / "data.json"
    if content is not None:
        file.write_bytes(content)
    ended = command("template", "preview", "newsletter", "--data", str(file))
    assert ended.status == 1
    assert ended.err.startswith("email-worker: ")
    assert words in ended.err


def test_preview_of_what_is_stored(command: Command, database: Database, db: Connection, tmp_path: Path) -> None:
    """A template of one's own, by its language; a row wins over the files of its name, whose sample it gets."""
    data = tmp_path / "data.json"
    data.write_text('{"data": {"name": "Ann"}}')
    for name, locale, subject in (("mine", "default", "Hello {{ name }}"), ("mine", "de", "Hallo {{ name }}"),
                                  ("newsletter", "default", "Stored {{ title }}")):  # fmt: skip
        db.execute(
            "INSERT INTO email_templates (name, locale, subject, html_content) VALUES (%s, %s, %s, '<p>x</p>')",
            (name, locale, subject),
        )

    def first_line(*arguments: str) -> str:
        ended = command("template", "preview", *arguments, **database.environment())
        return (ended.out or ended.err).splitlines()[0]

    assert first_line("mine", "--stored", "--data", str(data)) == "Subject: Hello Ann"
    assert first_line("mine", "--stored", "--locale", "de-AT", "--data", str(data)) == "Subject: Hallo Ann"
    assert first_line("newsletter", "--stored").startswith("Subject: Stored ")
    assert "--stored" in first_line("mine")
    assert "unknown template" in first_line("nope", "--stored")
    assert "add --stored" in first_line("newsletter", "--locale", "de")


def test_sync_stores_the_shipped_templates_once(command: Command, database: Database) -> None:
    """Version 1 of each, then nothing, until a row or a file differs."""
    first = command("template", "sync", **database.environment())
    assert (first.status, first.err) == (0, "")
    assert first.out.splitlines() == [f"version 1 {name}" for name in shipped_names()]
    with database.connect() as db:
        stored = rows(
            db, "SELECT name, type, locale, subject, html_content, text_content FROM email_templates ORDER BY 1"
        )
        sources = [(name, shipped_source(name)) for name in shipped_names()]
        assert stored == [(name, name, "default", s.subject, s.html, s.text) for name, s in sources]
        again = command("template", "sync", **database.environment())
        assert again.out.splitlines() == [f"unchanged {name}" for name in shipped_names()]

        db.execute("UPDATE email_templates SET subject = 'by hand' WHERE name = 'newsletter'")
        third = command("template", "sync", **database.environment())
        assert [line for line in third.out.splitlines() if "unchanged" not in line] == ["version 2 newsletter"]
        assert column(db, "SELECT subject FROM email_templates WHERE name = 'newsletter' ORDER BY version") == [
            "by hand",
            shipped_source("newsletter").subject,
        ]


def test_sync_notes_the_variables(command: Command, database: Database) -> None:
    """The names that a template needs from data, without those that every template has."""
    command("template", "sync", **database.environment())
    with database.connect() as db:
        (variables,) = row(db, "SELECT variables FROM email_templates WHERE name = 'newsletter'")
    assert variables == ["articles", "closing", "intro", "title", "webUrl"]


def test_sync_into_an_unmigrated_database_fails_in_words(command: Command, empty_database: Database) -> None:
    """The missing schema is told with the command that makes it."""
    ended = command("template", "sync", **empty_database.environment())
    assert ended.status == 1
    assert "email-worker migrate" in ended.err


async def test_the_dynamic_template_is_made_found_and_mended(command: Command) -> None:
    """One call makes it, the same again finds it unchanged, and what somebody changed at SendGrid is put right."""
    async with SendGridServer("SG.key") as server:

        async def sync(number: str = "") -> str:
            ended = await asyncio.to_thread(
                command,
                "template",
                "sync",
                "--sendgrid",
                SENDGRID_API_HOST=server.url,
                SENDGRID_API_KEY="SG.key",
                SENDGRID_TEMPLATE_ID=number,
            )
            assert (ended.status, ended.err) == (0, "")
            return ended.out

        created, _, number = (await sync()).strip().partition("   SENDGRID_TEMPLATE_ID=")
        assert created == "created"
        (template,) = server.templates.by_id.values()
        assert template["generation"] == "dynamic"
        assert (await sync(number)).startswith("unchanged ")
        template["versions"][0]["plain_content"] = "View this mail in a browser"
        assert (await sync(number)).startswith("mended ")
        old, new = template["versions"]
        assert (old["active"], new["active"]) == (0, 1)
        parts = ("subject", "html_content", "plain_content", "generate_plain_content")
        assert tuple(new[part] for part in parts) == ("{{{subject}}}", "{{{html}}}", "{{{text}}}", False)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"SENDGRID_API_KEY": ""}, "SENDGRID_API_KEY is not set: it must hold a key with the right to write templates"),
        ({"SENDGRID_API_KEY": "SG.wrong"}, "401 The provided authorization grant is invalid"),
        ({"SENDGRID_TEMPLATE_ID": "d-nope"}, "SendGrid refuses to GET /d-nope: 404 template not found"),
        ({"SENDGRID_TEMPLATE_ID": "old"}, "SENDGRID_TEMPLATE_ID='old' is no dynamic template; leave it empty"),
        ({"SENDGRID_API_HOST": "http://127.0.0.1:1"}, "no connection to 127.0.0.1:1"),
    ],
)
async def test_a_template_that_cannot_be_made_is_told_why(
    command: Command, settings: dict[str, str], words: str
) -> None:
    """In a line, without the key."""
    async with SendGridServer("SG.key") as server:
        server.templates.by_id["old"] = {"id": "old", "generation": "legacy", "versions": []}
        given = {"SENDGRID_API_HOST": server.url, "SENDGRID_API_KEY": "SG.key"} | settings
        ended = await asyncio.to_thread(command, "template", "sync", "--sendgrid", **given)
    assert ended.status != 0
    assert words in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert "SG." not in ended.err


def test_pictures_show_the_mail_in_four_ways(command: Command, tmp_path: Path) -> None:
    """PNG files of the asked widths; the dark one differs from the light one where the mail has dark colours."""
    if not any(map(shutil.which, pictures.PROGRAMS)):
        pytest.skip("no Chromium is installed")
    ended = command("template", "preview", "newsletter", "--png", str(tmp_path / "seen"))
    assert ended.status == 0, ended
    files = sorted((tmp_path / "seen").iterdir())
    names = [f"newsletter-{size}-{scheme}.png" for size in ("desktop", "phone") for scheme in ("dark", "light")]
    assert [file.name for file in files] == names
    for file in files:
        head = file.read_bytes()[:24]
        assert head.startswith(b"\x89PNG")
        assert int.from_bytes(head[16:20], "big") == (800 if "desktop" in file.name else 390)
    assert files[0].read_bytes() != files[1].read_bytes()


def test_without_a_browser_it_says_so(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line, and what to install."""
    monkeypatch.setattr(pictures, "PROGRAMS", ("no-such-browser",))
    ended = command("template", "preview", "newsletter", "--png", str(tmp_path))
    assert (ended.status, "no Chromium is installed (no-such-browser): --png needs one" in ended.err) == (1, True)
