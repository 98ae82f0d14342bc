"""The picture of risk against prompt length for each number of layers, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from gladient.pictures import INK, draw_points, frame, legend_below, ordered, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.depth.figure import DepthPoint, DepthRow

__all__ = ["draw_depth"]

_TITLES = {"linear_attention": "linear attention", "scalar_gate": "GLA, scalar gates"}
_MARKERS = "osD^"


def draw_depth(rows: Sequence["DepthRow"], points: Sequence["DepthPoint"]) -> Figure:
    """A panel for each kind of model: the best steps as lines, trained models as points, the Bayes risk dashed."""
    models = list(dict.fromkeys(row.model for row in rows))
    figure, grid = panel_grid(1, len(models), panel=(4.4, 3.8), margin=0.6, sharey=True)
    for model, axis in zip(models, grid[0], strict=True):
        _draw_panel(axis, [row for row in rows if row.model == model], [p for p in points if p.model == model])
        axis.set_title(_TITLES.get(model, model), fontsize=11)
        axis.set_xlabel("examples in the prompt, n")
    grid[0][0].set_ylabel("test risk / d")
    legend_below(figure, grid[0][0], columns=3)
    return figure


def _draw_panel(axis: Axes, rows: Sequence["DepthRow"], points: Sequence["DepthPoint"]) -> None:
    depths = sorted({row.layers for row in rows})
    colours = ordered(len(depths))
    for depth, colour in zip(depths, colours, strict=True):
        line = [point for point in points if point.layers == depth]
        label = f"best {depth} step{'s' if depth > 1 else ''} of WPGD"
        axis.plot([p.n for p in line], [p.risk for p in line], color=colour, linewidth=1.4, label=label)
    floor = [point for point in points if point.layers == 0]
    axis.plot([p.n for p in floor], [p.risk for p in floor], "--", color=INK, linewidth=1.2, label="Bayes")
    for depth, colour, marker in zip(depths, colours, _MARKERS * len(depths), strict=False):
        trained = [row for row in rows if row.layers == depth]
        draw_points(
            axis,
            [row.n for row in trained],
            trained,
            color=colour,
            marker=marker,
            markersize=5.5,
            markerfacecolor="none",
            label=f"{depth} layer{'s' if depth > 1 else ''}, trained",
        )
    lengths = sorted({row.n for row in rows})
    axis.set_xscale("log")
    axis.set_xticks(lengths, [str(n) for n in lengths])
    axis.xaxis.set_minor_locator(NullLocator())
    frame(axis)
