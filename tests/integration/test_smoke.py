"""One mail all the way, by a real worker process."""

import pytest

from lab.sink_process import Sink
from tests.support import Database, eventually, running_worker


@pytest.mark.parametrize("uvloop", [False, True], ids=["procrastinate worker", "email-worker worker"])
def test_an_inserted_row_becomes_a_delivered_mail(database: Database, sink: Sink, uvloop: bool) -> None:
    """A bare INSERT is a complete enqueue, and both commands deliver it."""
    with database.connect() as db, running_worker(database.environment(SMTP_PORT=sink.port), uvloop=uvloop):
        db.execute(
            "INSERT INTO email_jobs (job_id, type, template, recipient_email, data) VALUES"
            " ('j-1', 'booking-confirmation', 'booking-confirmation', 'ann@example.com',"
            ' \'{"bookingId":"b-1","eventName":"Concert 2024","ticketCount":2,"totalAmount":150.0}\')'
        )
        eventually(lambda: db.execute("SELECT status FROM email_jobs").fetchone() == ("sent",), "the job is sent")
        assert sink.counts().accepted == 1
