"""Gains over the plane of two tasks' correlations with the query's."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from gladient._types import Array, ArrayLike, Bool, Float
from gladient.landscape import optimum_batch
from gladient.landscape.delta import delta_rule_batch
from gladient.landscape.depth import two_layers_batch
from gladient.prompts import MultitaskSetting

__all__ = ["Gain", "Plane", "gain_plane", "plane_through"]

_ROUNDING = 1e-9  # a gain below it is rounding, as in `landscape.advantage`

Gain: TypeAlias = Literal["gates", "delta", "gated delta", "depth", "gates of two layers"]
"""What gains."""

_LABELS = {
    "gates": "gain of gating: 1 - risk of the optimum / risk of linear attention",
    "delta": "gain of the delta rule: 1 - its risk / risk of linear attention",
    "gated delta": "gain of the gated delta rule: 1 - its risk / risk of the best gates",
    "depth": "gain of depth: 1 - risk of two layers with gates / risk of one",
    "gates of two layers": "gain of gating: 1 - risk of two layers with gates / without gates",
}
_SIDES = {  # of the line: where `border` is above 0, and below
    "gates": ("scalar gates\nreach the\noptimum", "only gates per channel\nreach it"),
    "delta": ("a step helps", "no step helps"),
    "gated delta": ("the delta rule\nis better", "gates\nare better"),
    "depth": (
        "a second layer\nwithout gates\nis worth more\nthan gates",
        "gates in one layer\nare worth more than\na second layer",
    ),
    "gates of two layers": ("gates help", "no gate helps"),
}


@dataclass(frozen=True, eq=False)
class Plane:
    """Risks on a grid of two correlations, rows by the second; NaN where the correlations are impossible.

    Attributes:
        kind: what gains.
        r1: correlation of each column, [C].
        r2: correlation of each row, [S].
        valid: whether the correlations are possible, [S C].
        risks: by name, what it gains over first, then what gains, [S C] each.
        more: other numbers by name, [S C] each.
        border: changes its sign where the line is drawn, [S C]: where a scalar gate stops attaining the optimum, no
            step helps any more, or both risks are equal.
    """

    kind: Gain
    r1: Float[Array, " C"]
    r2: Float[Array, " S"]
    valid: Bool[np.ndarray, " B"]
    risks: dict[str, Array]
    more: dict[str, Array]
    border: Float[Array, " B"]

    @property
    def label(self) -> str:
        """What the gain is."""
        return _LABELS[self.kind]

    @property
    def sides(self) -> tuple[str, str]:
        """What holds where `border` is above 0, and where it is below."""
        return _SIDES[self.kind]

    def grid(self, values: Float[Array, " B"]) -> Float[Array, "S C"]:
        """Values of the points as rows and columns."""
        return values.reshape(len(self.r2), len(self.r1))

    @cached_property
    def gain(self) -> Float[Array, " B"]:
        """1 - risk / the other risk; 0 where they differ by rounding."""
        other, risk = self.risks.values()
        gain = 1.0 - risk / np.where(other > 0.0, other, 1.0)
        return np.asarray(np.where(np.abs(gain) < _ROUNDING, 0.0, gain))

    @property
    def better(self) -> float:
        """Share of the possible points with a gain above 0."""
        return float(np.mean(self.gain[self.valid] > 0.0))

    @property
    def ends(self) -> tuple[dict[str, float], dict[str, float]]:
        """The points of the least and of the largest gain."""
        return self._point(int(np.nanargmin(self.gain))), self._point(int(np.nanargmax(self.gain)))

    def _point(self, i: int) -> dict[str, float]:
        row, column = divmod(i, len(self.r1))
        return {"gain": float(self.gain[i]), "r1": float(self.r1[column]), "r2": float(self.r2[row])}

    @property
    def sentences(self) -> tuple[str, str]:
        """How many points there are, and where the gain is least and largest."""
        least, most = ("{gain:.2%} at r1 = {r1:.4g}, r2 = {r2:.4g}".format(**end) for end in self.ends)
        count, blank = int(self.valid.sum()), int((~self.valid).sum())
        found = f"{self.label}: from {least}, to {most}; above 0 at {self.better:.1%} of the points"
        return f"{count} points, {blank} blank (impossible correlations)", found

    def to_json(self) -> dict[str, Any]:
        """The numbers of these sentences."""
        least, most = self.ends
        return {
            "points": int(self.valid.sum()),
            "blank": int((~self.valid).sum()),
            "least_gain": least,
            "largest_gain": most,
            "better": self.better,
        }

    def table(self) -> list[list[Any]]:
        """A row of names, then one per point, with expected squared errors; empty where correlations are impossible."""
        other, risk = self.risks.values()
        columns = np.column_stack((other, risk, self.gain, *self.more.values())).tolist()
        whole = [name == "scalar_attains" for name in (*self.risks, "gain", *self.more)]
        rows: list[list[Any]] = [["r1", "r2", "possible", *self.risks, "gain", *self.more]]
        for point, valid, values in zip(_points(self.r1, self.r2).tolist(), self.valid.tolist(), columns, strict=True):
            shown = [int(value) if is_whole else value for value, is_whole in zip(values, whole, strict=True) if valid]
            rows.append([*point, int(valid), *(shown or [""] * len(values))])
        return rows


def gain_plane(
    kind: Gain,
    r1: Float[Array, " C"],
    r2: Float[Array, " S"],
    *,
    n: ArrayLike,
    R: ArrayLike,
    spectrum: ArrayLike = (1.0,),
    times: ArrayLike | None = None,
    sigma2: float = 0.0,
    r: ArrayLike = (0.0, 0.0),
    tasks: tuple[int, int] = (0, 1),
) -> Plane:
    """The plane of two tasks' correlations with the query's; all else stays as it is.

    Args:
        kind: "gates", the best over linear attention; "delta", the best delta rule over linear attention; "gated
            delta", the best gated delta rule over the best gates; "depth", two layers of value gates over one; "gates
            of two layers", value gates over linear attention. All but the first need a spectrum of ones.
        r1: values of the first task's correlation.
        r2: values of the second's.
        n: examples of each task, [K].
        R: correlations between tasks, [K, K].
        spectrum: eigenvalues of Σ.
        times: how many directions share each of them; one if not given.
        sigma2: noise variance.
        r: correlations of all tasks, [K]; those of the two do not count.
        tasks: which two, from 0.
    """
    at = np.repeat(np.asarray(r, dtype=np.float64)[None], len(r1) * len(r2), axis=0)
    at[:, tasks] = _points(r1, r2)
    gates = optimum_batch(n, R, at, spectrum, sigma2, times)
    linear = {"linear_attention": gates.linear_attention}
    if kind == "gates":
        margin = gates.scalar_margin
        attains = np.where(gates.valid, margin >= -_ROUNDING, np.nan)  # weights have max |ω_k| = 1
        return Plane(kind, r1, r2, gates.valid, {**linear, "optimum": gates.risk}, {"scalar_attains": attains}, margin)
    d = int(np.sum(np.ones(len(np.atleast_1d(spectrum))) if times is None else times))
    if kind in ("depth", "gates of two layers"):
        two = two_layers_batch(n, R, at, d, sigma2)
        if kind == "depth":
            risks = {"optimum": gates.risk, "two_layers": two.bound}
            return Plane(kind, r1, r2, two.valid, risks, {"two_linear": two.linear}, gates.risk - two.linear)
        return Plane(kind, r1, r2, two.valid, {"two_linear": two.linear, "two_layers": two.bound}, {}, two.linear)
    delta = delta_rule_batch(n, R, at, d, sigma2, gated=kind == "gated delta")
    if kind == "gated delta":
        risks = {"optimum": gates.risk, "gated_delta_rule": delta.risk}
        more = {"step": delta.steps, "decay": delta.decays[:, 0]}
        return Plane(kind, r1, r2, delta.valid, risks, more, gates.risk - delta.risk)
    border = np.where(delta.valid, np.where(delta.steps > 0.0, 1.0, -1.0), np.nan)
    return Plane(kind, r1, r2, delta.valid, {**linear, "delta_rule": delta.risk}, {"step": delta.steps}, border)


def plane_through(setting: MultitaskSetting, tasks: tuple[int, int] = (0, 1), points: int = 81) -> Plane:
    """The gain of gating where two correlations of a setting vary, each from -1 to 1.

    >>> found = plane_through(MultitaskSetting.isotropic(n=[25, 25], r=[0.8, 0.2], d=10), points=21)
    >>> row, column = np.isclose(found.r2, 0.2).argmax(), np.isclose(found.r1, 0.8).argmax()
    >>> print(f"{found.grid(found.gain)[row, column]:.4f} {np.isnan(found.gain).sum()}")
    0.1915 124
    """
    at = np.linspace(-1.0, 1.0, points)
    # equal eigenvalues once: thousands of points cost as much as the distinct ones
    spectrum, times = np.unique(np.linalg.eigvalsh(setting.Sigma).clip(0.0), return_counts=True)
    given: dict[str, Any] = {"n": setting.n, "R": setting.R, "r": setting.r, "sigma2": setting.sigma2}
    return gain_plane("gates", at, at, spectrum=spectrum, times=times, tasks=tasks, **given)


def _points(r1: Float[Array, " C"], r2: Float[Array, " S"]) -> Float[Array, "B 2"]:
    return np.stack(np.meshgrid(r1, r2), axis=-1).reshape(-1, 2)
