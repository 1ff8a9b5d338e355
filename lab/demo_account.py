"""The account of a demo: what became of every job, by the database's word and by the catcher's own ledger.

Pure: it compares the two, and finds what the kill cost. `problems` is empty when every job is accounted for.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.demo_state import JobRow, Record
from lab.sink_process import LedgerEntry

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Latency:
    """From due to taken by the mail server, in milliseconds."""

    label: str
    mails: int
    p50: float
    p99: float


@dataclass
class Kill:
    """What a killed worker left behind, and what became of it: lists of job_ids."""

    worker: str
    in_hand: list[str] = field(default_factory=list)
    by_journal: list[str] = field(default_factory=list)
    arrived_twice: list[str] = field(default_factory=list)
    sent_again_once: list[str] = field(default_factory=list)
    in_doubt: list[str] = field(default_factory=list)
    in_doubt_arrived: list[str] = field(default_factory=list)
    otherwise: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Account:
    """Everything that the summary tells."""

    by_status: dict[str, int]
    by_type: dict[str, Counter[str]]
    accepted: int
    differences: int
    arrived: int
    repeated: int
    seconds: float
    rate: float
    latencies: list[Latency]
    kill: Kill
    dead: dict[str, list[str]]
    interesting: str
    problems: list[str]


def make_account(
    record: Record, ledger: Sequence[LedgerEntry], files: int, enqueued: int, worker: str, killed_at: float
) -> Account:
    """The account. `files` is how many mails lie in the folder, `killed_at` the database's clock after the kill."""
    arrivals = arrivals_by_job(ledger)
    kill = _account_of_kill(record, arrivals, worker, killed_at)
    times = [entry.time for entry in ledger]
    seconds = max(times) - min(times) if times else 0.0
    by_type: dict[str, Counter[str]] = {}
    dead: dict[str, list[str]] = {}
    for job in record.jobs:
        by_type.setdefault(job.type, Counter())[job.status] += 1
        if job.status == "dead":
            dead.setdefault(_reason(job), []).append(job.job_id)
    return Account(
        by_status=dict(Counter(job.status for job in record.jobs).most_common()),
        by_type=by_type,
        accepted=record.books_accepted,
        differences=len(record.differences),
        arrived=len(ledger),
        repeated=sum(len(moments) - 1 for moments in arrivals.values()),
        seconds=seconds,
        rate=len(ledger) / seconds if seconds else 0.0,
        latencies=_latencies(record, arrivals, {*kill.in_hand, *kill.by_journal}),
        kill=kill,
        dead=dict(sorted(dead.items(), key=lambda group: -len(group[1]))),
        interesting=_interesting(record, kill),
        problems=_problems(record, arrivals, files, enqueued),
    )


def _reason(job: JobRow) -> str:
    reason = job.error or "(no reason)"
    return (
        f"{reason} (after {job.retry_count} {'retry' if job.retry_count == 1 else 'retries'})"
        if job.retry_count
        else reason
    )


def arrivals_by_job(ledger: Iterable[LedgerEntry]) -> dict[str, list[float]]:
    """When the catcher took each job's mail, by email_jobs.id."""
    arrivals: dict[str, list[float]] = {}
    for entry in ledger:
        arrivals.setdefault(entry.job_id, []).append(entry.time)
    return arrivals


def _account_of_kill(record: Record, arrivals: dict[str, list[float]], worker: str, killed_at: float) -> Kill:
    """Whose journal rows the dead worker left, and their jobs' ends. Its `sending` rows stay as they are for good."""
    kill = Kill(worker)
    jobs = {job.seq: job for job in record.jobs}
    for attempt in record.attempts:
        job = jobs.get(attempt.seq)
        if job is None or attempt.worker != worker:
            continue
        if attempt.state == "sending":
            kill.in_hand.append(job.job_id)
            _end_of(job, len(arrivals.get(job.id, ())), kill)
        elif attempt.state == "accepted" and job.sent_at is not None and job.sent_at > killed_at:
            # The worker cannot have settled it itself any more: another one did, by the journal.
            kill.by_journal.append(job.job_id)
    return kill


def _end_of(job: JobRow, arrived: int, kill: Kill) -> None:
    """Sort a mail that was in the dead worker's hands by what became of it."""
    if job.status == "sent" and arrived > 1:
        kill.arrived_twice.append(job.job_id)
    elif job.status == "sent":
        kill.sent_again_once.append(job.job_id)
    elif job.status == "in_doubt":
        kill.in_doubt.append(job.job_id)
        if arrived:
            kill.in_doubt_arrived.append(job.job_id)
    else:
        kill.otherwise.append(job.job_id)


def _latencies(record: Record, arrivals: dict[str, list[float]], touched: set[str]) -> list[Latency]:
    """For mails that went at the first try, the urgent ones apart; then for those that the kill touched."""
    plain = [job for job in record.jobs if job.status == "sent" and job.retry_count == 0 and job.job_id not in touched]
    daily = [job for job in plain if job.queue == "transactional"]
    groups = {
        "critical": [job for job in daily if job.priority == "critical"],
        "other transactional": [job for job in daily if job.priority != "critical"],
        "campaigns": [job for job in plain if job.queue == "bulk"],
        "touched by the kill": [job for job in record.jobs if job.job_id in touched and job.status == "sent"],
    }
    return [
        Latency(label, len(waits), percentile(waits, 0.50), percentile(waits, 0.99))
        for label, jobs in groups.items()
        if (waits := [(arrivals[job.id][-1] - job.due_at) * 1000 for job in jobs if job.id in arrivals])
    ]


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 100) // 100) - 1)]


def _interesting(record: Record, kill: Kill) -> str:
    """A mail worth telling of: touched by the kill and waited for evidence, or retried, or any."""
    patient = {job.job_id for job in record.jobs if job.guarantee == "effectively_once"}
    retried = [job.job_id for job in record.jobs if job.status == "sent" and job.retry_count]
    candidates = [
        *(job_id for job_id in kill.arrived_twice if job_id in patient),
        *(job_id for job_id in kill.sent_again_once if job_id in patient),
        *kill.arrived_twice,
        *kill.sent_again_once,
        *retried,
        *(job.job_id for job in record.jobs),
    ]
    return candidates[0]


def _problems(record: Record, arrivals: dict[str, list[float]], files: int, enqueued: int) -> list[str]:
    """What does not add up, in words."""
    jobs = {job.id: job for job in record.jobs}
    # A mail may arrive more than once only if the journal has an open question about it.
    questions = {attempt.seq for attempt in record.attempts if attempt.state in ("sending", "unknown")}
    arrived = sum(map(len, arrivals.values()))
    groups = {
        "not in a final status": [job for job in jobs.values() if job.status == "pending"],
        "sent, but not in the catcher's ledger": [
            job for job in jobs.values() if job.status == "sent" and job.id not in arrivals
        ],
        "in the catcher's ledger, but neither sent nor in doubt": [
            jobs[id] for id in arrivals if id in jobs and jobs[id].status not in ("sent", "in_doubt")
        ],
        "arrived more than once without an open question in the journal": [
            job for id, job in jobs.items() if len(arrivals.get(id, ())) > 1 and job.seq not in questions
        ],
        "at_most_once, and arrived more than once": [
            job for id, job in jobs.items() if len(arrivals.get(id, ())) > 1 and job.guarantee == "at_most_once"
        ],
    }
    problems = [f"{len(found):,} jobs {what}: {_names(found)}" for what, found in groups.items() if found]
    if len(jobs) != enqueued:
        problems.append(f"{enqueued:,} jobs were to be enqueued, and the table has {len(jobs):,}")
    if not record.books_accepted == record.books_sum == len(jobs):
        problems.append(
            f"the books differ: {record.books_accepted:,} accepted, {record.books_sum:,} by status, {len(jobs):,} rows"
        )
    if record.differences:
        problems.append(f"email_books_difference() has {len(record.differences):,} jobs: {record.differences[0]}, …")
    if unknown := [id for id in arrivals if id not in jobs]:
        problems.append(f"{len(unknown):,} mails of no job arrived: X-Job-Id {unknown[0]}, …")
    if files != arrived:
        problems.append(f"the catcher's ledger has {arrived:,} mails, its folder {files:,}")
    return problems


def _names(jobs: Sequence[JobRow]) -> str:
    names = ", ".join(job.job_id for job in jobs[:NAMES_SHOWN])
    return names + (", …" if len(jobs) > NAMES_SHOWN else "")
