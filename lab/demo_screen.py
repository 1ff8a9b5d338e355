"""What a person sees while the demo runs: one redrawn block on a terminal, plain lines elsewhere.

Steps and events are told by `say`, which also keeps them: they are the story that the summary repeats.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from lab.demo_ink import Ink, clip, mails, pad, terminal_size, width
from lab.demo_state import Moment

EVENTS_SHOWN = 5
PLAIN_EVERY_SECONDS = 1.0
REDRAW_EVERY_SECONDS = 0.1
# The rate is that of the last second or so; the curve has one column for each half.
RATE_OVER_SECONDS = 1.2
CURVE_STEP_SECONDS = 0.5
CURVE_COLUMNS = 40

LABELS = 15
STANDINGS = {
    "sent": ("green", "the mail server took it"),
    "due": ("cyan", "waits for a worker"),
    "later": ("blue", "scheduled, a retry, or waiting for evidence"),
    "dead": ("red", "given up, with a reason"),
    "in_doubt": ("magenta", "may have arrived; never repeated by itself"),
    "expired": ("yellow", "too late to make sense"),
    "cancelled": ("yellow", "taken back before it was sent"),
}
# What is worth a line before the first of them is there.
ALWAYS_SHOWN = ("sent", "due", "later", "dead", "in_doubt")


@dataclass
class Progress:
    """What the screen is told at each look."""

    seconds: float
    moment: Moment
    jobs: int
    arrived: int
    workers: dict[str, str] = field(default_factory=dict)


class Pace:
    """Mails a second, from the catcher's counter."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._columns: dict[int, float] = {}

    def note(self, seconds: float, arrived: int) -> None:
        """The counter stood there then."""
        self._seen.append((seconds, arrived))
        while seconds - self._seen[0][0] > RATE_OVER_SECONDS and len(self._seen) > 2:
            self._seen.popleft()
        self._columns[int(seconds / CURVE_STEP_SECONDS)] = self.rate

    @property
    def rate(self) -> float:
        """Mails a second now."""
        (began, before), (now, arrived) = self._seen[0], self._seen[-1]
        return (arrived - before) / (now - began) if now > began else 0.0

    @property
    def curve(self) -> list[float]:
        """The rates so far, oldest first."""
        return list(self._columns.values())[-CURVE_COLUMNS:]


class Screen:
    """Standard output while the demo runs."""

    def __init__(self, ink: Ink) -> None:
        self.ink = ink
        self.story: list[tuple[float, str]] = []
        self._began = time.monotonic()
        self._pace = Pace()
        self._lines = 0
        self._due_at = 0.0
        self._is_live = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._lines = 0  # what was on the screen when it went wrong is worth keeping
        self.end_live()

    @property
    def seconds(self) -> float:
        """Since the clock began."""
        return time.monotonic() - self._began

    def begin_live(self) -> None:
        """The clock of the show begins; from now on what is said goes below the bars."""
        self._began = time.monotonic()
        self._is_live = True
        if self.ink.is_terminal:
            sys.stdout.write("\x1b[?25l")

    def end_live(self) -> None:
        """Take the block away, and give the cursor back."""
        if self._is_live and self.ink.is_terminal:
            self._erase()
            sys.stdout.write("\x1b[?25h")
            sys.stdout.flush()
        self._is_live = False

    def open(self, text: str) -> None:
        """What this is going to be."""
        print(f"\n  {self.ink.paint(text, 'bold')}\n", flush=True)

    @contextmanager
    def step(self, doing: str) -> Iterator[list[str]]:
        """A step of the preparations: a terminal shows it while it lasts. The caller appends what came of it."""
        outcome: list[str] = []
        if self.ink.is_terminal:
            sys.stdout.write(f"  {self.ink.mark('·', '.')} {self.ink.paint(f'{doing} …', 'dim')}")
            sys.stdout.flush()
        yield outcome
        clear = "\r\x1b[2K" if self.ink.is_terminal else ""
        sign = self.ink.paint(self.ink.mark("✓", "*"), "green")
        print(f"{clear}  {sign} {' '.join(outcome or [doing])}", flush=True)

    def say(self, text: str) -> None:
        """An event of the show."""
        self.story.append((self.seconds, text))
        if not self.ink.is_terminal:
            print(f"{self.seconds:6.1f} s  * {text}", flush=True)
        elif self._is_live:
            self._due_at = 0.0

    def show(self, progress: Progress) -> None:
        """Draw how things stand, when it is time to."""
        self._pace.note(progress.seconds, progress.arrived)
        pause = REDRAW_EVERY_SECONDS if self.ink.is_terminal else PLAIN_EVERY_SECONDS
        now = time.monotonic()
        if now < self._due_at:
            return
        # By a beat, not by the last time, which would come a little later each second.
        self._due_at = max(self._due_at, now - pause / 2) + pause
        if self.ink.is_terminal:
            self._redraw(self._block(progress))
        else:
            print(self._plain(progress), flush=True)

    def _erase(self) -> None:
        if self._lines:
            sys.stdout.write(f"\x1b[{self._lines}A\x1b[J")
        self._lines = 0

    def _redraw(self, lines: list[str]) -> None:
        columns, rows = terminal_size()
        lines = lines[: rows - 1]
        up = f"\x1b[{self._lines}A" if self._lines else ""
        ellipsis = self.ink.mark("…", "...")
        body = "".join(f"\x1b[2K{clip(line, columns - 1, ellipsis)}\n" for line in lines)
        sys.stdout.write(f"{up}{body}\x1b[J")
        sys.stdout.flush()
        self._lines = len(lines)

    def _plain(self, progress: Progress) -> str:
        standing = progress.moment.standing
        parts = [
            f"{standing[name]:,} {name.replace('_', ' ')}"
            for name in STANDINGS
            if standing[name] or name in ("sent", "due")
        ]
        hands = ", ".join(f"{name} {words}" for name, words in self._hands(progress))
        rate = self._pace.rate
        return f"{progress.seconds:6.1f} s  {', '.join(parts)}; {rate:.0f} {mails(rate)}/s; {hands}"

    def _block(self, progress: Progress) -> list[str]:
        ink, wide = self.ink, width()
        clock = f"{progress.seconds:.1f} s"
        lines = ["", f"  {ink.rule(wide - len(clock) - 5)} {clock}"]
        lines += [self._queue(progress.moment, queue, wide) for queue in progress.moment.by_queue]
        lines.append("")
        lines += self._standings(progress, wide)
        lines.append("")
        curve, rate = ink.paint(ink.sparkline(self._pace.curve), "green"), self._pace.rate
        lines.append(f"  {'pace':{LABELS}}{pad(curve, CURVE_COLUMNS)}{rate:7,.0f} {mails(rate)}/s")
        for name, words in self._hands(progress):
            sign = ink.mark("✗", "x") if words.startswith("killed") else ink.mark("●", "o")
            colour = "red" if words.startswith("killed") else "green"
            lines.append(f"  {name:{LABELS}}{ink.paint(sign, colour)} {words}")
        lines.append("")
        for seconds, text in self.story[-EVENTS_SHOWN:]:
            lines.append(f"  {ink.paint(f'{seconds:5.1f} s', 'dim')}  {text}")
        return lines

    def _queue(self, moment: Moment, queue: str, wide: int) -> str:
        counts = moment.by_queue[queue]
        ended = counts.total() - counts["due"] - counts["later"]
        bar = self.ink.bar(ended, counts.total(), wide - LABELS - 20, "green", track=True)
        return f"  {queue:{LABELS}}{bar} {ended:6,} of {counts.total():5,}"

    def _standings(self, progress: Progress, wide: int) -> list[str]:
        lines = []
        for name, (colour, words) in STANDINGS.items():
            number = progress.moment.standing[name]
            if number or name in ALWAYS_SHOWN:
                bar = self.ink.bar(number, progress.jobs, max(10, wide - LABELS - 57), colour)
                label = name.replace("_", " ")
                lines.append(f"  {label:{LABELS}}{bar} {number:6,}  {self.ink.paint(words, 'dim')}")
        return lines

    def _hands(self, progress: Progress) -> list[tuple[str, str]]:
        """Each worker, and in words what it does or what it left."""
        hands = []
        for name, state in progress.workers.items():
            hand = progress.moment.in_hand.get(name)
            held = hand.total() if hand else 0
            if state == "killed":
                hands.append(
                    (name, f"killed, {held} of its mails in question" if held else "killed, nothing left open")
                )
            else:
                hands.append((name, f"{held:2} in hand" if state == "works" else state))
        return hands
