"""Text for a person to look at, for the demo: colours, bars, sparklines, widths.

Colours only on a terminal, never with NO_COLOR or TERM=dumb; block characters only where the output can encode them.
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

# Of a terminal's columns the last stays free: writing there, some begin a new line. So 79 is a terminal of 80.
NARROWEST = 79
WIDEST = 95

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_EIGHTHS = " ▏▎▍▌▋▊▉"
_STEPS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Ink:
    """How this output can be written on."""

    is_terminal: bool
    has_colours: bool
    has_blocks: bool

    def paint(self, text: str, *styles: str) -> str:
        """The text in these styles, or as it is where there are no colours."""
        if not self.has_colours or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"

    def bar(self, value: float, whole: float, width: int, *styles: str, track: bool = False) -> str:
        """A bar `width` columns wide; something that is not nothing always shows."""
        share = min(1.0, value / whole) if whole else 0.0
        eighths = max(round(share * width * 8), 1 if value else 0)
        full, rest = divmod(eighths, 8)
        if self.has_blocks:
            drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
            left = ("·" if track else " ") * (width - len(drawn))
        else:
            drawn = "#" * (full + (rest > 3 or (not full and rest > 0)))
            left = ("." if track else " ") * (width - len(drawn))
        return self.paint(drawn, *styles) + (self.paint(left, "dim") if track else left)

    def sparkline(self, values: Sequence[float]) -> str:
        """One character a value, its height by the largest of them."""
        most = max(values, default=0.0)
        if not most or not self.has_blocks:
            return ""
        return "".join(_STEPS[min(7, int(value / most * 7.999))] for value in values)

    def rule(self, width: int) -> str:
        """A horizontal line."""
        return self.paint(("─" if self.has_blocks else "-") * width, "dim")

    def mark(self, blocks: str, plain: str) -> str:
        """A sign, or its plain stand-in."""
        return blocks if self.has_blocks else plain


def ink_for(stream: TextIO) -> Ink:
    """What this stream can show."""
    is_terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    encoding = (stream.encoding or "ascii").lower().replace("-", "")
    return Ink(is_terminal, is_terminal and not os.environ.get("NO_COLOR"), encoding.startswith("utf"))


def width() -> int:
    """Columns to write in: those of the terminal, within reason."""
    return max(NARROWEST, min(WIDEST, terminal_size()[0] - 1))


def terminal_size() -> tuple[int, int]:
    """Columns and rows that the terminal really has."""
    size = shutil.get_terminal_size((WIDEST + 1, 24))
    return size.columns, size.lines


def visible(line: str) -> int:
    """Columns that a line takes."""
    return len(_ESCAPE.sub("", line))


def pad(line: str, columns: int) -> str:
    """Spaces up to a width that colours do not count in."""
    return line + " " * (columns - visible(line))


def clip(line: str, columns: int, ellipsis: str) -> str:
    """At most so many columns, colours closed: a redrawn line must not wrap. The ellipsis shows that there was more."""
    if visible(line) <= columns:
        return line
    columns -= len(ellipsis)
    kept: list[str] = []
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        if _ESCAPE.fullmatch(piece):
            kept.append(piece)
        else:
            kept.append(piece[: max(0, columns)])
            columns -= len(piece)
    return "".join(kept) + ellipsis


def mails(number: float) -> str:
    """The word for so many: `1 mail`, `2 mails`."""
    return "mail" if f"{number:.0f}" == "1" else "mails"


def write_replacing() -> None:
    """Let standard output replace what it cannot encode: a demo never ends over an umlaut."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
