"""`gladient map`: the gain of gating over the plane of two tasks' correlations with the query's task."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gladient._files import save_figure, write_atomically
from gladient.cli._numbers import Floats, Whole, Wholes
from gladient.cli._setting import require_memory

if TYPE_CHECKING:
    from gladient._types import Array
    from gladient.landscape import OptimumBatch

__all__ = ["Map"]


@dataclass(frozen=True, kw_only=True)
class Map:
    """Heat map of the gain of gating over linear attention on the plane of (r1, r2).

    Blank cells: correlations that cannot occur together. The line is the border where a scalar gate stops attaining the
    optimum. Writes PATH.png, PATH.svg and PATH.csv. Example: gladient map --r1 0:1 --r2 0:1
    """

    r1: str = "0:1"
    """Range of the first task's correlation with the query's task, low:high."""
    r2: str = "0:1"
    """Range of the second task's."""
    n: Wholes = (25, 25)
    """Examples of each of the two tasks."""
    rho: float = 0.0
    """Correlation between the two tasks."""
    d: Whole = 10
    """Number of features; ignored if --spectrum is given."""
    spectrum: Floats = ()
    """Eigenvalues of the features' covariance Σ; left out: all 1."""
    sigma2: float = 0.0
    """Variance of the label noise."""
    points: Whole = 101
    """Points along each axis."""
    out: Path = Path("gain-of-gating")
    """Path of the files, without suffix."""

    def run(self) -> None:
        """Compute, write and say where."""
        import numpy as np

        from gladient.landscape import optimum_batch
        from gladient.prompts import correlation_matrix

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
        require_memory(40.0 * float(self.points) * float(self.points), f"a map of {self.points:g}² points")
        for suffix in (".png", ".svg", ".csv"):
            if self.out.with_name(self.out.name + suffix).is_dir():
                raise ValueError(f"{self.out}{suffix} is a folder; give another --out")
        r1, r2 = (np.linspace(*_range(name, text), self.points) for name, text in (("r1", self.r1), ("r2", self.r2)))
        r = np.stack(np.meshgrid(r1, r2), axis=-1).reshape(-1, 2)
        R = correlation_matrix((self.rho,), 2)
        spectrum, times = (self.spectrum, None) if self.spectrum else ([1.0], [float(self.d)])
        best = optimum_batch(self.n, R, r, spectrum, self.sigma2, times)
        if not best.valid.any():
            raise ValueError(
                f"no point of r1 {self.r1}, r2 {self.r2} is possible with --rho {self.rho}: "
                "[[R, r], [rᵀ, 1]] must be positive semidefinite; choose smaller ranges"
            )
        self.out.parent.mkdir(parents=True, exist_ok=True)
        _write_csv(self.out.with_name(self.out.name + ".csv"), r, best)
        _draw(self, r1, r2, best)
        blank = int((~best.valid).sum())
        print(f"{self.out}.png, .svg, .csv: {best.valid.sum()} points, {blank} blank (impossible correlations)")


def _range(name: str, text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; give low:high, e.g. --{name} 0:1") from None
    if not -1.0 <= low < high <= 1.0:
        raise ValueError(f"--{name} is {text!r}; a range goes up, within -1 and 1, e.g. --{name} 0:1")
    return low, high


def _write_csv(path: Path, r: "Array", best: "OptimumBatch") -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["r1", "r2", "possible", "linear_attention", "optimum", "gain", "scalar_attains"])
    columns = (best.valid, best.linear_attention, best.risk, best.scalar_margin >= -1e-9)
    for (r1, r2), valid, none, risk, attains in zip(r.tolist(), *(column.tolist() for column in columns), strict=True):
        values = [none, risk, none - risk, int(attains)] if valid else ["", "", "", ""]
        writer.writerow([r1, r2, int(valid), *values])
    write_atomically(path, text.getvalue())


def _draw(options: Map, r1: "Array", r2: "Array", best: "OptimumBatch") -> None:
    import numpy as np
    from matplotlib.figure import Figure

    shape = (len(r2), len(r1))
    gain = (1.0 - best.risk / best.linear_attention).reshape(shape)
    margin = best.scalar_margin.reshape(shape)
    figure = Figure(figsize=(6.0, 5.0), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(r1, r2, np.ma.masked_invalid(gain), cmap="viridis", shading="nearest", rasterized=True)
    figure.colorbar(mesh, label="gain of gating: 1 - risk of the optimum / risk of linear attention")
    if np.nanmin(margin) < 0.0 < np.nanmax(margin):
        axes.contour(r1, r2, np.ma.masked_invalid(margin), levels=[0.0], colors="white", linewidths=1.5)
    axes.set_xlabel("r1, first task")
    axes.set_ylabel("r2, second task")
    axes.set_title(
        f"n = {options.n[0]} + {options.n[1]}, ρ = {options.rho:g}; white: border of what a scalar gate attains",
        fontsize="medium",
    )
    save_figure(figure, options.out, dpi=150)
