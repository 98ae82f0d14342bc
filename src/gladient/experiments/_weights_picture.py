"""The picture of learned token weights beside the best ones, drawn from results alone."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_weights"]

_TASKS = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7")
_TITLES = {"scalar_gate": "scalar gates", "value_gate": "value gates"}


def draw_weights(rows: Sequence[Any], points: Sequence[Any]) -> Figure:
    """A line of panels for each kind of model: the best weights filled, one colour a task, learned ones as points."""
    models, panels = (list(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("model", "panel"))
    figure = Figure(figsize=(2.9 * len(panels) + 0.6, 1.9 * len(models) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(models), len(panels), sharex=True, sharey=True, squeeze=False)
    for model, line in zip(models, grid, strict=True):
        line[0].set_ylabel(f"{_TITLES.get(model, model)}\nweight")
        for panel, axis in zip(panels, line, strict=True):
            _draw_panel(axis, [point for point in points if (point.model, point.panel) == (model, panel)])
            (row,) = [row for row in rows if (row.model, row.panel) == (model, panel)]
            note = f"explained {row.explained:.3f}\ncos(ω, ω*) {row.cos_omega:.4f}"
            axis.text(0.5, 0.97, note, transform=axis.transAxes, ha="center", va="top", fontsize=8.5)
    for panel, top, bottom in zip(panels, grid[0], grid[-1], strict=True):
        top.set_title(f"(r₁, r₂) = ({', '.join(panel.split())})", fontsize=11)
        bottom.set_xlabel("example of the prompt")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    return figure


def _draw_panel(axis: Axes, points: Sequence[Any]) -> None:
    for task, colour in zip(sorted({point.task for point in points}), _TASKS * len(points), strict=False):
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
        color="#1b1f24",
        marker="o",
        markersize=3,
        linestyle="none",
        elinewidth=1.0,
        label="learned, with the range over seeds",
    )
    axis.set_ylim(min(0.0, *(point.least for point in points)) - 0.06, 1.55)
    axis.spines[["top", "right"]].set_visible(False)
