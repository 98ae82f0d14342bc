"""`gladient map`: what gates or the delta rule gain, over the plane of both tasks' correlations with the query's."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gladient._files import write_atomically
from gladient._text import json_text
from gladient.answers import require_memory
from gladient.cli.numbers import Floats, Real, Whole, Wholes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gladient._types import Array
    from gladient.answers import Gain, Plane

__all__ = ["Map"]


@dataclass(frozen=True, kw_only=True)
class Map:
    """Heat map of a gain on the plane of (r1, r2), the correlations of two tasks with the query's task.

        --gain-of gate               the best gates over linear attention
        --gain-of delta              the best delta rule (DeltaNet) over the same
        --gain-of delta --over gate  the best gated delta rule over the best gates
        --gain-of depth              two layers with value gates over one
        --gain-of gate --layers 2    value gates over none, in two layers each

    The gain is 1 - risk / the other risk; the picture names what holds on either side of the line. Blank cells:
    correlations that cannot occur together. Writes PATH.png, PATH.svg and PATH.csv.

    Example: gladient map --gain-of delta --over gate --r1 0:1 --r2 0:1
    """

    gain_of: Literal["gate", "delta", "depth"] = "gate"
    """What gains, see above."""
    layers: Whole = 1
    """1, or 2 with --gain-of gate."""
    over: Literal["linear", "gate"] = "linear"
    """What it is measured against; gate goes with --gain-of delta."""
    r1: str = "0:1"
    """Range of the first task's correlation with the query's, low:high."""
    r2: str = "0:1"
    """Range of the second task's."""
    n: Wholes = (25, 25)
    """Examples of each of the two tasks."""
    rho: Real = 0.0
    """Correlation between the two tasks."""
    d: Whole = 10
    """Number of features; ignored with --spectrum."""
    spectrum: Floats = ()
    """Eigenvalues of the features' covariance Σ, with --gain-of gate; left out: 1."""
    sigma2: Real = 0.0
    """Variance of the label noise."""
    points: Whole = 101
    """Points along each axis."""
    out: Path = Path("gain")
    """Path of the files, without suffix."""
    json: bool = False
    """Print one JSON object instead of sentences."""

    def run(self) -> None:
        """Compute, write and say where."""
        import numpy as np

        from gladient.pictures import save_figure

        self._check()
        out = self.out
        r1, r2 = (np.linspace(*_range(name, text), self.points) for name, text in (("r1", self.r1), ("r2", self.r2)))
        plane = self._computed(r1, r2)
        if not plane.valid.any():
            raise ValueError(
                f"no point of r1 {self.r1}, r2 {self.r2} is possible with --rho {self.rho}: "
                "[[R, r], [rᵀ, 1]] must be positive semidefinite; choose smaller ranges"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out.with_name(out.name + ".csv"), _table(plane))
        save_figure(_draw(plane, f"n = {self.n[0]} + {self.n[1]}, ρ = {self.rho:g}"), out, dpi=150)
        print(json_text(_summary(out, plane)) if self.json else _sentences(out, plane))

    def _check(self) -> None:
        """Refuse what the theory does not."""
        if self.gain_of == "gate" and self.over == "gate":
            raise ValueError("--over gate is what --gain-of gate is itself; give --gain-of delta, or --over linear")
        if self.gain_of == "depth" and self.over == "gate":
            raise ValueError("--over gate is what --gain-of depth is measured against: leave --over out")
        if self.layers not in (1, 2) or (self.layers == 2 and self.gain_of != "gate"):
            raise ValueError(f"--layers is {self.layers}; a map has 1, or 2 with --gain-of gate")
        if self.spectrum and (self.gain_of == "depth" or self.layers == 2):
            raise ValueError("--spectrum is given; the map of two layers needs Σ = I: give --d")
        if self.gain_of == "delta" and self.spectrum:
            raise ValueError("--spectrum is given; the delta rule's map needs Σ = I: give --d, or use gladient risk")
        if len(self.n) != 2:
            raise ValueError(f"--n lists {len(self.n)} numbers; a map has two tasks, e.g. --n 25 25")
        if self.points < 2:
            raise ValueError(f"--points is {self.points}; a map needs at least 2 along each axis")
        if self.d < 1:
            raise ValueError(f"--d is {self.d}; it must be a whole number ≥ 1")
        if not self.out.name:
            raise ValueError(
                f"--out is {str(self.out)!r}; it must end in a name, to which .png, .svg and .csv are added"
            )
        # About 40 arrays of the plane's size exist at once; for the delta rule 140, and 7.5 million numbers more.
        arrays, more = (140.0, 7.5e6) if self.gain_of == "delta" else (40.0, 0.0)
        require_memory(arrays * float(self.points) * float(self.points) + more, f"a map of {self.points:g}² points")
        for suffix in (".png", ".svg", ".csv"):
            if self.out.with_name(self.out.name + suffix).is_dir():
                raise ValueError(f"{self.out}{suffix} is a folder; give another --out")

    def _computed(self, r1: "Array", r2: "Array") -> "Plane":
        from gladient.answers import gain_plane
        from gladient.prompts import correlation_matrix

        kinds: dict[tuple[str, str], Gain] = {
            ("gate", "linear"): "gates" if self.layers == 1 else "gates of two layers",
            ("delta", "linear"): "delta",
            ("depth", "linear"): "depth",
        }
        return gain_plane(
            kinds.get((self.gain_of, self.over), "gated delta"),
            r1,
            r2,
            n=self.n,
            R=correlation_matrix((self.rho,), 2),
            spectrum=self.spectrum or [1.0],
            times=None if self.spectrum else [float(self.d)],
            sigma2=self.sigma2,
        )


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; give low:high, e.g. --{name} 0:1") from None
    if not -1.0 <= low < high <= 1.0:
        raise ValueError(f"--{name} is {text!r}; a range goes up, within -1 and 1, e.g. --{name} 0:1")
    return low, high


def _summary(out: Path, plane: "Plane") -> dict[str, object]:
    return {"files": [f"{out}{suffix}" for suffix in (".png", ".svg", ".csv")], **plane.to_json()}


def _sentences(out: Path, plane: "Plane") -> str:
    count, found = plane.sentences
    return f"{out}.png, .svg, .csv: {count}\n{found}"


def _table(plane: "Plane") -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(plane.table())
    return text.getvalue()


def _draw(plane: "Plane", title: str) -> "Figure":
    """The heat map, and the line at which something changes, with a name on either side."""
    from matplotlib.colors import TwoSlopeNorm

    from gladient.pictures import blank, heat_map, name_sides

    gain, border = plane.grid(plane.gain), plane.grid(plane.border)
    least, most = (end["gain"] for end in plane.ends)
    # Where no point is on one side of 0 a hundredth of the larger end stands in: the norm needs both sides.
    size = max(-least, most)
    colours: dict[str, Any] = {}
    ink, halo = "white", "black"
    if least < 0.0:
        ink, halo = halo, ink
        colours = {"cmap": "RdBu", "norm": TwoSlopeNorm(0.0, min(least, -0.01 * size), max(most, 0.01 * size))}
    figure = blank(6.0, 5.0)
    axes = figure.add_subplot()
    if heat_map(axes, plane.r1, plane.r2, gain, border, label=plane.label, line=ink, **colours):
        name_sides(axes, plane.r1, plane.r2, border, plane.sides, colour=ink, halo=halo)
    axes.set(xlabel="r1, first task", ylabel="r2, second task")
    axes.set_title(title, fontsize="medium")
    return figure
