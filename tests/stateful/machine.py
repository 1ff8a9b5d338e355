"""The state machine: what can happen to jobs, workers, claims and time, in any order.

Each rule is one event of the world; `tests.stateful.oracle` says after each what must hold. Rules that stop a batch in
its middle leave it there: others act meanwhile, then it goes on, loses its claim, or dies.
"""

import sys
from enum import StrEnum
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, precondition, rule
from psycopg.pq import TransactionStatus

from tests.stateful.limits import DOUBT_SECONDS, RETRY_SECONDS
from tests.stateful.plan import Answer, Plan, Stage
from tests.stateful.plant import Plant
from tests.stateful.process import Process
from worker.job import Guarantee, Queue

PROCESSES = 2
# A doubt costs a wait, every retry costs one, and a batch takes five jobs: far more rounds than anything may need.
MOST_ROUNDS = 60

# What goes wrong all the time hides what goes wrong together, so most things are fine.
answers = st.lists(st.sampled_from([*Answer, *[Answer.ACCEPTED] * 4]), max_size=6)
templates = st.sampled_from([*["fine"] * 9, "broken", "needy", "missing"])
queues = st.sampled_from([Queue.TRANSACTIONAL] * 4 + [Queue.BULK])
which = st.integers(0, PROCESSES - 1)


class Fate(StrEnum):
    """What happens to a batch that is stopped in its middle."""

    WAITS = "it is slow"
    LOSES_CLAIM = "Postgres ends its session"
    LOSES_CLAIM_UNNOTICED = "Postgres ends its session, and the network swallows the news"
    DIES = "its process dies"


class End(StrEnum):
    """How a stopped batch ends."""

    GOES_ON = "it goes on"
    STOPS = "its process was asked to stop meanwhile, and ends with it"
    DIES = "its process dies"


class DeliveryMachine(RuleBasedStateMachine):
    """Two worker processes, one queue table, and everything that goes wrong."""

    jobs: Bundle[str] = Bundle("jobs")

    def __init__(self, plant: Plant) -> None:
        super().__init__()
        self.plant = plant
        self.last_answer = Answer.ACCEPTED
        # Where people work: now and then in a transaction that began long before.
        self.person = plant.database.connect()
        plant.empty()
        for _ in range(PROCESSES):
            plant.start()

    def teardown(self) -> None:
        """Every example ends with an empty queue: whatever has happened, every job comes to an end."""
        try:
            self.person.close()
            if sys.exc_info()[0] is None:
                self._let_everything_end(self.last_answer)
        finally:
            self.plant.empty()

    @initialize(
        target=jobs, last_answer=st.sampled_from([Answer.ACCEPTED, Answer.UNKNOWN_TAKEN, Answer.FAILED_PROVIDER])
    )
    def one_of_each(self, last_answer: Answer) -> Any:
        """No example begins with an empty queue, or ends with one: at last every mail gets this answer."""
        self.last_answer = last_answer
        return multiple(*(self.plant.enqueue(guarantee) for guarantee in Guarantee))

    # Jobs come

    @rule(
        target=jobs,
        count=st.integers(1, 4),
        guarantee=st.sampled_from(Guarantee),
        queue=queues,
        template=templates,
        due_in=st.sampled_from([*[None] * 8, -3600, 100]),
        expires_in=st.sampled_from([*[None] * 8, -10, 500]),
        max_retries=st.sampled_from([None, None, 0, 1, 4]),
    )
    def enqueue(
        self,
        count: int,
        guarantee: Guarantee,
        queue: Queue,
        template: str,
        due_in: int | None,
        expires_in: int | None,
        max_retries: int | None,
    ) -> Any:
        """Some jobs of one kind; the same job_id once more changes nothing."""
        names = [
            self.plant.enqueue(
                guarantee, queue, template=template, due_in=due_in, expires_in=expires_in, max_retries=max_retries
            )
            for _ in range(count)
        ]
        self.plant.db.execute("SELECT email_enqueue(%s, 'password-reset', 'bob@example.com')", (names[0],))
        return multiple(*names)

    # Workers work

    @rule(index=which, queue=queues, given=answers, dies=st.booleans())
    def deliver(self, index: int, queue: Queue, given: list[Answer], dies: bool) -> None:
        """A batch from its beginning to its end, while another one of the same process may be stopped.

        Then perhaps its process dies, and with it what it had not flushed.
        """
        process = self.plant.processes[index]
        self.plant.finish(process, self.plant.begin(process, queue, Plan(given)))
        if dies and process.held is None:
            self.plant.crash(process)

    @precondition(lambda self: self._idle())
    @rule(
        target=jobs,
        number=which,
        fresh=st.sampled_from(Guarantee),
        given=answers,
        stage=st.sampled_from(Stage),
        passes=st.integers(0, 1),
        fate=st.sampled_from(Fate),
    )
    def deliver_until(
        self, number: int, fresh: Guarantee, given: list[Answer], stage: Stage, passes: int, fate: Fate
    ) -> str:
        """A batch, with a new job in it, that is stopped at some stage, and stays there, or dies there."""
        job = self.plant.enqueue(fresh)
        process = self._idle()[number % len(self._idle())]
        batch = self.plant.begin(process, Queue.TRANSACTIONAL, Plan(given, stage, passes))
        if batch.task.done():
            self.plant.finish(process, batch)
        elif fate is Fate.DIES:
            self.plant.crash(process)
        else:
            process.held = batch
            if fate is not Fate.WAITS:
                self.plant.lose_claim(batch, is_noticed=fate is Fate.LOSES_CLAIM)
        return job

    @rule(index=which, queue=queues, given=answers)
    def settle_is_cut(self, index: int, queue: Queue, given: list[Answer]) -> None:
        """A batch whose settle Postgres interrupts in its middle."""
        self.plant.settle_interrupted(self.plant.processes[index], queue, Plan(given))

    @precondition(lambda self: self._holding())
    @rule(number=which, end=st.sampled_from([End.GOES_ON, *End]), is_flushed=st.booleans())
    def stopped_batch_ends(self, number: int, end: End, is_flushed: bool) -> None:
        """A stopped batch goes on to its end, or not; and perhaps its journal's flush interval passes."""
        process = self._holding()[number % len(self._holding())]
        assert process.held is not None
        batch, process.held = process.held, None
        if end is End.STOPS:
            process.delivery.stop.event.set()
        if end is not End.DIES:
            self.plant.finish(process, batch)
        if end is End.STOPS:
            self.plant.run(process.journal.close())
        elif is_flushed:
            self.plant.run(process.journal.flush())
        if end is not End.GOES_ON:
            self.plant.crash(process)

    # People and time

    @rule()
    def person_begins(self) -> None:
        """A person's transaction begins, and is older from now on than what workers do meanwhile."""
        if self.person.info.transaction_status == TransactionStatus.IDLE:
            self.person.execute("BEGIN")
            self.person.execute("SELECT pg_current_xact_id()")

    @rule(job=jobs, requeues=st.booleans())
    def person_acts(self, job: str, requeues: bool) -> None:
        """A person sends a finished job again, or a producer takes one back that can be."""
        status = self.plant.oracle.statuses()[job]
        if requeues and status != "pending":
            self.person.execute("SELECT email_requeue(%s)", (job,))
            self.plant.oracle.requeued(job)
        elif not requeues:
            row = self.person.execute("SELECT email_cancel(%s)", (job,)).fetchone()
            assert row is not None
            status = str(row[0])
        if self.person.info.transaction_status != TransactionStatus.IDLE:
            self.person.execute("COMMIT")
        if not requeues:
            assert (status == "cancelled") == (self.plant.oracle.statuses()[job] == "cancelled"), status

    @rule(seconds=st.sampled_from([1, RETRY_SECONDS + 10, DOUBT_SECONDS - 30, DOUBT_SECONDS + 10, 3600]))
    def time_passes(self, seconds: int) -> None:
        """All times move into the past, and the periodic task has run."""
        self.plant.time_passes(seconds)
        self.plant.oracle.apply_late_outcomes()

    def _let_everything_end(self, answer: Answer) -> None:
        """Given time and any one answer each job ends: no doubt and no retry goes on for ever."""
        for process in self._holding():
            assert process.held is not None
            batch, process.held = process.held, None
            self.plant.finish(process, batch)
        for _ in range(MOST_ROUNDS):
            if "pending" not in self.plant.oracle.statuses().values():
                break
            self.plant.time_passes(3600)
            for queue in Queue:
                process = self.plant.processes[0]
                self.plant.finish(process, self.plant.begin(process, queue, Plan([answer] * 20)))
            self.plant.oracle.check()
        pending = [job for job, status in self.plant.oracle.statuses().items() if status == "pending"]
        assert not pending, f"still pending after {MOST_ROUNDS} rounds: {pending}"

    @invariant()
    def promises_hold(self) -> None:
        """See the oracle."""
        self.plant.oracle.check()

    def _holding(self) -> list[Process]:
        return [process for process in self.plant.processes if process.held is not None]

    def _idle(self) -> list[Process]:
        return [process for process in self.plant.processes if process.held is None]
