"""The picture of learned token weights beside the best ones, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.pictures import INK, correlations, frame, legend_below, ordered, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.weights.figure import WeightPoint, WeightRow

__all__ = ["draw_weights"]

_TITLES = {"scalar_gate": "scalar gates", "value_gate": "value gates"}


def draw_weights(rows: Sequence["WeightRow"], points: Sequence["WeightPoint"]) -> Figure:
    """A line of panels for each kind of model: the best weights filled, one colour per task, learned ones as points."""
    models, panels = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("model", "panel"))
    figure, grid = panel_grid(len(models), len(panels), panel=(2.9, 1.9), margin=0.8, sharex=True, sharey=True)
    for model, line in zip(models, grid, strict=True):
        line[0].set_ylabel(f"{_TITLES.get(model, model)}\nweight")
        for panel, axis in zip(panels, line, strict=True):
            _draw_panel(axis, [point for point in points if (point.model, point.panel) == (model, panel)])
            for row in rows:
                if (row.model, row.panel) == (model, panel):
                    note = f"explained {row.explained:.3f}\ncos(ω, ω*) {row.cos_omega:.4f}"
                    axis.text(0.5, 0.97, note, transform=axis.transAxes, ha="center", va="top", fontsize=8.5)
    for panel, top, bottom in zip(panels, grid[0], grid[-1], strict=True):
        top.set_title(correlations(panel), fontsize=11)
        bottom.set_xlabel("example of the prompt")
    legend_below(figure, grid[0][0], columns=len(grid[0][0].get_legend_handles_labels()[1]))
    return figure


def _draw_panel(axis: Axes, points: Sequence["WeightPoint"]) -> None:
    tasks = sorted({point.task for point in points})
    for task, colour in zip(tasks, ordered(len(tasks)), strict=True):
        block = [point for point in points if point.task == task]
        places = [point.example + 1 for point in block]
        label = f"best weight, task {task + 1}"
        axis.bar(places, [point.best for point in block], width=1.0, color=colour, alpha=0.55, label=label)
    learned = [point.learned for point in points]
    spread = [[p.learned - p.least for p in points], [p.greatest - p.learned for p in points]]
    axis.errorbar(
        [point.example + 1 for point in points],
        learned,
        yerr=spread,
        color=INK,
        marker="o",
        markersize=3,
        linestyle="none",
        elinewidth=1.0,
        label="learned, with the range over seeds",
    )
    axis.set_ylim(min([0.0, *(point.least for point in points)]) - 0.06, 1.55)
    frame(axis, grid=False)
