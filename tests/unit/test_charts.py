"""The charts of the documents' pictures: well-formed, to scale, and nothing of a name is markup."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from lab.charts import Chart, measured, page, scale

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    """What a reader sees."""
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_every_kind_of_panel_is_drawn() -> None:
    """With its title, its names and its figures; what looks like markup is text."""
    charts = [
        Chart("Now", "figures", columns=3, names=("Sent", "<Dead>"), rows=[("1,234", "0")]),
        Chart("Rate", "lines", "ops", series={"a & b": [(0, 0.0), (60, 100.0)], "idle": [(0, 0.0)]}),
        Chart("Ends", "bars", series={"sent": [(0, 3.0), (60, 4.0)], "dead": [(60, 1.0)]}),
        Chart(
            "Breaker", "bands", series={"smtp": [(0, 0), (30, 2)]}, states={0: ("closed", "green"), 2: ("open", "red")}
        ),
        Chart("Causes", "table", names=("Cause", "Mails"), rows=[("550 5.1.1 <…>: no such user", "17")]),
        Chart("Nothing", "lines"),
    ]
    shown = texts(page("A page", ["From one run."], charts, 120))
    assert {
        "A page",
        "From one run.",
        "Now",
        "<Dead>",
        "1,234",
        "a & b",
        "Ends",
        "closed",
        "open",
        "17",
        "no data",
    } <= {*shown}
    assert "idle" not in shown


def test_lines_are_to_scale() -> None:
    """A value of half the axis is half way up, a moment of half the time half way across."""
    svg = page("t", ["n"], [Chart("Rate", "lines", series={"a": [(0, 0.0), (60, 50.0), (120, 100.0)]})], 120)
    line = next(ElementTree.fromstring(svg).iter(f"{SVG}polyline"))
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in line.attrib["points"].split())
    assert abs(x1 - (x0 + x2) / 2) < 0.2
    assert abs(y1 - (y0 + y2) / 2) < 0.2
    assert y2 < y0


@given(st.floats(1e-6, 1e12))
def test_an_axis_has_room_and_round_steps(largest: float) -> None:
    """The value is on it, near its end, with at most five steps."""
    limit, step = scale(largest)
    assert largest <= limit * (1 + 1e-9)
    assert 1 <= round(limit / step) <= 6
    assert limit - largest <= step * (1 + 1e-6)


def test_units_are_short() -> None:
    """As the axes have them."""
    assert [measured(0.95, "percentunit"), measured(0.012, "s"), measured(3, "s")] == ["95 %", "12 ms", "3 s"]
    assert [measured(51e6, "bytes"), measured(1500, "ops"), measured(25_000, "short")] == ["51 MB", "1500/s", "25k"]
