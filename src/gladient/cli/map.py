"""`gladient map`: the gain of gating over the plane of two tasks' correlations with the query's task."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gladient._files import save_figure, write_atomically
from gladient.cli._setting import correlation_matrix, require_memory

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
    n: tuple[int, int] = (25, 25)
    """Examples of each task."""
    rho: float = 0.0
    """Correlation between the two tasks."""
    d: int = 10
    """Number of features; ignored if --spectrum is given."""
    spectrum: tuple[float, ...] = ()
    """Eigenvalues of the features' covariance Σ; left out: all 1."""
    sigma2: float = 0.0
    """Variance of the label noise."""
    points: int = 101
    """Points along each axis."""
    out: Path = Path("gain-of-gating")
    """Path of the files, without suffix."""

    def run(self) -> None:
        """Compute, write and say where."""
        import numpy as np

        from gladient.landscape import optimum_batch

        if self.points < 2:
            raise ValueError(f"--points is {self.points}; a map needs at least 2 along each axis")
        if self.d < 1:
            raise ValueError(f"--d is {self.d}; it must be a whole number ≥ 1")
        require_memory(
            40.0 * self.points**2 + 10.0 * max(self.d, len(self.spectrum)), f"a map of {self.points}² points"
        )
        for suffix in (".png", ".svg", ".csv"):
            if self.out.with_name(self.out.name + suffix).is_dir():
                raise ValueError(f"{self.out}{suffix} is a folder; give another --out")
        r1, r2 = (np.linspace(*_range(name, text), self.points) for name, text in (("r1", self.r1), ("r2", self.r2)))
        r = np.stack(np.meshgrid(r1, r2), axis=-1).reshape(-1, 2)
        spectrum = np.array(self.spectrum or (1.0,) * self.d)
        R = correlation_matrix((self.rho,), 2)
        best = optimum_batch(list(self.n), R, r, spectrum, self.sigma2)
        if not best.valid.any():
            raise ValueError(
                f"no point of r1 {self.r1}, r2 {self.r2} is possible with --rho {self.rho}: "
                "[[R, r], [rᵀ, 1]] must be positive semidefinite; choose smaller ranges"
            )
        attention = _linear_attention(np.array(self.n, dtype=float), R, r, spectrum, self.sigma2)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        _write_csv(self.out.with_name(self.out.name + ".csv"), r, best, attention)
        _draw(self, r1, r2, best, attention)
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


def _linear_attention(n: "Array", R: "Array", r: "Array", spectrum: "Array", sigma2: float) -> "Array":
    """Risk of ω = 1 at every point, by the profile risk."""
    import numpy as np

    M = sigma2 + spectrum.sum()
    D = spectrum * (n @ R @ n + n.sum()) + M * n.sum()
    return np.asarray(M - np.sum(spectrum**2 / D) * (r @ n) ** 2)


def _scalar_margin(best: "OptimumBatch") -> "Array":
    """Positive where a scalar gate attains the optimum: where 0 ≤ ω_1 ≤ ω_2 for ω* or -ω*."""
    import numpy as np

    sign = np.where(best.omega[:, 1] < 0, -1.0, 1.0)
    return np.minimum(sign * best.omega[:, 0], sign * (best.omega[:, 1] - best.omega[:, 0]))


def _write_csv(path: Path, r: "Array", best: "OptimumBatch", attention: "Array") -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["r1", "r2", "possible", "linear_attention", "optimum", "gain", "scalar_attains"])
    for (r1, r2), valid, none, risk, margin in zip(
        r.tolist(), best.valid.tolist(), attention.tolist(), best.risk.tolist(), _scalar_margin(best), strict=True
    ):
        values = [none, risk, none - risk, int(margin >= -1e-9)] if valid else ["", "", "", ""]
        writer.writerow([r1, r2, int(valid), *values])
    write_atomically(path, text.getvalue())


def _draw(options: Map, r1: "Array", r2: "Array", best: "OptimumBatch", attention: "Array") -> None:
    import numpy as np
    from matplotlib.figure import Figure

    shape = (len(r2), len(r1))
    gain = np.where(best.valid, 1.0 - best.risk / attention, np.nan).reshape(shape)
    margin = np.where(best.valid, _scalar_margin(best), np.nan).reshape(shape)
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
