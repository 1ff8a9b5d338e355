"""The demo: two thousand mails, two workers, one of them killed in the middle, and an account of every mail.

Run it: `python -m lab.demo` (or `make demo`). It needs nothing but the development dependencies: it starts its own
Postgres and its own mail catcher, and takes them away again. What it made lies in ./demo-mails/ afterwards.
It exits with 0 when every job is accounted for, with 1 when one is not or the demo failed, with 130 after Ctrl-C.
"""

import argparse
import signal
import sys
import time
from collections import Counter, deque
from pathlib import Path
from types import FrameType

from lab import demo_state
from lab.demo_account import Account, make_account
from lab.demo_gallery import write_gallery
from lab.demo_ink import ink_for, mails, write_replacing
from lab.demo_jobs import Call, Plan, make_plan
from lab.demo_report import Report
from lab.demo_screen import Progress, Screen
from lab.demo_stage import DemoFailedError, Stage
from lab.demo_state import Moment
from lab.postgres import PostgresFailedError

FOLDER = Path("demo-mails")
TICK_SECONDS = 0.05
# Transactional mail that waits: beyond that, a slow machine would have nothing left for the campaigns.
MOST_WAITING = 25
START_SECONDS = 20.0
# Whatever is not done by then is told as it stands.
SHOW_SECONDS = 45.0

CANCEL_AT_SECONDS = 1.0
KILL_AT_SHARE = 0.5
# A good moment to kill has both kinds of mail in hand; a later one will do.
GOOD_HAND = 4
PATIENCE_SECONDS = 3.0
REPLACE_AFTER_SECONDS = 1.0
SESSIONS_END_SECONDS = 5.0


class Show:
    """The time in which the workers work: what happens when, told to the screen."""

    def __init__(self, stage: Stage, screen: Screen, plan: Plan) -> None:
        self._stage = stage
        self._screen = screen
        self._plan = plan
        self._calls = deque(plan.calls)
        self._moment = Moment({}, {})
        self._has_worked: set[str] = set()
        self._is_cancelled = False
        self._is_replaced = False
        self._half_at: float | None = None
        self._killed_at_second = 0.0
        self.killed_at = 0.0

    def run(self) -> None:
        """Play until every job has its end, or the time is over."""
        while self._screen.seconds < SHOW_SECONDS:
            self._feed()
            self._moment = demo_state.look(self._stage.db)
            self._act(self._moment)
            self._stage.check_workers()
            self._screen.show(self._progress())
            if self._is_replaced and not self._calls and not self._moment.pending:
                self._screen.say("every job has come to its end")
                return
            time.sleep(TICK_SECONDS)
        self._screen.say(f"time is over after {SHOW_SECONDS:g} s")

    def _progress(self) -> Progress:
        self._has_worked |= self._moment.in_hand.keys()
        workers = {name: "works" if name in self._has_worked else "starts" for name in self._stage.workers}
        if self._stage.killed:
            workers[self._stage.killed] = "killed"
        arrived = self._stage.sink.counts().accepted
        return Progress(self._screen.seconds, self._moment, self._plan.jobs, arrived, workers)

    def _feed(self) -> None:
        """Enqueue what producers have enqueued by now; on a slow machine they are slower too."""
        is_first = len(self._calls) == len(self._plan.calls)
        is_free = is_first or not self._moment.waiting("bulk")
        room = len(self._calls) if is_free else MOST_WAITING - self._moment.waiting("transactional")
        due: list[Call] = []
        while self._calls and self._calls[0].at <= self._screen.seconds and len(due) < room:
            due.append(self._calls.popleft())
        demo_state.enqueue(self._stage.db, due)
        if is_first:
            self._screen.say(
                f"{len(due):,} jobs enqueued, most of them campaigns; the others follow while they are sent"
            )
        elif due and not self._calls:
            self._screen.say(
                f"all {self._plan.jobs:,} jobs enqueued, {self._plan.repeated_calls} of them twice: a row each"
            )

    def _act(self, moment: Moment) -> None:
        """What is due in the play."""
        seconds = self._screen.seconds
        if not self._is_cancelled and seconds > CANCEL_AT_SECONDS:
            self._is_cancelled = True
            said = demo_state.cancel(self._stage.db, self._plan.cancelled)
            self._screen.say(f"email_cancel('{self._plan.cancelled}') says: {said}")
        if self._stage.killed is None and moment.ended >= self._plan.jobs * KILL_AT_SHARE:
            self._half_at = seconds if self._half_at is None else self._half_at
            victim = choose_victim(moment, tuple(self._stage.workers), seconds - self._half_at > PATIENCE_SECONDS)
            if victim is not None:
                self._kill(victim)
        if self._stage.killed and not self._is_replaced and seconds - self._killed_at_second > REPLACE_AFTER_SECONDS:
            self._is_replaced = True
            self._screen.say(f"{self._stage.start_worker()} started in its place")

    def _kill(self, victim: str) -> None:
        db = self._stage.db
        self._stage.kill_worker(victim)
        self._killed_at_second = self._screen.seconds
        give_up_at = time.monotonic() + SESSIONS_END_SECONDS
        while demo_state.sessions_of(db, victim) and time.monotonic() < give_up_at:
            time.sleep(0.002)
        self.killed_at = demo_state.now(db)
        held = demo_state.left_by(db, victim)
        self._screen.say(f"{victim} killed with SIGKILL, {held} {mails(held)} in its hands")


def choose_victim(moment: Moment, workers: tuple[str, ...], is_late: bool) -> str | None:
    """A worker with much of both in its hands, marketing and what waits for evidence; when it is late, the best."""
    hands = {name: moment.in_hand.get(name, Counter()) for name in workers}

    def worth(name: str) -> tuple[int, int]:
        return min(hands[name]["at_most_once"], hands[name]["effectively_once"]), hands[name].total()

    best = max(workers, key=worth)
    return best if is_late or worth(best)[0] >= GOOD_HAND else None


def prepare(stage: Stage, screen: Screen) -> None:
    """Start everything, and wait until the workers are ready."""
    screen.open("The email worker: 2,000 mails, two workers, one of them killed in the middle")
    stage.folders.empty()
    with screen.step("PostgreSQL starts") as outcome:
        outcome.append(f"PostgreSQL {stage.start_postgres()} runs, with the schema applied")
    with screen.step("a mail catcher starts") as outcome:
        outcome.append(f"a mail catcher listens on 127.0.0.1:{stage.start_catcher()}")
    with screen.step("two workers start") as outcome:
        names = [stage.start_worker() for _ in range(2)]
        give_up_at = time.monotonic() + START_SECONDS
        while demo_state.running_workers(stage.db) < len(names):
            stage.check_workers()
            if time.monotonic() > give_up_at:
                raise DemoFailedError(f"no two workers within {START_SECONDS:g} s; see {stage.folders.logs}")
            time.sleep(TICK_SECONDS)
        outcome.append(f"{' and '.join(names)} wait for jobs")


def settle_up(stage: Stage, screen: Screen, plan: Plan, killed_at: float) -> Account:
    """Compare what the database says with what the catcher has."""
    record = demo_state.read_record(stage.db)
    ledger = stage.sink.ledger()
    files = sum(1 for _ in stage.folders.mails.glob("*.eml"))
    account = make_account(record, ledger, files, plan.jobs, stage.killed or "", killed_at)
    life = demo_state.timeline(stage.db, account.interesting)
    write_gallery(stage.folders, record, ledger, account)
    lines = Report(screen.ink, account).lines(screen.story, life, stage.folders.root)
    screen.end_live()
    print("\n".join(lines))
    return account


def run(folder: Path) -> int:
    """The demo; returns the exit status."""
    plan = make_plan()
    with Screen(ink_for(sys.stdout)) as screen, Stage(folder) as stage:
        prepare(stage, screen)
        screen.begin_live()
        show = Show(stage, screen, plan)
        show.run()
        stage.stop_workers()
        account = settle_up(stage, screen, plan, show.killed_at)
    return 1 if account.problems else 0


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m lab.demo", description=__doc__.partition("\n")[0])
    parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    write_replacing()
    try:
        status = run(FOLDER)
    except KeyboardInterrupt:
        print("\n  stopped; everything that the demo started is gone")
        status = 130
    except (DemoFailedError, PostgresFailedError) as error:
        print(f"\n  the demo failed: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
