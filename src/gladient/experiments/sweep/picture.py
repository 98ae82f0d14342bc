"""The picture of a sweep: risk along one axis, a panel for each combination of the others, drawn from results alone."""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.experiments._results import mean_risk
from gladient.experiments.sweep.grid import AXES
from gladient.pictures import draw_points, family, frame, legend_below, panel_grid

if TYPE_CHECKING:
    from gladient.experiments.sweep.figure import SweepPoint, SweepRow

__all__ = ["draw_sweep"]

_MOST = 24  # panels; more cannot be read


class _Mean(NamedTuple):
    place: float
    risk: float
    standard_error: float


def draw_sweep(rows: Sequence["SweepRow"], points: Sequence["SweepPoint"], x: str | None) -> Figure:
    """Exact risks as lines, means over the seeds of trained models as points with two standard errors.

    Args:
        rows: trained models.
        points: exact risks.
        x: the axis to draw along; the one with the most values if None.
    """
    values = {axis: list(dict.fromkeys(getattr(point, axis) for point in points)) for axis in AXES}
    x = x or max(AXES, key=lambda axis: len(values[axis]))
    others = [axis for axis in AXES if axis != x and len(values[axis]) > 1]
    panels = list(dict.fromkeys(_panel(point, others) for point in points))
    shown, columns = panels[:_MOST], min(4, len(panels))
    figure, grid = panel_grid(-(-len(shown) // columns), columns, panel=(3.4, 3.0), margin=0.8)
    axes, places = list(chain.from_iterable(grid)), _places(values[x])
    for name, axis in zip(shown, axes, strict=False):
        for model in dict.fromkeys(point.model for point in points):
            line = [p for p in points if p.model == model and _panel(p, others) == name]
            dots = [row for row in rows if row.model == model and _panel(row, others) == name]
            _draw_model(axis, model, line=_line(line, places, x), dots=_means(dots, places, x))
        axis.set_title(", ".join(f"{other} = {value}" for other, value in zip(others, name, strict=True)), fontsize=9)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("examples in the prompt, n" if x == "n" else x)
        if not _numeric(values[x]):
            axis.set_xticks(list(places.values()), [str(value) for value in places], rotation=30, fontsize=8)
        frame(axis)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    if len(shown) < len(panels):
        figure.suptitle(f"the first {len(shown)} of {len(panels)} panels", fontsize=9)
    axes[0].set_ylabel("test risk")
    legend_below(figure, axes[0], columns=4)
    return figure


def _draw_model(axis: Axes, model: str, *, line: list[tuple[float, float]], dots: list[_Mean]) -> None:
    _, colour, marker = family(model)
    axis.plot(*zip(*line, strict=True), color=colour, linewidth=1.4, label=f"{model}, exact")
    style = {"color": colour, "marker": marker, "markersize": 5, "markerfacecolor": "none"}
    draw_points(axis, [dot.place for dot in dots], dots, label=f"{model}, trained", **style)


def _panel(point: "SweepPoint", others: Sequence[str]) -> tuple[str | float | int, ...]:
    return tuple(getattr(point, axis) for axis in others)


def _numeric(values: Sequence[str | float | int]) -> bool:
    return all(isinstance(value, int | float) for value in values)


def _places(values: Sequence[str | float | int]) -> dict[str | float | int, float]:
    """Numbers stand where they are, lists one after another."""
    if _numeric(values):
        return {value: float(value) for value in values}
    return {value: float(place) for place, value in enumerate(values)}


def _line(points: Sequence["SweepPoint"], places: dict[str | float | int, float], x: str) -> list[tuple[float, float]]:
    return sorted((places[getattr(point, x)], point.exact) for point in points)


def _means(rows: Sequence["SweepRow"], places: dict[str | float | int, float], x: str) -> list[_Mean]:
    found = []
    for value, place in places.items():
        here = [row for row in rows if getattr(row, x) == value]
        if here:
            found.append(_Mean(place, *mean_risk([(row.risk, row.standard_error) for row in here])))
    return found
