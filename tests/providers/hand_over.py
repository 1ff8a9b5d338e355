"""A hand-over that keeps the provider's books, and notes each breach of the contract in `worker.providers.base`."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.providers.mails import seqs
from worker.job import Accepted, Failed, Mail, NotSent, Outcome, Refused, Unavailable, Unknown
from worker.providers.base import Provider

# Ends a send that would hang. No test waits for it when the provider is right.
GUARD_SECONDS = 20.0
# As in the delivery: nothing is handed over in the last third.
HAND_OVER_SHARE = 2 / 3


async def turns(count: int = 50) -> None:
    """Let everything that is ready to run, run."""
    for _ in range(count):
        await asyncio.sleep(0)


async def heard(event: asyncio.Event) -> None:
    """Wait for what must come soon; a test that waits for ever tells nobody why."""
    async with asyncio.timeout(GUARD_SECONDS):
        await event.wait()


class Tally:
    """What all hand-overs of one test come to."""

    def __init__(self) -> None:
        self.admitted: list[int] = []
        self.open = 0
        self.most_open = 0
        self.breaches: list[str] = []

    def admit(self, numbers: Sequence[int]) -> None:
        """These are journaled now."""
        self.admitted.extend(numbers)
        self.open += len(numbers)
        self.most_open = max(self.most_open, self.open)

    def touched(self, seq: int) -> None:
        """A server saw something of this mail."""
        if seq not in self.admitted:
            self.breaches.append(f"mail {seq} was seen by the server before it was admitted")


class RecordingHandOver:
    """One batch's passage. `gate` closed holds a commit of the journal back; `is_stopped` makes may_go say no."""

    def __init__(self, tally: Tally | None = None, *, seconds: float = 10.0, is_urgent: bool = False) -> None:
        self.tally = tally or Tally()
        now = asyncio.get_running_loop().time()
        self.deadline = now + seconds
        self.is_urgent = is_urgent
        self.is_stopped = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()
        self.keeps: set[int] = set()
        self.on_offered: Callable[[], None] = lambda: None
        self.on_admitted: Callable[[], None] = lambda: None
        self.on_answer: Callable[[int, Outcome], None] = lambda seq, outcome: None
        self.attempts: dict[int, int] = {}
        self.reasons: dict[int, str] = {}
        self.outcomes: dict[int, Outcome] = {}
        self._last_call = now + seconds * HAND_OVER_SHARE
        self._given: set[int] = set()
        self._offered: set[int] = set()
        self._admitted: set[int] = set()
        self._has_returned = False

    async def admit(self, mails: Sequence[Mail]) -> list[Mail]:
        """Journal these, after a moment, except those that the test wants to keep."""
        for seq in seqs(mails):
            self._check(seq in self._given, f"mail {seq} was admitted and never given")
            self._check(seq not in self._offered, f"mail {seq} was offered to admit twice")
            self._check(seq not in self.outcomes, f"mail {seq} was offered to admit after its answer")
        self._offered |= seqs(mails)
        self.is_asked.set()
        self.on_offered()
        await self.gate.wait()
        await turns(3)
        new = [mail for mail in mails if mail.job.seq not in self.keeps]
        for mail in new:
            mail.is_journaled = True
            self.attempts[mail.job.seq] = mail.attempt
            self.reasons[mail.job.seq] = mail.reason
        self._admitted |= seqs(new)
        self.tally.admit([mail.job.seq for mail in new])
        self.on_admitted()
        return new

    def may_go(self) -> bool:
        """In time, and not stopped."""
        return not self.is_stopped and asyncio.get_running_loop().time() < self._last_call

    def answer(self, mail: Mail, outcome: Outcome) -> None:
        """Take an answer down, and every reason why it should not have come."""
        seq = mail.job.seq
        self._check(seq in self._given, f"mail {seq} was answered and never given")
        self._check(seq not in self.keeps, f"mail {seq} was answered though admit kept it")
        self._check(seq not in self.outcomes, f"mail {seq} was answered twice: {self.outcomes.get(seq)}, {outcome}")
        self._check(not self._has_returned, f"mail {seq} was answered after send returned: {outcome}")
        if seq in self._admitted:
            self.tally.open -= 1
        else:
            may_be = not isinstance(outcome, Accepted | Unknown)
            self._check(may_be, f"mail {seq} was never admitted and is {outcome}")
        self._check(is_storable(words_of(outcome)), f"mail {seq}: Postgres cannot store {words_of(outcome)!r}")
        self.outcomes[seq] = outcome
        self.on_answer(seq, outcome)

    def begin(self, mails: Sequence[Mail]) -> None:
        """These are given to a provider now."""
        self._given |= seqs(mails)

    def end(self) -> None:
        """The provider's send has returned: the books must balance."""
        self._has_returned = True
        missing = sorted(self._given - self.keeps - set(self.outcomes))
        self._check(not missing, f"mails {missing} have no answer")
        assert self.tally.breaches == []

    def _check(self, is_right: bool, breach: str) -> None:
        if not is_right:
            self.tally.breaches.append(breach)


async def send(provider: Provider, mails: Sequence[Mail], hand_over: RecordingHandOver) -> dict[int, Outcome]:
    """Send, check that the contract was kept, and return the outcomes by number."""
    hand_over.begin(mails)
    async with asyncio.timeout(GUARD_SECONDS):
        await provider.send(mails, hand_over)
    hand_over.end()
    return hand_over.outcomes


def assert_books(outcomes: Mapping[int, Outcome], contents: Counter[int], accepted: Counter[int]) -> None:
    """A service saw what the answers say: how often each mail's content arrived, and how often it was accepted."""
    for seq, outcome in outcomes.items():
        match outcome:
            case Accepted():
                assert (contents[seq], accepted[seq]) == (1, 1), f"mail {seq}: {outcome}"
            case Unknown():
                assert contents[seq] <= 1, f"mail {seq}: {outcome}"
            case NotSent() | Unavailable():
                assert contents[seq] == 0, f"mail {seq}: {outcome}"
            case Refused() | Failed():
                assert (contents[seq] <= 1, accepted[seq]) == (True, 0), f"mail {seq}: {outcome}"


def words_of(outcome: Outcome) -> str:
    """What an outcome says."""
    match outcome:
        case Accepted(_, answer) | Refused(answer) | Failed(answer, _, _) | Unknown(answer):
            return answer
        case NotSent(reason) | Unavailable(reason, _):
            return reason


def is_storable(text: str) -> bool:
    """Whether a text is one that UTF-8, and so the journal, can hold."""
    return text == text.encode("utf-8", "replace").decode()
