"""The picture of delta rules and gates over the prompt's length, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments._models import MODELS
from gladient.experiments._results import ExactPoint
from gladient.pictures import correlations, draw_points, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.delta.figure import DeltaRow

__all__ = ["draw_delta"]


class _Style(NamedTuple):
    size: float
    per_task: bool


# Where curves coincide, the wider line and the larger marker below stay visible around the narrower above.
_GATES = {
    "linear_attention": ("linear attention", "-", 5.0),
    "scalar_gate": ("scalar gate", "-", 2.6),
    "value_gate": ("value gate (WPGD)", ":", 1.6),
    "bayes": ("Bayes", (0, (5, 3)), 1.2),
}
_MASKED = ("delta_rule", "gated_delta_rule")
_MODELS = {
    "delta_rule": _Style(8, False),
    "gated_delta_rule": _Style(6, False),
    "gated_delta_rule_unit": _Style(4, False),
    "delta_rule_per_task": _Style(7, True),
    "delta_rule_per_task_unit": _Style(4, True),
}


def draw_delta(rows: Sequence["DeltaRow"], exact: Sequence[ExactPoint]) -> Figure:
    """A column for each (r1, r2): rules with one step above, with a step per task below; gates behind both."""
    panels = list(dict.fromkeys(row.panel for row in rows))
    figure, grid = panel_grid(2, len(panels), panel=(3.1, 2.7), margin=1.1, sharex=True, sharey=True)
    for per_task, line in zip((False, True), grid, strict=True):
        for panel, axis in zip(panels, line, strict=True):
            curves = [point for point in exact if point.panel == panel]
            _draw_panel(axis, [row for row in rows if row.panel == panel], curves, per_task=per_task)
        line[0].set_ylabel("test risk / d\n" + ("one step per task" if per_task else "one step for all"))
    for panel, top, bottom in zip(panels, grid[0], grid[1], strict=True):
        top.set_title(correlations(panel), fontsize=11)
        bottom.set_xlabel("examples in the prompt, n")
    legend_below(figure, grid[0][0], grid[1][0], columns=4)
    return figure


def _draw_panel(axis: Axes, rows: Sequence["DeltaRow"], exact: Sequence[ExactPoint], *, per_task: bool) -> None:
    def curve(name: str) -> tuple[list[int], list[float]]:
        points = sorted((point for point in exact if point.curve == name), key=lambda point: point.n)
        return [point.n for point in points], [point.risk for point in points]

    for name, (label, line, width) in _GATES.items():
        colour, label = family(name).colour, f"{label}, exact"
        axis.plot(*curve(name), color=colour, linestyle=line, linewidth=width, label=label, zorder=1)
    for name in () if per_task else _MASKED:
        title, colour, _ = family(name)
        label = f"{title} whose query has no step, exact"
        axis.plot(*curve(name), color=colour, linestyle=(0, (4, 2)), linewidth=0.9, label=label, zorder=2)
    for model, style in _MODELS.items():
        trained = [row for row in rows if row.model == model]
        if style.per_task == per_task and trained:
            title, colour, marker = family(model)
            axis.plot(*curve(MODELS[model].rung), color=colour, linewidth=1.5, zorder=2)
            draw_points(
                axis,
                [row.n for row in trained],
                trained,
                color=colour,
                marker=marker,
                markersize=style.size,
                markerfacecolor="none",
                markeredgewidth=1.4,
                label=f"{title}, trained; line: exact",
                zorder=3,
            )
    axis.set_xscale("log", base=2)
    ticks = sorted({row.n for row in rows} | {min(point.n for point in exact), max(point.n for point in exact)})
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    axis.set_ylim(0, 1.05)
    frame(axis)
