"""The picture of risk against prompt length, drawn from results alone."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gladient._files import write_atomically
from gladient.experiments._results import ExactPoint, Row

__all__ = ["draw_risk_panels", "save_figure"]

# Okabe and Ito's colours, told apart by every kind of colour vision; markers repeat the distinction.
_STYLES = {
    "linear_attention": ("#D55E00", "o", "linear attention", "linear attention, exact"),
    "scalar_gate": ("#0072B2", "s", "GLA, scalar gates", "monotone cone, exact"),
    "value_gate": ("#009E73", "D", "GLA, row gates", "WPGD optimum, exact"),
    "without_context": ("#777777", "x", "GLA without contextual features", "gates at 1/2, exact"),
}
_DASHES = {"linear_attention": "-", "scalar_gate": "--", "value_gate": "-", "without_context": ":"}


def draw_risk_panels(rows: Sequence[Row], exact: Sequence[ExactPoint]) -> Figure:
    """One panel for each (r1, r2): exact curves as lines, trained models as points with two standard errors."""
    panels = list(dict.fromkeys(row.panel for row in rows))
    figure = Figure(figsize=(3.2 * len(panels) + 0.6, 4.1), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for panel, axis in zip(panels, axes, strict=True):
        _draw_panel(
            axis, [row for row in rows if row.panel == panel], [point for point in exact if point.panel == panel]
        )
        axis.set_title(f"(r₁, r₂) = ({', '.join(panel.split())})", fontsize=11)
        axis.set_xlabel("examples in the prompt, n")
    axes[0].set_ylabel("test risk / d")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write NAME.png and NAME.svg, the same bytes for the same figure."""
    with mpl.rc_context({"svg.hashsalt": "gladient", "svg.fonttype": "path"}):
        for suffix, options in (("png", {"dpi": 160}), ("svg", {"metadata": {"Date": None}})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, **options)
            write_atomically(folder / f"{name}.{suffix}", buffer.getvalue())


def _draw_panel(axis: Axes, rows: Sequence[Row], exact: Sequence[ExactPoint]) -> None:
    for curve, (colour, _, _, label) in _STYLES.items():
        points = [(point.n, point.risk) for point in exact if point.curve == curve]
        axis.plot(*zip(*points, strict=True), color=colour, linestyle=_DASHES[curve], linewidth=1.5, label=label)
    for model, (colour, marker, label, _) in _STYLES.items():
        trained = [row for row in rows if row.model == model]
        axis.errorbar(
            [row.n for row in trained],
            [row.risk for row in trained],
            yerr=[2 * row.standard_error for row in trained],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=5.5,
            markerfacecolor="white" if marker != "x" else None,
            label=label,
        )
    axis.set_ylim(0, 1.05)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
