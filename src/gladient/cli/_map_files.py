"""The files of `gladient map`: one row per point, and the picture."""

import csv
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from gladient._files import save_figure, write_atomically
from gladient._types import Array, Bool, Float

__all__ = ["Plane", "draw", "write_csv"]

_SAME = 1e-9  # relative size of a gain that counts as rounding

_LABELS = {
    "gates": "gain of gating: 1 - risk of the optimum / risk of linear attention",
    "delta": "gain of the delta rule: 1 - its risk / risk of linear attention",
    "gated delta": "gain of the gated delta rule: 1 - its risk / risk of the best gates",
}
_SIDES = {  # of the line: where `border` is above 0, and below
    "gates": ("scalar gates\nreach the\noptimum", "only gates per channel\nreach it"),
    "delta": ("a step helps", "no step helps"),
    "gated delta": ("the delta rule\nis better", "gates\nare better"),
}


@dataclass(frozen=True, eq=False)
class Plane:
    """Risks on a grid of (r1, r2), rows by r2; NaN where the correlations are impossible.

    Attributes:
        kind: what gains.
        r1: correlation of each column, [C].
        r2: correlation of each row, [S].
        valid: whether the correlations are possible, [S C].
        risks: by name, what it gains over first, then what gains, [S C] each.
        more: other columns of the table by name, [S C] each.
        border: changes its sign where the line is drawn, [S C].
    """

    kind: Literal["gates", "delta", "gated delta"]
    r1: Float[Array, " C"]
    r2: Float[Array, " S"]
    valid: Bool[np.ndarray, " B"]
    risks: dict[str, Array]
    more: dict[str, Array]
    border: Float[Array, " B"]

    @property
    def label(self) -> str:
        """What the colours mean."""
        return _LABELS[self.kind]

    @cached_property
    def gain(self) -> Float[Array, " B"]:
        """1 - risk / the other risk; 0 where they differ by rounding."""
        other, risk = self.risks.values()
        gain = 1.0 - risk / np.where(other > 0.0, other, 1.0)
        return np.asarray(np.where(np.abs(gain) < _SAME, 0.0, gain))

    @property
    def ends(self) -> tuple[dict[str, float], dict[str, float]]:
        """The points of the least and of the largest gain."""
        at = (int(np.nanargmin(self.gain)), int(np.nanargmax(self.gain)))
        first, second = (
            {
                "gain": float(self.gain[i]),
                "r1": float(self.r1[i % len(self.r1)]),
                "r2": float(self.r2[i // len(self.r1)]),
            }
            for i in at
        )
        return first, second

    @property
    def better(self) -> float:
        """Share of the possible points with a gain above 0."""
        return float(np.mean(self.gain[self.valid] > 0.0))


def write_csv(path: Path, plane: Plane) -> None:
    """One row per point; empty where the correlations are impossible."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["r1", "r2", "possible", *plane.risks, "gain", *plane.more])
    other, risk = plane.risks.values()
    columns = np.column_stack((other, risk, other - risk, *plane.more.values())).tolist()
    whole = [name == "scalar_attains" for name in plane.more]
    r = np.stack(np.meshgrid(plane.r1, plane.r2), axis=-1).reshape(-1, 2).tolist()
    for point, valid, values in zip(r, plane.valid.tolist(), columns, strict=True):
        more = [int(value) if is_whole and valid else value for value, is_whole in zip(values[3:], whole, strict=True)]
        writer.writerow([*point, int(valid), *([*values[:3], *more] if valid else [""] * len(values))])
    write_atomically(path, text.getvalue())


def draw(out: Path, plane: Plane, title: str) -> None:
    """The heat map, and the line at which something changes, with a name on either side."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    shape = (len(plane.r2), len(plane.r1))
    gain, border = np.ma.masked_invalid(plane.gain.reshape(shape)), np.ma.masked_invalid(plane.border.reshape(shape))
    signed = float(gain.min()) < 0.0
    size = float(np.abs(gain).max())
    norm = (
        TwoSlopeNorm(0.0, min(float(gain.min()), -0.01 * size), max(float(gain.max()), 0.01 * size)) if signed else None
    )
    figure = Figure(figsize=(6.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    colours = "RdBu" if signed else "viridis"
    mesh = axes.pcolormesh(plane.r1, plane.r2, gain, cmap=colours, norm=norm, shading="nearest", rasterized=True)
    figure.colorbar(mesh, label=plane.label)
    if float(border.min()) < 0.0 < float(border.max()):
        colour, halo = ("black", "white") if signed else ("white", "black")
        axes.contour(plane.r1, plane.r2, border, levels=[0.0], colors=colour, linewidths=1.5)
        effects = [withStroke(linewidth=2.0, foreground=halo)]
        for name, side in zip(_SIDES[plane.kind], (border > 0.0, border < 0.0), strict=True):
            for row, column in _middles(side.filled(False)):
                place = (plane.r1[column], plane.r2[row])
                axes.annotate(name, place, color=colour, ha="center", va="center", path_effects=effects)
    axes.set_xlabel("r1, first task")
    axes.set_ylabel("r2, second task")
    axes.set_title(title, fontsize="medium")
    save_figure(figure, out, dpi=150)


def _middles(region: Bool[np.ndarray, "S C"]) -> list[tuple[int, int]]:
    """The cell farthest from the edge, for every part of a region with a twentieth of all cells or more."""
    from scipy.ndimage import distance_transform_edt, label

    depth = distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    parts, number = label(region)
    found = []
    for part in range(1, number + 1):
        if np.sum(parts == part) >= region.size / 20:
            row, column = np.unravel_index(int(np.argmax(np.where(parts == part, depth, 0.0))), region.shape)
            found.append((int(row), int(column)))
    return found
