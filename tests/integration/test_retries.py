"""Recipients that a server refuses for now or for good, and the events that tell of it."""

from tests.integration.office import Office
from tests.integration.rows import column, events, job, row, rows, value

FATE = ["status", "retry_count", "attempt_no", "error_message"]


def test_a_recipient_refused_for_now_is_tried_again(office: Office) -> None:
    """After a 451 the job costs one retry and is delivered once, under the next attempt number."""
    office.deliver("busy", recipient_email="busy-1@example.com")
    assert job(office.db, FATE, "busy") == ("sent", 1, 2, None)
    assert events(office.db, "busy") == ["retry_scheduled", "sent"]
    journal = rows(
        office.db,
        "SELECT a.attempt, a.state, a.answer FROM email_attempts AS a JOIN email_jobs AS j ON a.seq = j.seq"
        " WHERE j.job_id = 'busy' ORDER BY a.attempt",
    )
    assert journal == [(1, "failed", "451 4.3.0 try again later"), (2, "accepted", "250 2.0.0 accepted")]


def test_a_recipient_refused_for_good_is_dead_at_once(office: Office) -> None:
    """After a 550 the job is dead with the server's words, and no retry was spent."""
    assert office.refuse("refused", recipient_email="refused-1@example.com") == "550 5.1.1 no such mailbox"
    assert job(office.db, FATE, "refused") == ("dead", 0, 1, "550 5.1.1 no such mailbox")
    assert events(office.db, "refused") == ["dead"]
    reason = row(
        office.db,
        "SELECT t.provider, t.event_data ->> 'reason' FROM email_tracking AS t JOIN email_jobs AS j"
        " ON t.job_id = j.id WHERE j.job_id = 'refused'",
    )
    assert reason == ("smtp", "550 5.1.1 no such mailbox")


def test_retries_run_out(office: Office) -> None:
    """With EMAIL_MAX_RETRIES = 2 there are three attempts, and then the job is dead with the last answer."""
    reason = office.refuse("always", recipient_email="always-busy-1@example.com")
    assert reason == "451 4.3.0 try again later"
    assert job(office.db, FATE, "always") == ("dead", 2, 3, reason)
    assert events(office.db, "always") == ["retry_scheduled", "retry_scheduled", "dead"]


def test_a_job_may_have_its_own_number_of_retries(office: Office) -> None:
    """max_retries of the job stands before the worker's setting; 0 means one attempt."""
    office.refuse("no-retries", recipient_email="always-busy-2@example.com", max_retries=0)
    assert job(office.db, FATE[:3], "no-retries") == ("dead", 0, 1)
    office.refuse("three", recipient_email="always-busy-3@example.com", max_retries=3)
    assert job(office.db, FATE[:3], "three") == ("dead", 3, 4)


def test_a_type_may_have_its_own_number_of_retries(office: Office) -> None:
    """max_retries of the type stands between the job's and the worker's."""
    office.db.execute(
        "INSERT INTO email_types (type, category, queue, guarantee, priority, max_retries, description)"
        " VALUES ('hasty', 'system', 'transactional', 'at_least_once', 'normal', 1, 'One retry.')"
    )

    def fate(number: int) -> tuple[object, ...]:
        job_id = f"hasty-{number}"
        office.refuse(job_id, type="hasty", recipient_email=f"always-busy-4{number}@example.com")
        return job(office.db, FATE[:3], job_id)

    assert fate(1) == ("dead", 1, 2)


def test_a_refused_copy_does_not_keep_the_mail_from_its_recipient(office: Office) -> None:
    """recipient_email decides the job: the others get it, and the refusal is noted in the journal."""
    office.deliver("copies", options='{"cc": ["refused-2@example.com", "cora@example.com"]}')
    (envelope,) = office.envelopes("copies")
    assert envelope.recipient == "ann@example.com,cora@example.com"
    answer = value(
        office.db,
        "SELECT a.answer FROM email_attempts AS a JOIN email_jobs AS j ON a.seq = j.seq WHERE j.job_id = 'copies'",
    )
    assert answer == "250 2.0.0 accepted (refused for example.com: 550 5.1.1 no such mailbox)"


def test_a_retry_waits_and_the_wait_is_in_the_row(office: Office) -> None:
    """A job whose time has not come waits as pending; it is delivered when it is due, not before."""
    office.enqueue("soon", scheduled_at=value(office.db, "SELECT clock_timestamp() + interval '1 second'"))
    office.enqueue("someday", scheduled_at="2099-01-01 00:00Z")
    office.delivered("soon")
    assert job(office.db, ["status"], "someday") == ("pending",)
    assert value(office.db, "SELECT sent_at >= scheduled_at FROM email_jobs WHERE job_id = 'soon'")


def test_each_change_wrote_its_event_in_its_own_transaction(office: Office) -> None:
    """Whatever a worker made of a job, row and event carry one transaction, so neither is ever without the other."""
    ends = [
        ("an end: sent", {}, "sent"),
        ("an end: sent after a retry", {"recipient_email": "busy-9@example.com"}, "sent"),
        ("an end: dead", {"recipient_email": "refused-9@example.com"}, "dead"),
        ("an end: dead before it was sent", {"template": "nope"}, "dead"),
        ("an end: expired", {"expires_at": "2024-01-01 00:00Z"}, "expired"),
    ]
    for name, columns, _ in ends:
        office.enqueue(name, **columns)
    for name, _, status in ends:
        assert office.end_of(name) == status
    told = rows(
        office.db,
        "SELECT j.job_id, (SELECT t.event_type::text FROM email_tracking AS t"
        " WHERE t.job_id = j.id AND t.xmin = j.xmin)"
        " FROM email_jobs AS j WHERE starts_with(j.job_id, 'an end') ORDER BY j.seq",
    )
    assert told == [(name, status) for name, _, status in ends]
    assert column(office.db, "SELECT job_id FROM email_books_difference()") == []
