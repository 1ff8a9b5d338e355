"""How the panels of our dashboards look, whatever they show: one function for each kind.

A panel is given its title, its questions, its unit and one sentence for whoever does not know the figure.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

# The uids of deploy/grafana/provisioning/datasources.
PROMETHEUS = DataSourceRef("prometheus", "email-prometheus")
POSTGRES = DataSourceRef("grafana-postgresql-datasource", "email-postgres")

WIDTH = 24
GRAPH_HEIGHT = 8
STAT_HEIGHT = 4
GREEN, YELLOW, RED = "green", "yellow", "red"


class Ask(NamedTuple):
    """A question to Prometheus, and what its answers are called."""

    expr: str
    legend: str


class PostgresQuery(Builder[Dataquery]):
    """A question to Postgres. The SDK knows no such query; this is the form in which Grafana keeps them."""

    def __init__(self, sql: str, *, over_time: bool) -> None:
        self._sql = sql
        self._format = "time_series" if over_time else "table"

    def build(self) -> Dataquery:
        """The query as Grafana keeps it."""
        return UnknownDataquery(
            {
                "refId": "A",
                "datasource": POSTGRES.to_json(),
                "editorMode": "code",
                "format": self._format,
                "rawQuery": True,
                "rawSql": self._sql,
            }
        )


def graph(title: str, asks: Sequence[Ask], unit: str, meaning: str, *, width: int = 8) -> timeseries.Panel:
    """Lines over time, from Prometheus."""
    panel = _lines(title, unit, meaning, width).datasource(PROMETHEUS)
    for ref, ask in zip("ABCDEFGH", asks, strict=False):
        panel.with_target(_range(ref, ask))
    return panel


def bars(title: str, sql: str, meaning: str, *, width: int = 12) -> timeseries.Panel:
    """Stacked bars over time, from Postgres."""
    return (
        _lines(title, "short", meaning, width)
        .datasource(POSTGRES)
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(70)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
        # Less than a minute apart the bars are hairs, and the queries many rows.
        .interval("1m")
        .with_target(PostgresQuery(sql, over_time=True))
    )


def number(
    title: str, expr: str, unit: str, meaning: str, *, limits: Sequence[float] = (), width: int = 4
) -> stat.Panel:
    """One figure from Prometheus: green, from the first limit on yellow, from the second on red."""
    target = prometheus.Dataquery().expr(expr).instant().ref_id("A").datasource(PROMETHEUS)
    return _figure(title, unit, meaning, width).datasource(PROMETHEUS).thresholds(_steps(limits)).with_target(target)


def figures(title: str, sql: str, meaning: str) -> stat.Panel:
    """Each column of one row, as figures side by side, from Postgres."""
    return (
        _figure(title, "short", meaning, WIDTH)
        .datasource(POSTGRES)
        .thresholds(_steps(()))
        .with_target(PostgresQuery(sql, over_time=False))
    )


def states(
    title: str, ask: Ask, meaning: str, names: Mapping[int, tuple[str, str]], *, width: int = 8
) -> statetimeline.Panel:
    """A band of named states for each series; `names` gives each value its name and colour."""
    return (
        statetimeline.Panel()
        .title(title)
        .description(meaning)
        .span(width)
        .height(GRAPH_HEIGHT)
        .datasource(PROMETHEUS)
        .mappings(_named(names))
        .show_value(VisibilityMode.AUTO)
        .with_target(_range("A", ask))
    )


def rows(
    title: str, sql: str, meaning: str, units: Mapping[str, str] | None = None, *, width: int = WIDTH
) -> table.Panel:
    """A table from Postgres; `units` of its columns by their names."""
    panel = table.Panel().title(title).description(meaning).span(width).height(GRAPH_HEIGHT).datasource(POSTGRES)
    for column, unit in (units or {}).items():
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    return panel.with_target(PostgresQuery(sql, over_time=False))


def page(uid: str, title: str, meaning: str, *, since: str, refresh: str) -> dashboard.Dashboard:
    """An empty dashboard."""
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(meaning)
        .tags(["email-worker", "generated"])
        .time(since, "now")
        .refresh(refresh)
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
    )


def with_section(page: dashboard.Dashboard, title: str, panels: Sequence[Builder[Panel]]) -> None:
    """Add a row of that title with its panels."""
    page.with_row(dashboard.Row(title))
    for panel in panels:
        page.with_panel(panel)


def _lines(title: str, unit: str, meaning: str, width: int) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    return (
        timeseries.Panel()
        .title(title)
        .description(meaning)
        .span(width)
        .height(GRAPH_HEIGHT)
        .unit(unit)
        .min(0)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
        .legend(legend.show_legend(True))
        .tooltip(tooltip)
    )


def _figure(title: str, unit: str, meaning: str, width: int) -> stat.Panel:
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().title(title).description(meaning).span(width).height(STAT_HEIGHT).unit(unit)
    # No answer is no zero: a worker that tells nothing must not look like one that has nothing to tell.
    return panel.reduce_options(last).no_value("unknown")


def _range(ref: str, ask: Ask) -> prometheus.Dataquery:
    query = prometheus.Dataquery().expr(ask.expr).legend_format(ask.legend)
    return query.range().ref_id(ref).datasource(PROMETHEUS)


def _steps(limits: Sequence[float]) -> dashboard.ThresholdsConfig:
    colours = (YELLOW, RED) if len(limits) > 1 else (RED,)
    steps = [
        Threshold(None, GREEN),
        *(Threshold(limit, colour) for limit, colour in zip(limits, colours, strict=False)),
    ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def _named(names: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    options = {
        str(value): ValueMappingResult(text=name, color=colour, index=index)
        for index, (value, (name, colour)) in enumerate(names.items())
    }
    return [ValueMap(options)]
