"""Charts as SVG: lines, stacked bars, bands of states, tables and figures, side by side on one page. Pure.

For pictures in documents, from the answers to the dashboards' questions. What it draws it draws to scale, with the
figures at its axes; how a Grafana would draw the same is another matter.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from math import ceil

# (seconds since the beginning, value)
Point = tuple[float, float]

WIDTH, GAP = 1200, 12
GRAPH_HEIGHT, STAT_HEIGHT = 226, 84
TITLE_HEIGHT, LEGEND_HEIGHT, AXIS_WIDTH, TICK_HEIGHT = 30, 36, 56, 18
LEGEND_LINES, LINE_HEIGHT = 2, 15
RIGHT_MARGIN = 26
# Distinguishable by those who see no red or no green (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d1f", "#444444")
STATES = {"green": "#3a9a5b", "yellow": "#e6b800", "red": "#c4314b", "orange": "#e07b00"}
MOST_SERIES = 8
MOST_ROWS = 7
MOST_BANDS = 4
# Longer names would run into the next one's.
LONGEST_NAME = 28
LETTER_WIDTH = 6.2

STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-size: 13px; font-weight: 600 }
.figure { font-size: 26px; font-weight: 600 }
.quiet { fill: #777 }
.panel { fill: #fff; stroke: #ddd }
.grid { stroke: #eee }
"""


@dataclass(frozen=True, slots=True)
class Chart:
    """One panel. `kind` is lines, bars, bands, table or figures; `states` names and colours the values of bands."""

    title: str
    kind: str
    unit: str = "short"
    columns: int = 1
    series: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    names: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    @property
    def height(self) -> int:
        """Of the whole panel."""
        return STAT_HEIGHT if self.kind == "figures" else GRAPH_HEIGHT


def page(title: str, notes: Sequence[str], charts: Sequence[Chart], seconds: float, across: int = 3) -> str:
    """An SVG document: charts in rows of `across`, all of them over the same `seconds`."""
    body, y = [], 40.0 + 18 * len(notes)
    for row in _rows(charts, across):
        x = float(GAP)
        width = (WIDTH - GAP * (across + 1)) / across
        for chart in row:
            own = width * chart.columns + GAP * (chart.columns - 1)
            body.append(f'<g transform="translate({x:.0f} {y:.0f})">{_panel(chart, own, seconds)}</g>')
            x += own + GAP
        y += max(chart.height for chart in row) + GAP
    lines = "".join(_text(GAP, 44 + 18 * number, note, "quiet") for number, note in enumerate(notes))
    head = _text(GAP, 24, title, "title") + lines
    size = f'width="{WIDTH}" height="{y:.0f}" viewBox="0 0 {WIDTH} {y:.0f}"'
    back = '<rect width="100%" height="100%" fill="#f6f7f8"/>'
    described = f'role="img" aria-label="{escape(title)}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {described}>\n<style>{STYLE}</style>\n{back}{head}\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _rows(charts: Sequence[Chart], across: int) -> Iterator[list[Chart]]:
    row: list[Chart] = []
    for chart in charts:
        if sum(one.columns for one in row) + chart.columns > across:
            yield row
            row = []
        row.append(chart)
    if row:
        yield row


def _panel(chart: Chart, width: float, seconds: float) -> str:
    frame = f'<rect class="panel" width="{width:.0f}" height="{chart.height}" rx="4"/>'
    draw: Callable[[Chart, float, float], str] = {
        "lines": _graph,
        "bars": _graph,
        "bands": _bands,
        "table": _table,
        "figures": _figures,
    }[chart.kind]
    return frame + _text(12, 20, chart.title, "title") + draw(chart, width, seconds)


def _graph(chart: Chart, width: float, seconds: float) -> str:
    left, top = AXIS_WIDTH, TITLE_HEIGHT + 4
    right, bottom = width - RIGHT_MARGIN, chart.height - LEGEND_HEIGHT - TICK_HEIGHT
    shown = _most_important(chart.series)
    stacked = _stacked(shown) if chart.kind == "bars" else {}
    largest = max((value for points in (stacked or shown).values() for _, value in points), default=0.0)
    limit, step = scale(largest)

    def place(point: Point) -> tuple[float, float]:
        at, value = point
        return left + (right - left) * at / seconds, bottom - (bottom - top) * value / limit

    parts = [_grid(limit, step, chart.unit, left, right, top, bottom), _times(seconds, left, right, bottom)]
    if not shown:
        parts.append(_text((left + right) / 2 - 20, (top + bottom) / 2, "no data", "quiet"))
    below: Sequence[Point] = ()
    for number, (name, points) in enumerate(shown.items()):
        colour = COLOURS[number % len(COLOURS)]
        if stacked:
            parts.append(_bars(stacked[name], below, place, colour, right - left, seconds))
            below = stacked[name]
        else:
            parts.append(_line(points, place, colour))
    return "".join(parts) + _legend(shown, width, chart.height - LEGEND_HEIGHT + 12)


def _most_important(series: Mapping[str, Sequence[Point]]) -> dict[str, Sequence[Point]]:
    """Those that have something to show, the largest ones where they are too many; in the order of their names."""
    alive = {name: points for name, points in series.items() if any(value for _, value in points)} or dict(series)
    largest = sorted(alive, key=lambda name: -max((value for _, value in alive[name]), default=0))[:MOST_SERIES]
    return {name: alive[name] for name in sorted(largest)}


def _stacked(series: Mapping[str, Sequence[Point]]) -> dict[str, list[Point]]:
    """Each series on top of those before it, at every moment that any has."""
    sums = dict.fromkeys(sorted({at for points in series.values() for at, _ in points}), 0.0)
    stacked = {}
    for name, points in series.items():
        for at, value in points:
            sums[at] += value
        stacked[name] = list(sums.items())
    return stacked


def _bars(
    tops: Sequence[Point],
    below: Sequence[Point],
    place: Callable[[Point], tuple[float, float]],
    colour: str,
    width: float,
    seconds: float,
) -> str:
    times = [at for at, _ in tops]
    apart = min((later - earlier for earlier, later in pairwise(times)), default=seconds / 10)
    wide = max(1.0, width * apart / seconds * 0.8)
    floors = dict(below)
    parts = []
    for at, value in tops:
        x, top = place((at, value))
        _, bottom = place((at, floors.get(at, 0.0)))
        if bottom - top > 0.05:
            shape = f'x="{x - wide / 2:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{bottom - top:.1f}"'
            parts.append(f'<rect {shape} fill="{colour}"/>')
    return "".join(parts)


def _line(points: Sequence[Point], place: Callable[[Point], tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, points))
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6" stroke-linejoin="round"/>'


def _grid(limit: float, step: float, unit: str, left: float, right: float, top: float, bottom: float) -> str:
    parts = []
    for number in range(round(limit / step) + 1):
        y = bottom - (bottom - top) * number * step / limit
        parts.append(f'<line class="grid" x1="{left:.0f}" x2="{right:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, measured(number * step, unit), "quiet", "end"))
    return "".join(parts)


def _times(seconds: float, left: float, right: float, bottom: float) -> str:
    minutes = round(seconds / 60)
    every = max(1, minutes // 4)
    return "".join(
        _text(left + (right - left) * at * 60 / seconds, bottom + 14, f"{at} min", "quiet", "middle")
        for at in range(0, minutes + 1, every)
    )


def _legend(names: Iterable[str], width: float, y: float) -> str:
    parts, x, lines = [], 12.0, 1
    for number, name in enumerate(names):
        short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        if x + 14 + len(short) * LETTER_WIDTH > width - 8:
            x, y, lines = 12.0, y + LINE_HEIGHT, lines + 1
            if lines > LEGEND_LINES:
                break
        parts.append(
            f'<rect x="{x:.0f}" y="{y - 8:.0f}" width="9" height="9" fill="{COLOURS[number % len(COLOURS)]}"/>'
        )
        parts.append(_text(x + 13, y, short))
        x += 26 + len(short) * LETTER_WIDTH
    return "".join(parts)


def _bands(chart: Chart, width: float, seconds: float) -> str:
    left, right, top = 110, width - RIGHT_MARGIN, TITLE_HEIGHT + 8
    parts = [_times(seconds, left, right, chart.height - LEGEND_HEIGHT - TICK_HEIGHT)]
    alive = [(name, points) for name, points in sorted(chart.series.items()) if points]
    for number, (name, points) in enumerate(alive[:MOST_BANDS]):
        y = top + number * 34
        parts.append(_text(left - 8, y + 18, name, anchor="end"))
        changes = [points[0], *(after for before, after in pairwise(points) if after[1] != before[1])]
        ends = [at for at, _ in changes[1:]] + [seconds]
        for (at, value), end in zip(changes, ends, strict=True):
            colour = STATES[chart.states[round(value)][1]]
            x, until = (left + (right - left) * moment / seconds for moment in (at, end))
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{until - x:.1f}" height="26" fill="{colour}"/>')
    x = 12.0
    for name, colour in chart.states.values():
        parts.append(f'<rect x="{x:.0f}" y="{chart.height - 16}" width="9" height="9" fill="{STATES[colour]}"/>')
        parts.append(_text(x + 13, chart.height - 8, name))
        x += 26 + len(name) * LETTER_WIDTH
    return "".join(parts)


def _table(chart: Chart, width: float, _seconds: float) -> str:
    widths = [max(len(text) for text in column) for column in zip(chart.names, *chart.rows, strict=True)]
    room = (width - 24) / (sum(widths) + 2 * len(widths))
    parts, x = [], 12.0
    for number, name in enumerate(chart.names):
        letters = max(4, int((widths[number] + 1) * room / LETTER_WIDTH))
        parts.append(_text(x, TITLE_HEIGHT + 16, name, "quiet"))
        for line, row in enumerate(chart.rows[:MOST_ROWS]):
            text = row[number]
            cut = text if len(text) <= letters else text[: letters - 1] + "…"
            parts.append(_text(x, TITLE_HEIGHT + 36 + line * 20, cut))
        x += (widths[number] + 2) * room
    return "".join(parts)


def _figures(chart: Chart, width: float, _seconds: float) -> str:
    room = width / max(1, len(chart.names))
    return "".join(
        _text(12 + number * room, 52, value, "figure") + _text(12 + number * room, 72, name, "quiet")
        for number, (name, value) in enumerate(zip(chart.names, chart.rows[0], strict=True))
    )


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "") -> str:
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x:.0f}" y="{y:.0f}"{attributes}>{escape(text)}</text>'


def scale(largest: float) -> tuple[float, float]:
    """The end of an axis that has room for a value, and the step between its lines: 1, 2 or 5 times a power of ten."""
    if largest <= 0:
        return 1.0, 0.5
    power = 10.0 ** (len(f"{largest:.12f}".split(".")[0]) - 1)
    while power > largest:
        power /= 10
    for step in (power / 5, power / 2, power, power * 2, power * 5):
        if step * 5 >= largest:
            # Less than a millionth of a step is no more than an error of the division.
            return step * max(1, ceil(largest / step - 1e-6)), step
    return power * 10, power * 5


def measured(value: float, unit: str) -> str:
    """A value in its unit, in few letters."""
    match unit:
        case "percentunit":
            return f"{value * 100:.3g} %"
        case "s" if value and value < 1:
            return f"{value * 1000:.3g} ms"
        case "s":
            return f"{value:.3g} s"
        case "bytes":
            return f"{value / 1e6:.3g} MB"
        case "ops":
            return f"{_short(value)}/s"
        case _:
            return _short(value)


def _short(value: float) -> str:
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:.4g}"
