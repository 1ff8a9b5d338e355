"""What must hold whatever happens: the promises of the delivery, as questions to the database and to the ledger.

The oracle looks at each mail at the moment at which its content leaves (`content_leaves`), and at all jobs after each
step (`check`). It judges by the journal's rows and their times, not by a second model of the delivery: an intent may be
journaled only if what was in the journal before allows it, whatever a worker does with it later.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import psycopg

from tests.stateful.limits import DOUBT_SECONDS, MAX_RETRIES
from worker.db import query
from worker.job import Accepted, Failed, Mail, Outcome, Refused

ENDED_UNSENT = ("dead", "expired", "cancelled", "suppressed")
OPEN = ("sending", "unknown")


class Attempt(NamedTuple):
    """A row of the journal; times are seconds of Postgres's clock."""

    attempt: int
    state: str
    started: float
    finished: float | None


class Row(NamedTuple):
    """What a job's row says now."""

    status: str
    attempt_no: int
    retry_count: int
    updated: float


@dataclass
class Life:
    """What is known of one job beside its row."""

    seq: int
    job_id: str
    guarantee: str
    most_retries: int
    row: Row
    attempts: dict[int, Attempt] = field(default_factory=dict)
    # attempt_no at each requeue: what was journaled up to there is of an earlier life.
    requeued_at: list[int] = field(default_factory=list)
    # The attempts under which the provider took it.
    taken: list[int] = field(default_factory=list)

    def first_attempt(self, attempt: int) -> int:
        """The first attempt number of the life that an attempt belongs to."""
        return max((mark for mark in self.requeued_at if mark < attempt), default=0) + 1

    def present(self) -> list[Attempt]:
        """The attempts since the last requeue."""
        first = self.requeued_at[-1] + 1 if self.requeued_at else 1
        return [attempt for number, attempt in sorted(self.attempts.items()) if number >= first]


class Oracle:
    """Knows all jobs of one database from their beginning on."""

    def __init__(self, db: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._db = db
        self.lives: dict[int, Life] = {}
        # What came of each hand-over, by (seq, attempt), and which living processes were told.
        self._outcomes: dict[tuple[int, int], Outcome] = {}
        self._told: set[tuple[str, int, int]] = set()
        # Of (process, seq): the attempt that it was told was accepted, and the newest in the journal at that moment.
        self._known_accepted: dict[tuple[str, int], tuple[int, int]] = {}

    def enqueued(self, seq: int, job_id: str, guarantee: str, max_retries: int | None) -> None:
        """A job came."""
        most = MAX_RETRIES if max_retries is None else max_retries
        self.lives[seq] = Life(seq, job_id, guarantee, most, self._rows()[seq])

    def requeued(self, job_id: str) -> None:
        """A person sent a job again."""
        life = self._life(job_id)
        life.requeued_at.append(life.row.attempt_no)

    def process_was_told(self, process: str, mail: Mail, outcome: Outcome) -> None:
        """A process knows this answer, as long as it lives."""
        seq = mail.job.seq
        self._outcomes[seq, mail.attempt] = outcome
        self._told.add((process, seq, mail.attempt))
        if isinstance(outcome, Accepted):
            self._known_accepted[process, seq] = (mail.attempt, max(self._attempts(seq), default=0))

    def process_died(self, process: str) -> None:
        """What only it knew is lost."""
        self._told = {key for key in self._told if key[0] != process}
        self._known_accepted = {key: known for key, known in self._known_accepted.items() if key[0] != process}

    # A mail's content leaves

    def content_leaves(self, process: str, mail: Mail, *, is_taken: bool) -> None:
        """Whether this mail may go, by what stood in the journal when its intent was written."""
        life = self.lives[mail.job.seq]
        attempts = self._attempts(life.seq)
        what = f"{life.guarantee} {life.job_id} attempt {mail.attempt} by {process}, journal {list(attempts.values())}"
        intent = attempts.get(mail.attempt)
        assert intent is not None, f"content left before its intent was committed: {what}"
        assert intent.state == "sending", f"content left under an attempt that has ended: {what}"
        row = self._rows()[life.seq]
        # A job in doubt may be in the hands of a worker that does not know that it lost it.
        is_open = row.status in ("pending", "in_doubt")
        assert is_open or intent.started < row.updated, f"a job that has ended was sent: {row}, {what}"
        accepted, newest = self._known_accepted.get((process, life.seq), (0, mail.attempt))
        assert mail.attempt <= newest or accepted < life.first_attempt(mail.attempt), (
            f"sent again by the process that knew it accepted: {what}"
        )
        for earlier in attempts.values():
            if life.first_attempt(mail.attempt) <= earlier.attempt < mail.attempt:
                is_known = (process, life.seq, earlier.attempt) in self._told or earlier.attempt <= row.attempt_no
                if not _is_overtaken(earlier, intent, attempts.values()):
                    self._judge(life, earlier, intent, what, is_known=is_known)
        if is_taken:
            life.taken.append(mail.attempt)
            self._check_repeats(life, what)

    def _judge(self, life: Life, earlier: Attempt, intent: Attempt, what: str, *, is_known: bool) -> None:
        """Whether an earlier attempt allows this intent. `is_known`: its process lives, or has settled it."""
        if earlier.state == "accepted":
            assert (earlier.finished or 0.0) > intent.started, f"sent again after the journal had it accepted: {what}"
        outcome = self._outcomes.get((life.seq, earlier.attempt))
        if earlier.state not in OPEN or (is_known and isinstance(outcome, Failed | Refused)):
            return
        assert life.guarantee != "at_most_once", f"sent again out of a doubt: {what}"
        if life.guarantee == "effectively_once":
            waited = intent.started - earlier.started
            assert waited >= DOUBT_SECONDS, f"sent again after {waited:.1f} s of doubt: {what}"

    def _check_repeats(self, life: Life, what: str) -> None:
        first = life.first_attempt(life.taken[-1])
        repeats = sum(life.first_attempt(attempt) == first for attempt in life.taken)
        most = 1 if life.guarantee == "at_most_once" else 1 + life.most_retries
        assert repeats <= most, f"taken {repeats} times, {most} at most: {what}"

    # After each step

    def check(self) -> None:
        """Look at every job."""
        difference = self._db.execute("SELECT * FROM email_books_difference()").fetchall()
        assert difference == [], f"the books do not balance: {difference}"
        assert self._in_books() == len(self.lives), "each job is in exactly one status"
        rows = self._rows()
        for life in self.lives.values():
            before, life.row = life.row, rows[life.seq]
            self._check_step(life, before)
            life.attempts = self._attempts(life.seq)

    def _check_step(self, life: Life, before: Row) -> None:
        row, known = life.row, life.present()
        what = f"{life.guarantee} {life.job_id}, was {before}, is {row}, journal {known}"
        assert row.attempt_no >= before.attempt_no, f"attempt_no shrank: {what}"
        assert row.retry_count <= life.most_retries, f"more than {life.most_retries} retries: {what}"
        if row.status == "sent":
            assert life.taken, f"sent, and the provider never took it: {what}"
        if known and known[-1].state == "accepted" and known[-1].attempt > before.attempt_no:
            assert row.status not in ENDED_UNSENT, f"ended unsent although the journal had it accepted: {what}"

    def check_late_outcomes_applied(self) -> None:
        """After the periodic task: no doubt is left where the journal has the answer."""
        self.check()
        for life in self.lives.values():
            if life.row.status == "in_doubt":
                known = life.present()
                assert all(attempt.state != "accepted" for attempt in known), (
                    f"{life.guarantee} {life.job_id} stays in doubt although the journal has it accepted: {known}"
                )

    def statuses(self) -> Mapping[str, str]:
        """Each job's status now."""
        rows = self._rows()
        return {life.job_id: rows[life.seq].status for life in self.lives.values()}

    def times_taken(self, job_id: str) -> int:
        """How often the provider took a job's mail."""
        return len(self._life(job_id).taken)

    # Reading

    def _life(self, job_id: str) -> Life:
        return next(life for life in self.lives.values() if life.job_id == job_id)

    def _rows(self) -> dict[int, Row]:
        rows = self._db.execute(
            "SELECT seq, status::text, attempt_no, retry_count, extract(EPOCH FROM updated_at)::float FROM email_jobs"
        ).fetchall()
        return {seq: Row(*rest) for seq, *rest in rows}

    def _attempts(self, seq: int) -> dict[int, Attempt]:
        rows = self._db.execute(
            "SELECT attempt, state::text, extract(EPOCH FROM started_at)::float,"
            " extract(EPOCH FROM finished_at)::float FROM email_attempts WHERE seq = %s ORDER BY attempt",
            (seq,),
        ).fetchall()
        return {row[0]: Attempt(*row) for row in rows}

    def _in_books(self) -> int:
        row = self._db.execute(
            "SELECT coalesce(sum(pending + sent + dead + cancelled + suppressed + expired + in_doubt), 0)::int"
            " FROM email_books"
        ).fetchone()
        assert row is not None
        return int(row[0])

    def apply_late_outcomes(self) -> None:
        """What the periodic task `tidy` does, and what must be so afterwards."""
        self._db.execute(query("apply_late_outcomes"))
        self.check_late_outcomes_applied()


def _is_overtaken(earlier: Attempt, intent: Attempt, attempts: Iterable[Attempt]) -> bool:
    """Whether the doubt about an attempt was decided by a resend before its answer came: that decision stands."""
    return any(
        earlier.attempt < resend.attempt < intent.attempt and resend.started < (earlier.finished or 0.0)
        for resend in attempts
    )
