"""One claim on its way: its time, its watch, what has become of its mails, and its passage to a provider."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from worker.claim import ClaimWatch
from worker.errors import JournalUnavailable
from worker.job import TOO_LATE, Job, Mail, NotSent, Outcome, Queue, Settlement
from worker.journal import Journal

# After two thirds of the deadline nothing more is handed over: the rest is for answers.
HAND_OVER_SHARE = 2 / 3


class StopFlag:
    """Set once, when the process is asked to stop: no new claim, no new hand-over."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """Whether we are stopping."""
        return self.event.is_set()


class Answers:
    """What one provider answered in a batch: how often what, and after how long."""

    __slots__ = ("outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes: Counter[type[Outcome]] = Counter()
        self.seconds: list[float] = []


class Batch:
    """One claim on its way: its time, its watch, and what has become of its mails."""

    def __init__(
        self, queue: Queue, watch: ClaimWatch, stop: StopFlag, deadline_seconds: float, began: float | None = None
    ) -> None:
        now = asyncio.get_running_loop().time() if began is None else began
        self.is_urgent = queue is Queue.TRANSACTIONAL
        self.deadline = now + deadline_seconds
        self.outcomes: dict[int, Outcome] = {}
        self.providers: dict[int, str] = {}
        self.questioned: dict[int, Job] = {}
        self.settlements: list[Settlement] = []
        self.answers: dict[str, Answers] = {}
        self._last_call = now + deadline_seconds * HAND_OVER_SHARE
        self.watch = watch
        self._stop = stop
        self._time = asyncio.get_running_loop().time

    def may_go(self) -> bool:
        """Whether content may still be handed over."""
        return not self.watch.is_lost and not self._stop.is_set and self._time() < self._last_call


class Passage:
    """A batch's passage to one provider: the contract's `HandOver`."""

    def __init__(self, batch: Batch, journal: Journal, provider: str) -> None:
        self.deadline = batch.deadline
        self.is_urgent = batch.is_urgent
        self.may_go = batch.may_go
        self._batch = batch
        self._journal = journal
        self._provider = provider
        self._answers = batch.answers.setdefault(provider, Answers())
        self._time = asyncio.get_running_loop().time
        self._handed_over_at: dict[int, float] = {}

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """Journal the intents. A row that was there before is a question to the journal, not ours to send."""
        if not mails:
            return []
        if not self.may_go():
            for mail in mails:
                self.answer(mail, NotSent(TOO_LATE))
            return []
        try:
            new = await self._journal.open_intents(mails, self._provider)
        except JournalUnavailable as error:
            for mail in mails:
                self.answer(mail, NotSent(str(error)))
            return []
        admitted = []
        now = self._time()
        for mail in mails:
            if mail.job.seq in new:
                mail.is_journaled = True
                self._handed_over_at[mail.job.seq] = now
                admitted.append(mail)
            else:
                self._batch.questioned[mail.job.seq] = mail.job
        return admitted

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """Keep what became of a mail, and take it down in the journal."""
        seq = mail.job.seq
        self._batch.outcomes[seq] = outcome
        self._batch.providers[seq] = self._provider
        self._answers.outcomes[type(outcome)] += 1
        since = self._handed_over_at.pop(seq, None)
        if since is not None:
            self._answers.seconds.append(self._time() - since)
        if mail.is_journaled:
            self._journal.record(seq, mail.attempt, outcome)
