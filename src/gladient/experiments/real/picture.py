"""The picture of gains on real prompts, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gladient.pictures import INK, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.real.figure import RealPoint, RealRow

__all__ = ["draw_real"]

_GATES = ("scalar_gate", "value_gate")
_KINDS = {  # how much of a gate's marker is filled, and what that means
    "predicted": ("none", "predicted step, measured"),
    "fitted": ("bottom", "fitted"),
    "trained": ("full", "trained"),
}
_APART = 1.07  # between points of one length


def draw_real(rows: Sequence["RealRow"], points: Sequence["RealPoint"]) -> Figure:
    """Gain over n, a panel for each data set and order: predicted lines, measured points, two standard errors."""
    panels = list(dict.fromkeys((row.data, row.order) for row in rows))
    orders = list(dict.fromkeys(order for _, order in panels))
    sets = list(dict.fromkeys(data for data, _ in panels))
    figure, grid = panel_grid(len(orders), len(sets), panel=(3.3, 2.9), margin=0.7)
    for order, line in zip(orders, grid, strict=True):
        for data, axis in zip(sets, line, strict=True):
            _draw_panel(
                axis,
                [row for row in rows if (row.data, row.order) == (data, order)],
                [point for point in points if (point.data, point.order) == (data, order)],
            )
            axis.set_title(f"{data}, {order}", fontsize=10)
        line[0].set_ylabel("gain over linear attention")
    for axis in grid[-1]:
        axis.set_xlabel("examples of each source, n")
    legend_below(figure, grid[0][0], columns=4)
    return figure


def _draw_panel(axis: Axes, rows: Sequence["RealRow"], points: Sequence["RealPoint"]) -> None:
    axis.axhline(0.0, color=INK, linewidth=0.8)
    for side, model in zip((-1, 1), _GATES, strict=True):
        gate, colour, marker = family(model)
        line = sorted((point for point in points if point.model == model), key=lambda point: point.n)
        axis.errorbar(
            [point.n for point in line],
            [point.gain for point in line],
            yerr=[2 * point.standard_error for point in line],
            color=colour,
            linewidth=1.3,
            capsize=2,
            label=f"{gate}, predicted",
        )
        for step, (kind, (filled, name)) in enumerate(_KINDS.items(), start=1):
            chosen = [row for row in rows if row.model == model and row.kind == kind]
            if not chosen:
                continue
            axis.errorbar(
                [row.n * _APART ** (side * step) for row in chosen],
                [row.gain for row in chosen],
                yerr=[2 * row.gain_error for row in chosen],
                linestyle="none",
                marker=marker,
                markersize=4.5,
                fillstyle=filled,
                color=colour,
                linewidth=0.8,
                label=f"{gate}, {name}",
            )
    lengths = sorted({row.n for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(lengths, [str(n) for n in lengths])
    axis.xaxis.set_minor_locator(NullLocator())
    frame(axis)
