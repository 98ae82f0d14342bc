"""The picture of trained models on the ladder of gate families, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments._results import ExactPoint
from gladient.pictures import INK, draw_points, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.family.figure import FamilyRow

__all__ = ["draw_ladders"]

# Where rungs coincide, the wider line below stays visible around the narrower above, and between the dashes of WPGD and
# of the key gate.
_RUNGS: dict[str, tuple[str, object, float]] = {
    "linear_attention": ("linear attention", "-", 7.5),
    "fixed_decay": ("best fixed decay", "-", 5.6),
    "scalar_gate": ("scalar gate", "-", 4.2),
    "value_gate": ("WPGD (value gate)", (0, (5, 3)), 2.4),
    "key_gate": ("key gate", (0, (1, 3)), 1.4),
    "bayes": ("Bayes", "-.", 1.5),
}


def draw_ladders(rows: Sequence["FamilyRow"], exact: Sequence[ExactPoint]) -> Figure:
    """A panel for each setting: exact rungs as lines, trained models as points with two standard errors."""
    panels = list(dict.fromkeys(row.panel for row in rows))
    figure, grid = panel_grid(1, len(panels), panel=(3.2, 4.0), margin=0.6)
    for panel, axis in zip(panels, grid[0], strict=True):
        rungs = {point.curve: point.risk for point in exact if point.panel == panel}
        _draw_panel(axis, [row for row in rows if row.panel == panel], rungs)
        axis.set_title(panel.replace(", r = ", "\nr = "), fontsize=10)
    grid[0][0].set_ylabel("test risk, in units of that of predicting 0")
    legend_below(figure, grid[0][0], columns=4)
    return figure


def _draw_panel(axis: Axes, rows: Sequence["FamilyRow"], rungs: dict[str, float]) -> None:
    for name, (label, line, width) in _RUNGS.items():
        style: dict[str, Any] = {"color": family(name).colour, "linestyle": line, "linewidth": width, "alpha": 0.8}
        axis.axhline(rungs[name], label=label, zorder=1, **style)
    places = range(len(rows))
    axis.hlines(
        [row.exact for row in rows],
        [place - 0.38 for place in places],
        [place + 0.38 for place in places],
        color=INK,
        linewidth=1.2,
        label="the model's rung",
        zorder=2,
    )
    draw_points(axis, list(places), rows, marker="o", markersize=5, label="trained", zorder=3)
    names = [family(row.model).title.replace("linear ", "linear\n") for row in rows]
    axis.set_xticks(list(places), names, rotation=60, fontsize=8.5)
    axis.set_ylim(0.0, 1.08 * max([*rungs.values(), *(row.risk for row in rows)]))
    frame(axis, grid=False)
