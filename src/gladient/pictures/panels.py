"""What the pictures of all figures share: a grid of panels, their frames, points with errors, and one legend below."""

import re
from collections.abc import Collection, Sequence
from typing import Any, Protocol, runtime_checkable

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gladient.pictures.ink import INK

__all__ = ["blank", "panel_title", "draw_points", "frame", "legend_below", "log_axis", "panel_grid"]


@runtime_checkable
class _Measured(Protocol):
    """A row with a measured risk."""

    @property
    def risk(self) -> float:
        """The risk."""

    @property
    def standard_error(self) -> float:
        """Its standard error."""


def blank(width: float, height: float) -> Figure:
    """An empty picture of a size in inches."""
    # pyplot keeps every figure of a process and takes a display where there is one
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def panel_grid(
    rows: int, columns: int, *, panel: tuple[float, float], margin: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[list[Axes]]]:
    """A picture of rows × columns panels, each `panel` inches, with a margin for the legend; its axes, [rows, columns].

    Args:
        rows: how many panels stand one below the other.
        columns: how many panels stand side by side.
        panel: width and height of one.
        margin: height of what stands below.
        sharex: whether all panels have one x axis.
        sharey: whether all panels have one y axis.
    """
    figure = blank(panel[0] * columns + 0.6, panel[1] * rows + margin)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey).tolist()


def frame(axis: Axes, *, grid: bool = True) -> None:
    """No frame above and to the right; a light grid."""
    if grid:
        axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def log_axis(axis: Axes, ticks: Collection[int], *, base: int = 10) -> None:
    """A logarithmic x axis with these ticks alone."""
    axis.set_xscale("log", base=base)
    axis.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    axis.minorticks_off()


def draw_points(axis: Axes, x: Sequence[float | int], rows: Sequence[_Measured], **style: Any) -> None:
    """Risks as points with two standard errors."""
    axis.errorbar(
        x,
        [row.risk for row in rows],
        yerr=[2 * row.standard_error for row in rows],
        linestyle="none",
        **{"color": INK, **style},
    )


def legend_below(figure: Figure, *axes: Axes, columns: int) -> None:
    """One legend for all panels, below them: what these axes name, each once."""
    named = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(named.values()), list(named), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def panel_title(panel: str) -> str:
    """The title of a panel: its name, or what its numbers are where it is named by its r.

    >>> panel_title("0.2 0.8"), panel_title("σ² = 1")
    ('(r₁, r₂) = (0.2, 0.8)', 'σ² = 1')
    """
    values = panel.split()
    if re.search(r"[^-+.e\d ]", panel):
        return panel
    names = ", ".join("r" + "₁₂₃₄₅₆₇₈₉"[k] for k in range(len(values)))
    return f"({names}) = ({', '.join(values)})"
