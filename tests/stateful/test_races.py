"""Single orders of events that are too rare to be left to chance: each is one race, played out step by step."""

from collections.abc import Iterator

import pytest

from tests.stateful.plan import Answer, Plan, Stage
from tests.stateful.plant import Plant
from tests.stateful.process import Batch
from tests.support import Database
from worker import journal
from worker.job import Guarantee, Queue

QUEUE = Queue.TRANSACTIONAL


@pytest.fixture
def plant(database: Database) -> Iterator[Plant]:
    """A database with worker processes that can be crashed."""
    plant = Plant(database)
    yield plant
    plant.close()


def test_what_a_living_process_was_told_counts_before_it_is_flushed(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that lost a claim and takes the job again knows that it was accepted before its journal does."""
    monkeypatch.setattr(journal, "FLUSH_SECONDS", 60.0)
    job = plant.enqueue(Guarantee.AT_LEAST_ONCE)
    process = plant.start()
    batch = plant.begin(process, QUEUE, Plan([], Stage.HANDED_OVER))
    plant.lose_claim(batch, is_noticed=True)
    plant.finish(process, batch)
    plant.finish(process, plant.begin(process, QUEUE, Plan([])))
    assert plant.oracle.statuses() == {job: "sent"}
    assert plant.oracle.times_taken(job) == 1


def test_an_answer_that_comes_between_reading_the_journal_and_settling_ends_the_doubt(plant: Plant) -> None:
    """An acceptance written while another worker is about to settle the job as in doubt is not overlooked."""
    job, other = plant.enqueue(Guarantee.AT_MOST_ONCE), plant.enqueue(Guarantee.AT_LEAST_ONCE)
    zombie, worker = plant.start(), plant.start()
    lost = plant.begin(zombie, QUEUE, Plan([], Stage.HANDED_OVER))
    plant.lose_claim(lost, is_noticed=True)
    # It has read the journal, and is about to send the other job again.
    batch = plant.begin(worker, QUEUE, Plan([], Stage.CLAIMED, passes=1))
    assert not batch.task.done()
    plant.finish(zombie, lost)
    plant.run(zombie.journal.flush())
    plant.finish(worker, batch)
    plant.oracle.apply_late_outcomes()
    assert plant.oracle.statuses() == {job: "sent", other: "sent"}


def test_a_late_word_that_nothing_was_handed_over_ends_the_doubt(plant: Plant) -> None:
    """A job in doubt whose worker still lives and says that not a byte went out is sent after all."""
    job = plant.enqueue(Guarantee.AT_MOST_ONCE)
    zombie, worker = plant.start(), plant.start()
    lost = plant.begin(zombie, QUEUE, Plan([], Stage.JOURNALED))
    plant.lose_claim(lost, is_noticed=True)
    plant.finish(worker, plant.begin(worker, QUEUE, Plan([])))
    assert plant.oracle.statuses() == {job: "in_doubt"}
    plant.finish(zombie, lost)
    plant.run(zombie.journal.flush())
    plant.oracle.apply_late_outcomes()
    plant.finish(worker, plant.begin(worker, QUEUE, Plan([])))
    assert plant.oracle.statuses() == {job: "sent"}
    assert plant.oracle.times_taken(job) == 1


def test_an_answer_counts_although_the_job_was_about_to_be_sent_again(plant: Plant) -> None:
    """A resend that is taken back does not make the worker forget the doubt whose answer comes meanwhile."""
    job = plant.enqueue(Guarantee.AT_LEAST_ONCE)
    zombie, worker = plant.start(), plant.start()
    lost = plant.begin(zombie, QUEUE, Plan([], Stage.HANDED_OVER))
    plant.lose_claim(lost, is_noticed=True)
    # The first answer is for the attempt that the journal turns away, the second for the resend.
    plant.finish(worker, plant.begin(worker, QUEUE, Plan([Answer.ACCEPTED, Answer.TAKEN_BACK])))
    plant.finish(zombie, lost)
    plant.run(zombie.journal.flush())
    plant.finish(worker, plant.begin(worker, QUEUE, Plan([])))
    assert plant.oracle.statuses() == {job: "sent"}
    assert plant.oracle.times_taken(job) == 1


@pytest.mark.parametrize("how", ["cancelled", "expired"])
def test_a_job_that_ended_is_not_sent_by_a_worker_that_does_not_know_it_lost_it(plant: Plant, how: str) -> None:
    """A worker whose lost connection the network hides does not send what was cancelled or expired meanwhile."""
    job = plant.enqueue(Guarantee.AT_LEAST_ONCE, expires_in=3600)
    zombie, worker = plant.start(), plant.start()
    lost = plant.begin(zombie, QUEUE, Plan([], Stage.CLAIMED))
    plant.lose_claim(lost, is_noticed=False)
    if how == "cancelled":
        plant.db.execute("SELECT email_cancel(%s)", (job,))
    else:
        plant.time_passes(7200)
        plant.finish(worker, plant.begin(worker, QUEUE, Plan([])))
    assert plant.oracle.statuses() == {job: how}
    plant.finish(zombie, lost)
    assert plant.oracle.times_taken(job) == 0
    assert plant.oracle.statuses() == {job: how}


@pytest.mark.parametrize("is_noticed", [True, False], ids=["noticed", "unnoticed"])
def test_two_batches_of_a_process_do_not_both_get_one_intent(plant: Plant, is_noticed: bool) -> None:
    """When a lost batch and its successor wait for the same commit of the journal, one of them gets the job."""
    first = plant.enqueue(Guarantee.AT_MOST_ONCE)
    process = plant.start()
    with plant.database.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE email_attempts IN ACCESS EXCLUSIVE MODE")
        batches = [_begin_and_wait_for_journal(plant)]
        job = plant.enqueue(Guarantee.AT_MOST_ONCE)
        batches.append(_begin_and_wait_for_journal(plant))
        plant.lose_claim(batches[1], is_noticed=is_noticed)
        batches.append(_begin_and_wait_for_journal(plant))
    for batch in batches:
        plant.finish(process, batch)
    plant.run(process.journal.flush())
    assert plant.oracle.statuses() == {first: "sent", job: "sent"}
    assert plant.oracle.times_taken(job) == 1
    assert plant.db.execute("SELECT DISTINCT state::text FROM email_attempts").fetchall() == [("accepted",)]


def _begin_and_wait_for_journal(plant: Plant) -> Batch:
    """A batch of the newest process that has claimed, and waits for the journal."""
    process = plant.processes[-1]
    batch = plant.run(plant.begin_without_waiting(process, QUEUE, Plan([])))
    plant.wait(lambda: plant.holds_claim(batch) and batch.plan.hand_over is not None, "the batch waits for the journal")
    return batch


def test_the_books_balance_when_a_person_works_in_an_old_transaction(plant: Plant) -> None:
    """A job that is requeued by a transaction older than the worker's is pending by its events too."""
    job = plant.enqueue(Guarantee.AT_LEAST_ONCE)
    process = plant.start()
    with plant.database.connect() as person, person.transaction():
        person.execute("SELECT email_enqueue('another', 'password-reset', 'bob@example.com')")
        plant.finish(process, plant.begin(process, QUEUE, Plan([])))
        person.execute("SELECT email_requeue(%s)", (job,))
    assert plant.db.execute("SELECT * FROM email_books_difference()").fetchall() == []
