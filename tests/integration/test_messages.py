"""What a mail consists of when it arrives: options, overrides, parts, headers."""

import base64
import json
import os
from email.message import EmailMessage
from pathlib import Path

from tests.integration.office import Office, part
from tests.integration.rows import events, job, value

TEMPLATES = Path(__file__).parent.parent.parent / "templates"


def options(**given: object) -> str:
    """email_jobs.options as JSON; `from_address` is called `from` there."""
    return json.dumps({name.replace("from_address", "from"): what for name, what in given.items()})


def files(mail: EmailMessage) -> dict[str | None, bytes]:
    """The attachments, by name."""
    found = {}
    for attachment in mail.iter_attachments():
        content = attachment.get_payload(decode=True)
        assert isinstance(content, bytes)
        found[attachment.get_filename()] = content
    return found


def test_every_type_is_delivered_with_its_shipped_template(office: Office) -> None:
    """All 15 types have a template, and their own sample becomes a mail of two parts."""
    types = [name for (name,) in office.db.execute("SELECT type FROM email_types").fetchall()]
    assert len(types) == 15
    for name in types:
        sample = json.loads((TEMPLATES / name / "sample.json").read_text())
        office.enqueue(f"sample-{name}", type=name, template=name, data=json.dumps(sample["data"]))
    for name in types:
        mail = office.delivered(f"sample-{name}")
        assert mail["Subject"]
        assert "</html>" in part(mail, "html")
        assert "Acme Bookings" in part(mail, "plain")


def test_the_columns_of_a_job_stand_instead_of_the_template(office: Office) -> None:
    """`subject` and `content` are sent as they are; braces in them are only braces."""
    mail = office.deliver("override", subject="Übrigens {{ 1 }}", content="<p>As it is: <b>{{ 2 }}</b></p>")
    assert mail["Subject"] == "Übrigens {{ 1 }}"
    assert part(mail, "html").strip() == "<p>As it is: <b>{{ 2 }}</b></p>"
    assert part(mail, "plain").strip() == "As it is: {{ 2 }}"

    only_subject = office.deliver("override-subject", subject="Mine")
    assert only_subject["Subject"] == "Mine"
    assert "Concert" in part(only_subject, "html")


def test_a_mail_carries_the_identity_of_its_job(office: Office) -> None:
    """Message-ID and X-Job-Id come from email_jobs.id, and the row keeps the Message-ID and the provider."""
    mail = office.deliver("identity", recipient_name="Ann Ünal")
    job_id, message_id, provider, sent_at, processed_at = job(
        office.db, ["id", "message_id", "provider", "sent_at", "processed_at"], "identity"
    )
    assert mail["Message-ID"] == message_id == f"<{job_id}@example.org>"
    assert mail["X-Job-Id"] == str(job_id)
    assert mail["From"] == "Acme Bookings <bookings@example.org>"
    assert mail["To"] == "Ann Ünal <ann@example.com>"
    assert provider == "smtp"
    assert sent_at is not None
    assert processed_at is not None


def test_copies_answers_and_headers_arrive(office: Office) -> None:
    """cc, reply_to, from and headers are in the mail; bcc is in the envelope and nowhere else."""
    mail = office.deliver(
        "everything",
        options=options(
            cc=["Carl <carl@example.com>", "cora@example.com"],
            bcc=["boss@example.com"],
            reply_to="Desk <desk@example.org>",
            from_address="Concerts <concerts@example.org>",
            headers={"X-Campaign": "Sömmer"},
            future={"unknown": "keys are ignored"},
        ),
    )
    assert mail["Cc"] == "Carl <carl@example.com>, cora@example.com"
    assert mail["Reply-To"] == "Desk <desk@example.org>"
    assert mail["From"] == "Concerts <concerts@example.org>"
    assert mail["X-Campaign"] == "Sömmer"
    assert b"boss" not in mail.as_bytes()
    (envelope,) = office.envelopes("everything")
    assert envelope.recipient.split(",") == [
        "ann@example.com",
        "carl@example.com",
        "cora@example.com",
        "boss@example.com",
    ]


def test_a_large_attachment_arrives_intact(office: Office) -> None:
    """Options too large to be claimed with their batch are fetched apart, and no byte of them changes."""
    large, small = os.urandom(1_000_000), b"small"
    mail = office.deliver(
        "large",
        options=options(
            attachments=[
                {"filename": "Größe.bin", "content": base64.b64encode(large).decode()},
                {"filename": "a.txt", "content": base64.b64encode(small).decode(), "content_type": "text/plain"},
            ]
        ),
    )
    assert value(office.db, "SELECT pg_column_size(options) >= 1000000 FROM email_jobs WHERE job_id = 'large'")
    assert files(mail) == {"Größe.bin": large, "a.txt": small}


def test_an_inline_image_belongs_to_the_html(office: Office) -> None:
    """An attachment with a content_id is a related part, not a file beside the text."""
    image = {
        "filename": "logo.png",
        "content": base64.b64encode(b"\x89PNG").decode(),
        "content_type": "image/png",
        "content_id": "logo",
    }
    mail = office.deliver("inline", options=options(attachments=[image]), content='<img src="cid:logo">')
    assert [piece.get_content_type() for piece in mail.walk()] == [
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
    ]
    assert list(mail.walk())[-1]["Content-ID"] == "<logo>"


BAD_JOBS: dict[str, tuple[dict[str, object], str]] = {
    "no such template": ({"template": "nope"}, 'unknown template "nope"'),
    "a layout is no template": ({"template": "broken", "template_version": 1}, "template broken version 1 (html)"),
    "a missing variable": ({"data": "{}"}, "template booking-confirmation (subject), line 1: 'eventName' is undefined"),
    "data for no template": ({"data": None}, "'eventName' is undefined"),
    "an expression that fails": (
        {"data": '{"bookingId": "b", "eventName": "e", "ticketCount": 1, "totalAmount": "much"}'},
        "ValueError in an expression",
    ),
    "cc of the wrong shape": ({"options": options(cc="carl@example.com")}, "options.cc: must be a list, not text"),
    "an unfinished attachment": (
        {"options": options(attachments=[{"filename": "a"}])},
        "options.attachments[0]: the field content is missing",
    ),
    "no base64": (
        {"options": options(attachments=[{"filename": "a.pdf", "content": "%%%"}])},
        "options.attachments: the content of 'a.pdf' is not base64",
    ),
    "a bad cc": ({"options": options(cc=["nobody"])}, "options.cc: 'nobody' is not an address"),
    "a smuggled header": (
        {"options": options(headers={"X-A": "b\r\nBcc: victim@example.com"})},
        "options.headers: X-A must be one line",
    ),
    "a header of ours": ({"options": options(headers={"Subject": "x"})}, "Subject is written by the worker"),
}


def test_bad_jobs_die_in_words_and_harm_no_other_job_of_the_batch(office: Office) -> None:
    """Each ends as dead with its reason, nothing of it is sent, and the good jobs around it are."""
    office.db.execute(
        "INSERT INTO email_templates (name, subject, html_content) VALUES ('broken', 's', '<p>{% if %}</p>')"
    )
    with office.db.transaction():
        for name, (columns, _) in BAD_JOBS.items():
            office.enqueue(f"good before: {name}")
            office.enqueue(name, **columns)
        office.enqueue("good after all")
    for name, (_, reason) in BAD_JOBS.items():
        assert reason in office.died(name)
        office.delivered(f"good before: {name}")
        assert job(office.db, ["retry_count"], name) == (0,)
    office.delivered("good after all")
    batches = (
        "SELECT count(DISTINCT t.xid) FROM email_tracking t JOIN email_jobs j ON t.job_id = j.id"
        " WHERE starts_with(j.job_id, 'good') OR j.job_id = ANY(%s)"
    )
    assert value(office.db, batches, list(BAD_JOBS)) == 1, "they were one batch"


def test_what_has_expired_is_never_sent(office: Office) -> None:
    """A job whose expires_at has passed ends as expired, with its event and no mail; a later one is sent."""
    with office.db.transaction():
        office.enqueue("too late", expires_at="2024-01-01 00:00Z")
        office.enqueue("in time", expires_at="2099-01-01 00:00Z")
    office.delivered("in time")
    assert office.end_of("too late") == "expired"
    assert office.mails("too late") == []
    assert events(office.db, "too late") == ["expired"]


def test_mail_with_an_opt_out_carries_its_link(office: Office) -> None:
    """Marketing types carry List-Unsubscribe with the job's own link, others do not."""
    data = '{"title": "Issue", "articles": []}'
    marketing = office.deliver("opt-out", type="newsletter", template="newsletter", data=data)
    (job_id,) = job(office.db, ["id"], "opt-out")
    assert marketing["List-Unsubscribe"].strip() == f"<https://example.org/out/{job_id}>"
    assert marketing["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert f"https://example.org/out/{job_id}" in part(marketing, "html")
    assert office.deliver("no-opt-out")["List-Unsubscribe"] is None
