"""The pictures of the page, as SVG whose text the browser sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gladient.answers import Answer, Circle, Plane, plane_through
from gladient.landscape import StationaryPoints
from gladient.pictures import INK, PALE, family, frame, heat_map, svg_text
from gladient.prompts import MultitaskSetting

__all__ = ["DrawnMap", "draw_circle", "draw_map", "draw_training", "draw_weights", "gain_map", "svg"]

_WIDTH = 4.2  # inches, 403 pixels: two pictures and the sidebar, 20rem, fit side by side into 1200
_WEIGHED = ("linear_attention", "fixed_decay", "scalar_gate", "value_gate")


def svg(figure: Figure, says: str) -> str:
    """The picture as an element of a page, with a sentence for readers who cannot see it."""
    return f'<figure role="img" aria-label="{says}" style="margin:0">{svg_text(figure, fonts=True)}</figure>'


def draw_weights(rows: Sequence[Answer]) -> Figure:
    """The weight of one example of each task, side by side for the families that have one per task."""
    figure, axis = _panel(3.0)
    shown = {row.name: row for row in rows if row.name in _WEIGHED}
    width = 0.8 / len(shown)
    for place, (name, row) in enumerate(shown.items()):
        weights = np.asarray(row.weights)
        shift = (place - (len(shown) - 1) / 2) * width
        axis.bar(np.arange(len(weights)) + shift, weights, width, color=family(name).colour, label=row.title)
        axis.set_xticks(range(len(weights)), [f"task {k + 1}" for k in range(len(weights))])
    axis.axhline(0.0, color=INK, linewidth=0.8)
    axis.set_ylabel("weight of one example")
    _legend(axis)
    return figure


def draw_circle(circle: Circle, points: StationaryPoints, rows: Sequence[Answer]) -> Figure:
    """The risk of every direction of two tasks' weights, its stationary points, and where a scalar gate can go."""
    figure, axis = _panel(3.0)
    axis.axvspan(
        circle.equal, 90.0, color=family("scalar_gate").colour, alpha=0.12, linewidth=0, label="scalar gate's reach"
    )
    axis.plot(circle.angles, circle.risks, color=INK, linewidth=1.4)
    sizes = {"linear_attention": 11, "scalar_gate": 8, "value_gate": 5}  # one behind the other where they coincide
    for row in rows:
        if row.name in sizes and row.weights is not None:
            place = circle.angle(row.weights)
            title, colour, marker = family(row.name)
            axis.plot(place, row.risk, marker, color=colour, markersize=sizes[row.name], label=title)
    for point in points.points:
        if point.kind == "saddle":
            axis.plot(circle.angle(point.omega), point.risk, "x", color=INK, markersize=6)
    axis.set_xlim(0, 180)
    axis.set_xticks([0, circle.equal, 90, 135, 180], ["task 1", "equal", "task 2", "opposite", "task 1"])
    axis.set_xlabel("direction of the weights (×: saddle)")
    axis.set_ylabel("risk")
    _legend(axis)
    return figure


@dataclass(frozen=True)
class DrawnMap:
    """A drawn gain map, in which points can be marked without drawing it again.

    Attributes:
        text: the map as an element of a page.
        corners: where r = (-1, -1) and (1, 1) are in the picture, in its units.
    """

    text: str
    corners: tuple[tuple[float, float], tuple[float, float]]

    def at(self, along: float, up: float) -> str:
        """The map with a cross at these correlations."""
        (left, bottom), (right, top) = self.corners
        x, y = left + (right - left) * (along + 1) / 2, bottom + (top - bottom) * (up + 1) / 2
        cross = f"M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12"
        strokes = "".join(
            f'<path d="{cross}" stroke="{colour}" stroke-width="{width}" fill="none"/>'
            for colour, width in (("white", 5), (INK, 2))
        )
        return self.text.replace("</svg>", f"{strokes}</svg>")


def gain_map(setting: MultitaskSetting, tasks: tuple[int, int]) -> DrawnMap:
    """The map through a setting; the last one is kept, as it stays the same while these two correlations move."""
    rest = (setting.n, setting.R, setting.Sigma, np.delete(setting.r, tasks))
    key = (tasks, setting.sigma2, *(array.tobytes() for array in rest))
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = draw_map(plane_through(setting, tasks), tasks)
    return _LAST[key]


def draw_map(found: Plane, tasks: tuple[int, int]) -> DrawnMap:
    """The gain as colours, and the border of what a scalar gate attains as a line."""
    figure, axis = _panel(4.0)
    along, up = (task + 1 for task in tasks)
    gain, border = found.grid(found.gain), found.grid(found.border)
    label = "gain of gating over linear attention"
    heat_map(axis, found.r1, found.r2, gain, border, label=label, fraction=0.06, vmin=0.0)
    ticks = (-1, -0.5, 0, 0.5, 1)
    axis.set(xlim=(-1, 1), ylim=(-1, 1), xticks=ticks, yticks=ticks, aspect="equal")
    axis.set_xlabel(f"r{along}, correlation of task {along} with the query's")
    axis.set_ylabel(f"r{up}, correlation of task {up} with the query's")
    text = svg(figure, "Gain of gating over the plane of two correlations")
    ends = axis.transData.transform([(-1, -1), (1, 1)]) * 72 / figure.dpi
    height = 72 * figure.get_figheight()
    return DrawnMap(text, ((ends[0, 0], height - ends[0, 1]), (ends[1, 0], height - ends[1, 1])))


_LAST: dict[tuple[object, ...], DrawnMap] = {}


def draw_training(losses: Sequence[float], steps: int, exact: Mapping[str, float]) -> Figure:
    """The loss of each batch so far, means over a fortieth of the steps, and exact risks as lines."""
    figure, axis = _panel(3.2)
    block = max(1, steps // 40)
    starts = range(0, len(losses), block)
    axis.plot(range(1, len(losses) + 1), losses, color=PALE, linewidth=0.7, label="each batch")
    means = [float(np.mean(losses[start : start + block])) for start in starts]
    axis.plot([min(start + block, len(losses)) for start in starts], means, color=INK, label=f"mean of {block} batches")
    for name, risk in exact.items():
        axis.axhline(risk, color=family(name).colour, linewidth=1.4, label=f"{family(name).title}, exact")
    axis.set_xlim(0, steps)
    axis.set_ylim(0, 1.1 * max([*exact.values(), *means]))
    axis.set_xlabel("step")
    axis.set_ylabel("risk")
    _legend(axis)
    return figure


def _panel(height: float) -> tuple[Figure, Axes]:
    """One panel with margins in inches: an automatic layout would take as long as the rest of the picture."""
    figure = Figure(figsize=(_WIDTH, height))
    axis = figure.add_axes((0.65 / _WIDTH, 0.5 / height, 1 - 0.9 / _WIDTH, 1 - 1.0 / height))
    axis.set_axisbelow(True)
    frame(axis)
    return figure, axis


def _legend(axis: Axes) -> None:
    axis.legend(
        loc="lower center",
        bbox_to_anchor=(0.45, 1.0),
        ncols=2,
        frameon=False,
        fontsize=8,
        columnspacing=1.0,
        handlelength=1.4,
    )
