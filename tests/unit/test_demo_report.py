"""The demo's summary: readable on every terminal, whatever became of the jobs."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.demo_account import Account, Kill, Latency
from lab.demo_ink import Ink, clip, mails, visible, width
from lab.demo_report import Report
from lab.demo_state import TimelineRow

PAPER = Ink(is_terminal=False, has_colours=False, has_blocks=False)
SCREEN = Ink(is_terminal=True, has_colours=True, has_blocks=True)
NAMES = [f"job-{number}" for number in range(12)]
STORY = [(0.4, "1,401 jobs enqueued, most of them campaigns; the others follow while they are sent")]
LIFE = [
    TimelineRow(datetime(2026, 1, 1, tzinfo=UTC), "handed over", 1, "smtp", "primary smtp by worker-1; no answer came"),
    TimelineRow(datetime(2026, 1, 1, tzinfo=UTC), "sent", None, "smtp", None),
]
ACCOUNT = Account(
    by_status={"sent": 1960, "dead": 28, "in_doubt": 10, "pending": 1, "suppressed": 1},
    by_type={f"type-{letter}-confirmation": Counter(sent=1234) for letter in "abcdefghijklmno"},
    accepted=2000,
    differences=0,
    arrived=1964,
    repeated=14,
    seconds=13.9,
    rate=1.2,
    latencies=[Latency(name, 1255, 5696.0, 11079.0) for name in ("campaigns", "touched by the kill")],
    kill=Kill("worker-1", NAMES, NAMES, NAMES, NAMES, NAMES, NAMES, NAMES),
    dead={"refused for a reason that takes many words to be told, " * 5: NAMES, "550 no such mailbox": NAMES},
    interesting=NAMES[0],
    problems=["12 jobs arrived more than once without an open question: " + ", ".join(NAMES)],
)


def summary(ink: Ink) -> list[str]:
    """The lines of a whole report."""
    return Report(ink, ACCOUNT).lines(STORY, LIFE, Path("demo-mails"))


@pytest.mark.parametrize("columns", [80, 81, 100, 300])
@pytest.mark.parametrize("ink", [PAPER, SCREEN])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, ink: Ink, columns: int) -> None:
    """The terminal would break it in the middle of a word."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert width() < columns
    assert [line for line in summary(ink) if visible(line) > width()] == []


def test_a_long_reason_ends_in_an_ellipsis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lines of a reason are enough; that it went on is seen."""
    monkeypatch.setenv("COLUMNS", "80")
    lines = summary(SCREEN)
    (first,) = [number for number, line in enumerate(lines) if line.startswith("      12  refused")]
    assert lines[first + 1].endswith(" …")
    assert "550 no such mailbox" in lines[first + 2]


def test_one_mail_is_one_mail() -> None:
    """The word is that of the number as it is shown."""
    words = {number: mails(number) for number in (0, 0.4, 1, 1.2, 1.6, 1960)}
    assert [number for number, word in words.items() if word == "mail"] == [1, 1.2]
    assert any("1 mail/s" in line for line in summary(PAPER))


@pytest.mark.parametrize("styles", [(), ("green", "bold")])
def test_what_is_clipped_shows_it(styles: tuple[str, ...]) -> None:
    """The ellipsis is within the width, and colours are closed before it."""
    line = "name  " + SCREEN.paint("twenty characters ..", *styles)
    assert clip(line, 26, "…") == line
    assert visible(clip(line, 25, "…")) == 25
    assert clip(line, 25, "…").endswith("\x1b[0m…" if styles else "s …")
