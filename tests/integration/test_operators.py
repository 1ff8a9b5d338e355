"""What people do with SQL, seen together with a running worker: cancel, requeue, read a mail's timeline."""

from tests.integration.office import Office
from tests.integration.rows import column, events, job, rows, value


def test_a_cancelled_job_is_not_sent_and_a_requeued_one_is(office: Office) -> None:
    """A worker passes over the cancelled one; requeued, it goes out under the attempt number after the cancel's."""
    office.enqueue("j-1", scheduled_at="2099-01-01 00:00Z")
    assert value(office.db, "SELECT email_cancel('j-1')") == "cancelled"
    office.db.execute("UPDATE email_jobs SET scheduled_at = NULL WHERE job_id = 'j-1'")
    office.deliver("another")
    assert office.mails("j-1") == []
    assert value(office.db, "SELECT email_requeue('j-1')")
    office.delivered("j-1")
    assert job(office.db, ["attempt_no"]) == (2,)
    assert events(office.db) == ["cancelled", "requeued", "sent"]


def test_a_requeued_sent_job_is_really_sent_again(office: Office) -> None:
    """A worker sends it a second time, under a new attempt number and with the same Message-ID."""
    first = office.deliver("twice")
    assert value(office.db, "SELECT email_requeue('twice')")
    assert office.end_of("twice") == "sent"
    mails = office.mails("twice")
    assert [mail["Message-ID"] for mail in mails] == [first["Message-ID"]] * 2
    journal = (
        "SELECT a.attempt FROM email_attempts AS a JOIN email_jobs AS j ON a.seq = j.seq"
        " WHERE j.job_id = 'twice' AND a.state = 'accepted' ORDER BY a.attempt"
    )
    assert column(office.db, journal) == [1, 2]
    assert job(office.db, ["attempt_no", "retry_count"], "twice") == (2, 0)
    assert events(office.db, "twice") == ["sent", "requeued", "sent"]


def test_a_corrected_dead_letter_is_delivered(office: Office) -> None:
    """A dead letter, its data put right, goes out after email_requeue_dead()."""
    office.refuse("corrected", data="{}")
    office.db.execute("UPDATE email_jobs SET content = '<p>Corrected</p>', subject = 'Now' WHERE job_id = 'corrected'")
    assert value(office.db, "SELECT email_requeue_dead()") == 1
    assert office.delivered("corrected")["Subject"] == "Now"


def test_the_timeline_of_a_delivered_mail(office: Office) -> None:
    """Arrival, hand-over, answer, event: in the order in which they happened, with provider and words."""
    office.deliver("delivered")
    timeline = rows(office.db, "SELECT what, attempt, provider FROM email_timeline('delivered')")
    assert timeline == [
        ("enqueued", None, None),
        ("handed over", 1, "smtp"),
        ("accepted", 1, "smtp"),
        ("sent", None, "smtp"),
    ]
    details = column(office.db, "SELECT detail FROM email_timeline('delivered') WHERE what = 'accepted'")
    assert details == ["250 2.0.0 accepted"]


def test_the_timeline_of_a_mail_that_was_retried(office: Office) -> None:
    """Both attempts are there with the server's answers, and the events between them."""
    office.deliver("retried", recipient_email="busy-1@example.com")
    timeline = rows(
        office.db, "SELECT what, attempt, detail FROM email_timeline('retried') WHERE what NOT IN ('enqueued', 'sent')"
    )
    worker = value(office.db, "SELECT min(worker) FROM email_attempts WHERE worker <> session_user")
    assert timeline == [
        ("handed over", 1, f"primary smtp by {worker}"),
        ("failed", 1, "451 4.3.0 try again later"),
        ("retry_scheduled", None, "451 4.3.0 try again later"),
        ("handed over", 2, f"primary smtp by {worker}"),
        ("accepted", 2, "250 2.0.0 accepted"),
    ]


def test_the_timeline_of_a_mail_that_never_went(office: Office) -> None:
    """What ended without a hand-over says so, and why."""
    office.refuse("unsendable", template="nope")
    timeline = rows(office.db, "SELECT what, attempt, provider FROM email_timeline('unsendable')")
    assert timeline == [("enqueued", None, None), ("not_sent", 1, None), ("dead", None, None)]
    details = column(office.db, "SELECT detail FROM email_timeline('unsendable') WHERE what <> 'enqueued'")
    assert details == ['unknown template "nope": no active row in email_templates and no shipped files'] * 2
