"""The picture of risk and decay over the drift of the task, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.pictures import draw_points, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.drift.figure import DriftPoint, DriftRow

__all__ = ["draw_drift"]


_CURVES: dict[str, tuple[object, float]] = {  # line and width; what coincides with a dashed line stays visible
    "linear_attention": ("-", 2.0),
    "stream_gate": ("-", 1.6),
    "stream_delta_rule": ("-", 1.6),
    "stream_gated_delta_rule": ("-", 1.6),
    "schedule": ((0, (4, 4)), 1.4),
}
_DECAYING = ("stream_gate", "stream_gated_delta_rule", "schedule")


def draw_drift(rows: Sequence["DriftRow"], exact: Sequence["DriftPoint"]) -> Figure:
    """A column for each T: risk above, decay below; exact values as lines, trained models as points."""
    lengths = sorted({row.n for row in rows})
    figure, grid = panel_grid(2, len(lengths), panel=(4.2, 2.6), margin=0.8, sharex=True)
    for T, risk, decay in zip(lengths, grid[0], grid[1], strict=True):
        here, curves = [row for row in rows if row.n == T], [point for point in exact if point.n == T]
        for name in _CURVES:
            models, curve = [r for r in here if r.model == name], [p for p in curves if p.curve == name]
            _draw_risk(risk, name, models, curve)
            if name in _DECAYING:
                _draw_decay(decay, name, models, curve)
        risk.set_title(f"{T} examples", fontsize=11)
        risk.set_ylim(0, 1.03)
        decay.set_xlabel("what is left of the task after an example, γ")
    grid[0][0].set_ylabel("test risk / d")
    grid[1][0].set_ylabel("decay per example")
    for axis in (*grid[0], *grid[1]):
        frame(axis)
    legend_below(figure, grid[0][0], columns=3)
    return figure


def _draw_risk(axis: Axes, name: str, rows: Sequence["DriftRow"], curve: Sequence["DriftPoint"]) -> None:
    style = family(name)
    _line(axis, name, curve, [point.risk for point in curve], label=f"{style.title}, exact")
    if rows:
        draw_points(
            axis,
            [float(row.panel) for row in rows],
            rows,
            color=style.colour,
            marker=style.marker,
            markerfacecolor="none",
            label=f"{style.title}, trained",
        )


def _draw_decay(axis: Axes, name: str, rows: Sequence["DriftRow"], curve: Sequence["DriftPoint"]) -> None:
    style = family(name)
    _line(axis, name, curve, [point.decay for point in curve])
    for row in rows:
        axis.plot(float(row.panel), row.decay, color=style.colour, marker=style.marker, markerfacecolor="none")


def _line(
    axis: Axes, name: str, curve: Sequence["DriftPoint"], values: Sequence[float], label: str | None = None
) -> None:
    x = [point.gamma for point in curve]
    line, width = _CURVES[name]
    axis.plot(x, values, color=family(name).colour, linestyle=line, linewidth=width, label=label)
