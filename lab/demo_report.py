"""The summary that the demo ends with, as lines of text."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain, repeat, zip_longest
from pathlib import Path

from lab.demo_account import Account, Kill
from lab.demo_ink import Ink, mails, visible, width
from lab.demo_jobs import BUSY, FULL, GONE
from lab.demo_screen import STANDINGS
from lab.demo_stage import CONNECTIONS, REPLY_DELAY_SECONDS
from lab.demo_state import TimelineRow

# Lines of a section are this far in, and end so far from the right.
INDENT, MARGIN = 4, 2
LABELS = 11
BAR, WIDEST_BAR = 8, 24
TYPE_NAMES, TYPE_GAP = 22, 3
REASON_LINES = 2
LATENCY_LABELS = 20
LATENCY_NOTES = {"campaigns": "many, in their turn", "touched by the kill": "some wait for evidence"}


class Report:
    """Writes the parts of the summary; each is a list of lines."""

    def __init__(self, ink: Ink, account: Account) -> None:
        self._ink = ink
        self._account = account
        self._wide = width()
        self._room = self._wide - INDENT - MARGIN

    def lines(self, story: Sequence[tuple[float, str]], life: Sequence[TimelineRow], folder: Path) -> list[str]:
        """The whole summary."""
        return [
            *self._heading(),
            *self._section("What happened", self._story(story)),
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
        return ["", f"  {self._ink.paint(title, 'bold')}", *(f"{'':{INDENT}}{line}".rstrip() for line in lines)]

    def _wrapped(self, text: str, *styles: str, start: str = "", most: int | None = None) -> list[str]:
        """Words behind a start; what does not fit goes on below the first of them, for so many lines at most."""
        taken, more = visible(start), self._ink.mark(" …", " ...")
        parts = textwrap.wrap(text, self._room - taken, break_on_hyphens=False, max_lines=most, placeholder=more)
        starts = chain([start], repeat(" " * taken))
        return [before + self._ink.paint(part, *styles) for before, part in zip(starts, parts or [""], strict=False)]

    def _story(self, story: Sequence[tuple[float, str]]) -> list[str]:
        return [line for seconds, text in story for line in self._wrapped(text, start=f"{seconds:6.1f} s  ")]

    def _statuses(self) -> list[str]:
        account, ink = self._account, self._ink
        longest = max(len(words) for _, words in STANDINGS.values())
        columns = max(BAR, min(WIDEST_BAR, self._room - LABELS - 10 - longest))
        lines = []
        for status, number in account.by_status.items():
            colour, words = STANDINGS.get(status, ("yellow", ""))
            bar = ink.bar(number, account.accepted, columns, colour)
            label = status.replace("_", " ")
            lines += self._wrapped(words, "dim", start=f"{label:{LABELS}}{number:6,}  {bar}  ")
        balance = "= the sum, and the events agree: email_books_difference() is empty"
        if account.differences or account.accepted != sum(account.by_status.values()):
            balance = "does not balance, see below"
        return lines + self._wrapped(balance, "dim", start=f"{'accepted':{LABELS}}{account.accepted:6,}  ")

    def _types(self) -> list[str]:
        """Name and number, in as many columns as there is room for; what was not sent is in the statuses above."""
        cells = [f"{name:{TYPE_NAMES}}{counts.total():4,}" for name, counts in sorted(self._account.by_type.items())]
        columns = max(1, (self._room + TYPE_GAP) // (TYPE_NAMES + 4 + TYPE_GAP))
        rows = max(1, -(-len(cells) // columns))
        parts = [cells[start : start + rows] for start in range(0, len(cells), rows)]
        return [(" " * TYPE_GAP).join(row) for row in zip_longest(*parts, fillvalue="")]

    def _speed(self) -> list[str]:
        account = self._account
        brakes = (
            f"{account.arrived:,} mails in {account.seconds:.1f} s: {account.rate:.0f} {mails(account.rate)}/s. "
            f"The demo has its brakes on, to be watched: {CONNECTIONS} connections a worker, and a catcher that "
            f"answers after {REPLY_DELAY_SECONDS * 1000:.0f} ms."
        )
        what = "From due to taken, at the first try; then those that the kill touched:"
        heads = f"{'':{LATENCY_LABELS}}{'mails':>6}{'p50':>11}{'p99':>11}"
        lines = [*self._wrapped(brakes), "", *self._wrapped(what), heads]
        for latency in account.latencies:
            figures = f"{latency.mails:6,}{latency.p50:8,.0f} ms{latency.p99:8,.0f} ms"
            note = LATENCY_NOTES.get(latency.label, "")
            lines += self._wrapped(note, "dim", start=f"{latency.label:{LATENCY_LABELS}}{figures}   ")
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
        hands = f"{mails(held)} in the hands of {kill.worker}: handed over, the answer not yet recorded. Of these"
        rows = [
            (f"{held:4}  ", hands),
            *((f"{number:10}  ", words) for number, words in ends if number),
            (f"{len(kill.by_journal):4}  ", "more settled as sent, because its journal says so, without sending again"),
            (f"{elsewhere:4}  ", f"{mails(elsewhere)} repeated apart from these"),
        ]
        return [line for start, words in rows for line in self._wrapped(words, start=start)]

    def _dead(self) -> list[str]:
        lines: list[str] = []
        for reason, jobs in self._account.dead.items():
            lines += self._wrapped(reason, start=f"{len(jobs):4}  ", most=REASON_LINES)
        refused = f"the catcher refuses *@{GONE} for good, *@{FULL} always, *@{BUSY} once"
        return lines + self._wrapped(refused, "dim")

    def _life(self, life: Sequence[TimelineRow]) -> list[str]:
        if not life:
            return []
        lines = []
        for row in life:
            after = (row.at - life[0].at).total_seconds()
            attempt = f"attempt {row.attempt}" if row.attempt is not None else ""
            lines += self._wrapped(row.detail or "", start=f"+{after:7.3f} s  {row.what:15} {attempt:10} ")
        return lines

    def _places(self, folder: Path) -> list[str]:
        rows = {
            "index.html": "open it in a browser: a mail of each type, and the list of all",
            "mails/": f"{self._account.arrived:,} .eml files, as they came over the wire",
            "logs/": "the workers' logs, and the catcher's ledger",
        }
        places = [(f"{f'{folder}/{name}':24}", words) for name, words in rows.items()]
        return [line for place, words in places for line in self._wrapped(words, "dim", start=place)]

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
            lines.extend(f"{'':{INDENT}}{part}" for part in self._wrapped(problem, start="- "))
        return [*lines, ""]
