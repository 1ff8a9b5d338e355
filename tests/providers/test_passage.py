"""The provider behind the real passage, `worker.batch.Passage`, and a journal in Postgres that is slow."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from lab.scripted_smtp import ScriptedServer
from tests.providers.hand_over import GUARD_SECONDS
from tests.providers.mails import make_mails
from tests.providers.services import SmtpRig, contents_of
from worker.batch import Batch, Passage, StopFlag
from worker.claim import ClaimWatch
from worker.job import Accepted, Mail, NotSent, Queue
from worker.journal import Journal
from worker.providers.smtp import SmtpProvider
from worker.settings import Settings

Connection = psycopg.Connection[Any]


@dataclass
class Office:
    """A provider, its server, and a journal."""

    provider: SmtpProvider
    server: ScriptedServer
    journal: Journal
    watch: ClaimWatch

    def batch(self, seconds: float) -> Batch:
        """A batch that ends after so many seconds."""
        return Batch(Queue.TRANSACTIONAL, self.watch, StopFlag(), seconds)

    async def send(self, mails: list[Mail], batch: Batch) -> Batch:
        """Send a batch by the real passage."""
        async with asyncio.timeout(GUARD_SECONDS):
            await self.provider.send(mails, Passage(batch, self.journal, "smtp"))
        return batch


@pytest.fixture
async def office(rig: SmtpRig, settings: Settings) -> AsyncIterator[Office]:
    """One of each, connected."""
    server = await rig.server()
    journal = Journal(settings)
    await journal.open()
    # The watch looks at a claim's connection; nothing happens to this one.
    watch = ClaimWatch(await psycopg.AsyncConnection.connect(**journal._parameters))
    yield Office(rig.provider(server, connections=2), server, journal, watch)
    await watch._connection.close()
    await journal.close()


def lock_journal(db: Connection) -> None:
    """Make every write of the journal wait."""
    db.execute("BEGIN")
    db.execute("LOCK TABLE email_attempts IN EXCLUSIVE MODE")


async def test_answers_reach_the_journal(office: Office, db: Connection) -> None:
    """What the provider answers is what the journal has, with the server's words."""
    batch = await office.send(make_mails(5), office.batch(10))
    await office.journal.flush()
    assert {type(outcome) for outcome in batch.outcomes.values()} == {Accepted}
    rows = db.execute("SELECT seq, attempt, state::text, provider, answer FROM email_attempts ORDER BY seq").fetchall()
    assert rows == [(seq, 1, "accepted", "smtp", "250 2.0.0 accepted") for seq in range(1, 6)]


async def test_a_batch_that_ends_while_the_journal_hangs_leaves_no_question(office: Office, db: Connection) -> None:
    """Mails whose intent could not be written in time are NotSent, and the journal has nothing open about them."""
    lock_journal(db)
    batch = await office.send(make_mails(5), office.batch(0.6))
    db.execute("COMMIT")
    await office.journal.flush()
    assert {seq: type(outcome) for seq, outcome in batch.outcomes.items()} == dict.fromkeys(range(1, 6), NotSent)
    assert contents_of(office.server) == {}
    assert db.execute("SELECT count(*) FROM email_attempts WHERE state = 'sending'").fetchone() == (0,)


async def test_intents_that_waited_behind_a_slow_commit_are_not_written_afterwards(
    office: Office, db: Connection
) -> None:
    """A batch that ended while it waited for its turn is not journaled by the next one: that would be doubt."""
    await office.send(make_mails(1, 900), office.batch(10))
    lock_journal(db)
    slow = asyncio.create_task(office.send(make_mails(2, 10), office.batch(15)))
    short = asyncio.create_task(office.send(make_mails(2, 20), office.batch(0.6)))
    await asyncio.wait([short])
    db.execute("COMMIT")
    await slow
    await office.send(make_mails(2, 30), office.batch(10))
    await office.journal.flush()
    assert db.execute("SELECT seq, state::text FROM email_attempts WHERE state = 'sending'").fetchall() == []
    assert contents_of(office.server).keys() == {900, 10, 11, 30, 31}


async def test_the_end_of_one_batch_does_not_disturb_another_in_the_journal(office: Office, db: Connection) -> None:
    """Batches whose intents share a commit end at deadlines of their own; the one that has time is sent whole."""
    await office.send(make_mails(1, 900), office.batch(10))
    lock_journal(db)
    batches = [office.batch(seconds) for seconds in (0.6, 1.2, 15.0)]
    running = [
        asyncio.create_task(office.send(make_mails(3, 10 * number), batch)) for number, batch in enumerate(batches, 1)
    ]
    await asyncio.wait(running[:2])
    db.execute("COMMIT")
    await running[2]
    assert {type(outcome) for outcome in batches[2].outcomes.values()} == {Accepted}
    assert batches[2].questioned == {}
    assert contents_of(office.server) == {900: 1, 30: 1, 31: 1, 32: 1}
    for task in running[:2]:
        task.result()


async def test_a_batch_that_ends_in_the_moment_of_the_commit_leaves_no_question(
    office: Office, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline between the commit of the intents and the batch hearing of it closes them as not sent."""
    insert = office.journal._insert_intents
    loop = asyncio.get_running_loop()

    async def insert_and_cancel(*arguments: Any) -> set[int]:
        admitted = await insert(*arguments)
        # Runs before the batch's task does, which has its answer by then.
        loop.call_soon(sending.cancel)
        return admitted

    monkeypatch.setattr(office.journal, "_insert_intents", insert_and_cancel)
    sending = asyncio.create_task(office.send(make_mails(3), office.batch(10)))
    with pytest.raises(asyncio.CancelledError):
        await sending
    await office.journal.flush()
    assert contents_of(office.server) == {}
    rows = db.execute("SELECT seq, state::text FROM email_attempts ORDER BY seq").fetchall()
    assert rows == [(seq, "not_sent") for seq in (1, 2, 3)]


async def test_an_unforeseen_error_in_the_journal_is_not_a_hang(
    office: Office, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong in the journal's writer, the batch that waits hears of it, and the next one is written."""
    await office.send(make_mails(1, 900), office.batch(10))
    await office.journal.flush()
    batch = office.batch(60)
    with monkeypatch.context() as patch:
        patch.setattr("worker.journal.array_literal", lambda _: 1 / 0)
        async with asyncio.timeout(5):
            with contextlib.suppress(ZeroDivisionError):
                await office.send(make_mails(2), batch)
    assert {type(outcome) for outcome in batch.outcomes.values()} <= {NotSent}
    assert contents_of(office.server).keys() == {900}
    after = await office.send(make_mails(2, 3), office.batch(10))
    assert {type(outcome) for outcome in after.outcomes.values()} == {Accepted}
    assert db.execute("SELECT seq FROM email_attempts WHERE seq < 900 ORDER BY seq").fetchall() == [(3,), (4,)]
