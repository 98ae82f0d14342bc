"""The picture of one training: the risk at each step falling to the exact one, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from gladient.experiments._results import Row
from gladient.pictures import PALE, draw_points, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.single.figure import StepPoint

__all__ = ["draw_training"]


def draw_training(rows: Sequence[Row], points: Sequence["StepPoint"]) -> Figure:
    """The risk over the steps, the exact risk as a line, the tested model at the end."""
    figure, grid = panel_grid(1, 1, panel=(6.4, 3.8), margin=0.5)
    axis = grid[0][0]
    axis.plot([p.step for p in points], [p.risk for p in points], color=PALE, linewidth=1.4, label="training")
    for row in rows:
        _, colour, marker = family(row.model)
        axis.axhline(row.exact, color=colour, linewidth=1.4, label="exact")
        style = {"color": colour, "marker": marker, "markersize": 5}
        draw_points(axis, [points[-1].step], [row], label="trained, on fresh prompts", **style)
        axis.set_title(f"{row.model}: {row.panel}", fontsize=11)
    axis.set_xlabel("step")
    axis.set_ylabel("risk")
    axis.set_ylim(bottom=0)
    frame(axis)
    legend_below(figure, axis, columns=3)
    return figure
