"""The summary that the demo ends with, as lines of text."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from lab.demo_account import Account, Kill
from lab.demo_ink import Ink, pad, width
from lab.demo_jobs import BUSY, FULL, GONE
from lab.demo_screen import STANDINGS
from lab.demo_stage import CONNECTIONS, REPLY_DELAY_SECONDS
from lab.demo_state import TimelineRow

LABELS = 14
TYPE_COLUMNS = 3
REASON_LINES = 2
LATENCY_NOTES = {"campaigns": "many at once, in their turn", "touched by the kill": "some wait for evidence"}


class Report:
    """Writes the parts of the summary; each is a list of lines."""

    def __init__(self, ink: Ink, account: Account) -> None:
        self._ink = ink
        self._account = account
        self._wide = width()

    def lines(self, story: Sequence[tuple[float, str]], life: Sequence[TimelineRow], folder: Path) -> list[str]:
        """The whole summary."""
        return [
            *self._heading(),
            *self._section("What happened", [f"{seconds:6.1f} s  {text}" for seconds, text in story]),
            *self._section("What became of the jobs", self._statuses()),
            *self._section("By type", self._types()),
            *self._section("Speed", self._speed()),
            *self._section("The kill", self._kill(self._account.kill)),
            *self._section("Dead letters", self._dead()),
            *self._section(f"The life of one mail, {self._account.interesting}", self._life(life)),
            *self._section("To look at", self._places(folder)),
            *self._verdict(),
        ]

    def _heading(self) -> list[str]:
        return ["", f"  {self._ink.rule(self._wide - 4)}"]

    def _section(self, title: str, lines: Iterable[str]) -> list[str]:
        return ["", f"  {self._ink.paint(title, 'bold')}", *(f"    {line}".rstrip() for line in lines)]

    def _wrapped(self, text: str, indent: str = "") -> list[str]:
        return textwrap.wrap(text, self._wide - 6, subsequent_indent=indent, break_on_hyphens=False)

    def _statuses(self) -> list[str]:
        account, ink = self._account, self._ink
        lines = []
        for status, number in account.by_status.items():
            colour, words = STANDINGS.get(status, ("yellow", ""))
            bar = ink.bar(number, account.accepted, 24, colour)
            label = status.replace("_", " ")
            lines.append(f"{label:{LABELS}}{number:6,}  {bar}  {ink.paint(words, 'dim')}".rstrip())
        balance = "= the sum, and the events agree: email_books_difference() is empty"
        if account.differences or account.accepted != sum(account.by_status.values()):
            balance = "does not balance, see below"
        lines.append(f"{'accepted':{LABELS}}{account.accepted:6,}  {ink.paint(balance, 'dim')}")
        return lines

    def _types(self) -> list[str]:
        """Name and number in three columns; what was not sent is in the statuses above."""
        cells = [f"{name:22}{counts.total():4,}" for name, counts in sorted(self._account.by_type.items())]
        rows = -(-len(cells) // TYPE_COLUMNS)
        columns = [cells[start : start + rows] for start in range(0, len(cells), rows)]
        return ["   ".join(row) for row in zip_longest(*columns, fillvalue="")]

    def _speed(self) -> list[str]:
        account = self._account
        brakes = (
            f"{account.arrived:,} mails in {account.seconds:.1f} s: {account.rate:.0f} mails/s. The demo has its "
            f"brakes on, to be watched: {CONNECTIONS} connections a worker, and a catcher that answers after "
            f"{REPLY_DELAY_SECONDS * 1000:.0f} ms."
        )
        lines = [*self._wrapped(brakes), "", f"{'from due to taken':22}{'mails':>6}{'p50':>12}{'p99':>12}"]
        for latency in account.latencies:
            note = self._ink.paint(LATENCY_NOTES.get(latency.label, ""), "dim")
            figures = f"{latency.label:22}{latency.mails:6,}{latency.p50:9,.0f} ms{latency.p99:9,.0f} ms"
            lines.append(f"{figures}   {note}".rstrip())
        return lines

    def _kill(self, kill: Kill) -> list[str]:
        held = len(kill.in_hand)
        if not kill.worker:
            return ["no worker was killed before the time was over"]
        doubt = f"in doubt: at_most_once, never sent again by itself ({len(kill.in_doubt_arrived)} of them did arrive)"
        ends = [
            (len(kill.arrived_twice), "sent again, and there twice: with one Message-ID, so that anybody can tell"),
            (len(kill.sent_again_once), "sent again, and there once: the first try had not arrived"),
            (len(kill.in_doubt), doubt),
            (len(kill.otherwise), "with another end, such as a refusal at the second try"),
        ]
        elsewhere = self._account.repeated - len(kill.arrived_twice)
        return [
            f"{held:4}  mails in the hands of {kill.worker}: handed over, the answer not yet recorded. Of these",
            *(f"{number:10}  {words}" for number, words in ends if number),
            f"{len(kill.by_journal):4}  more settled as sent, because its journal says so, without sending again",
            f"{elsewhere:4}  mails repeated apart from these",
        ]

    def _dead(self) -> list[str]:
        lines: list[str] = []
        for reason, jobs in self._account.dead.items():
            for number, part in enumerate(self._wrapped(reason)[:REASON_LINES]):
                lines.append(f"{len(jobs):4}  {part}" if number == 0 else f"      {part}")
        lines.append(self._ink.paint(f"the catcher refuses *@{GONE} for good, *@{FULL} always, *@{BUSY} once", "dim"))
        return lines

    def _life(self, life: Sequence[TimelineRow]) -> list[str]:
        if not life:
            return []
        lines = []
        for row in life:
            after = (row.at - life[0].at).total_seconds()
            attempt = f"attempt {row.attempt}" if row.attempt is not None else ""
            start = f"+{after:7.3f} s  {row.what:15} {attempt:10} "
            room = self._wide - 6 - len(start)
            details = textwrap.wrap(row.detail or "", room) or [""]
            lines.append((start + details[0]).rstrip())
            lines.extend(" " * len(start) + more for more in details[1:])
        return lines

    def _places(self, folder: Path) -> list[str]:
        rows = {
            "index.html": "open it in a browser: a mail of each type, and the list of all",
            "mails/": f"{self._account.arrived:,} .eml files, as they came over the wire",
            "logs/": "the workers' logs, and the catcher's ledger",
        }
        return [f"{pad(f'{folder}/{name}', 28)}  {self._ink.paint(words, 'dim')}" for name, words in rows.items()]

    def _verdict(self) -> list[str]:
        ink, account = self._ink, self._account
        if not account.problems:
            sign = ink.paint(ink.mark("✓", "OK:"), "green", "bold")
            return [
                "",
                f"  {sign} {ink.paint(f'Every one of the {account.accepted:,} jobs is accounted for.', 'bold')}",
                "",
            ]
        sign = ink.paint(ink.mark("✗", "FAILED:"), "red", "bold")
        lines = ["", f"  {sign} {ink.paint('Not every job is accounted for.', 'bold')}"]
        for problem in account.problems:
            wrapped = self._wrapped(problem, "  ")
            lines.extend(f"    {part}" for part in wrapped)
        return [*lines, ""]
