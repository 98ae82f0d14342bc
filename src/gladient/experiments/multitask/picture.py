"""The picture of risk against prompt length, drawn from results alone."""

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments._results import ExactPoint, Row
from gladient.pictures import correlations, draw_points, family, frame, legend_below, panel_grid

__all__ = ["draw_risk_panels"]


class _Style(NamedTuple):
    line: str
    width: float
    size: float
    trained: str
    exact: str


# Where curves coincide, the wider line and the larger marker below stay visible around the narrower above.
_STYLES = {
    "without_context": _Style(":", 1.5, 6, "GLA without contextual features", "gates at 1/2"),
    "linear_attention": _Style("-", 3.8, 10, "linear attention", "linear attention"),
    "scalar_gate": _Style("-", 2.5, 7, "GLA, scalar gates", "best scalar gate"),
    "value_gate": _Style("-", 1.0, 3.5, "GLA, value gates", "WPGD optimum"),
}


def draw_risk_panels(rows: Sequence[Row], exact: Sequence[ExactPoint]) -> Figure:
    """One panel for each (r1, r2): exact curves as lines, trained models as points with two standard errors."""
    panels = list(dict.fromkeys(row.panel for row in rows))
    figure, grid = panel_grid(1, len(panels), panel=(3.2, 3.5), margin=0.6, sharey=True)
    for panel, axis in zip(panels, grid[0], strict=True):
        _draw_panel(
            axis, [row for row in rows if row.panel == panel], [point for point in exact if point.panel == panel]
        )
        axis.set_title(correlations(panel), fontsize=11)
        axis.set_xlabel("examples in the prompt, n")
    grid[0][0].set_ylabel("test risk / d")
    legend_below(figure, grid[0][0], columns=4)
    return figure


def _draw_panel(axis: Axes, rows: Sequence[Row], exact: Sequence[ExactPoint]) -> None:
    for name, style in _STYLES.items():
        points = [point for point in exact if point.curve == name]
        axis.plot(
            [point.n for point in points],
            [point.risk for point in points],
            color=family(name).colour,
            linestyle=style.line,
            linewidth=style.width,
            label=f"{style.exact}, exact",
            zorder=2,
        )
    for name, style in _STYLES.items():
        trained = [row for row in rows if row.model == name]
        draw_points(
            axis,
            [row.n for row in trained],
            trained,
            color=family(name).colour,
            marker=family(name).marker,
            markersize=style.size,
            markeredgewidth=1.4,
            markerfacecolor="none" if style.size > 4 else None,
            label=f"{style.trained}, trained",
            zorder=3,
        )
    axis.set_ylim(0, 1.05)
    frame(axis)
