"""The picture of risk and decay over the drift of the task, drawn from results alone."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments._panels import draw_points, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.drift.figure import DriftPoint, DriftRow

__all__ = ["draw_drift"]


class _Style(NamedTuple):
    label: str
    colour: str
    line: object
    width: float
    marker: str = ""


# Okabe and Ito's colours, told apart by every kind of colour vision; markers repeat the distinction.
_STYLES = {
    "linear_attention": _Style("linear attention", "#A0A0A0", "-", 2.0),
    "stream_gate": _Style("scalar gate", "#56B4E9", "-", 1.6, "s"),
    "stream_delta_rule": _Style("delta rule", "#D55E00", "-", 1.6, "o"),
    "stream_gated_delta_rule": _Style("gated delta rule", "#009E73", "-", 1.6, "D"),
    "schedule": _Style("optimal filter (steps per token)", "#1b1f24", (0, (4, 4)), 1.4),
}


def draw_drift(rows: Sequence["DriftRow"], exact: Sequence["DriftPoint"]) -> Figure:
    """A column for each T: risk above, decay below; exact values as lines, trained models as points."""
    lengths = sorted({row.n for row in rows})
    figure, grid = panel_grid(2, len(lengths), panel=(4.2, 2.6), margin=0.8, sharex=True)
    for T, risk, decay in zip(lengths, grid[0], grid[1], strict=True):
        here, curves = [row for row in rows if row.n == T], [point for point in exact if point.n == T]
        for name, style in _STYLES.items():
            _draw_risk(risk, style, [r for r in here if r.model == name], [p for p in curves if p.curve == name])
            if name in ("stream_gate", "stream_gated_delta_rule", "schedule"):
                _draw_decay(decay, style, [r for r in here if r.model == name], [p for p in curves if p.curve == name])
        risk.set_title(f"{T} examples", fontsize=11)
        risk.set_ylim(0, 1.03)
        decay.set_xlabel("what is left of the task after an example, γ")
    grid[0][0].set_ylabel("test risk / d")
    grid[1][0].set_ylabel("decay per example")
    for axis in (*grid[0], *grid[1]):
        frame(axis)
    legend_below(figure, grid[0][0], columns=3)
    return figure


def _draw_risk(axis: Axes, style: _Style, rows: Sequence["DriftRow"], curve: Sequence["DriftPoint"]) -> None:
    _line(axis, style, curve, [point.risk for point in curve], label=f"{style.label}, exact")
    if rows:
        draw_points(
            axis,
            [float(row.panel) for row in rows],
            rows,
            color=style.colour,
            marker=style.marker,
            markerfacecolor="none",
            label=f"{style.label}, trained",
        )


def _draw_decay(axis: Axes, style: _Style, rows: Sequence["DriftRow"], curve: Sequence["DriftPoint"]) -> None:
    _line(axis, style, curve, [point.decay for point in curve])
    for row in rows:
        axis.plot(float(row.panel), row.decay, color=style.colour, marker=style.marker, markerfacecolor="none")


def _line(
    axis: Axes, style: _Style, curve: Sequence["DriftPoint"], values: Sequence[float], label: str | None = None
) -> None:
    x = [point.gamma for point in curve]
    axis.plot(x, values, color=style.colour, linestyle=style.line, linewidth=style.width, label=label)
