"""Minima of a function that is quadratic in each of its coordinates, from many starts at once."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from gladient._types import Array, Float

__all__ = ["Derivatives", "Values", "by_slopes", "by_values", "descend"]

Values: TypeAlias = Callable[[Array], Array]
Derivatives: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""Points [S, P] and their values [S] → slopes [S, P] and curvatures [S, P, P]."""

_STEP = 0.02  # of a coordinate's size: differences give slopes exactly for any, curvatures nearly for a short one
_LEAST = 0.1  # the size of a coordinate near 0
_DAMPING = np.array([0.0, 1.0, 30.0, 1000.0])  # tried together, times each start's own
_SETTLED, _CALM = 1e-12, 3  # a start ends after this many steps that gain less than this part of the unit
_CURVED = 1e-12  # curvature below this part of the largest is rounding


def descend(
    f: Values,
    derivatives: Derivatives,
    starts: Float[Array, "S P"],
    low: Array,
    high: Array,
    *,
    unit: float = 1.0,
    most: int = 150,
) -> tuple[Float[Array, "S P"], Float[Array, " S"]]:
    """The local minimum below each start in a box, and its value.

    Newton's method with the modulus of the curvature (a saddle is left, not sought), damped by each coordinate's own
    curvature, with a step for each of several dampings in one call of f.

    Args:
        f: points [N, P] → values [N].
        derivatives: slopes and curvatures, `by_slopes` or `by_values`.
        starts: where to begin, [S, P].
        low: least value of each coordinate, [P]; -inf where there is none.
        high: largest value, [P].
        unit: the size of a value that counts.
        most: steps at most.

    Source: the modulus of the curvature as in Dauphin et al. (arXiv 1406.2572).
    """
    x = np.clip(starts, low, high)
    value, damping, calm = f(x), np.full(len(x), 1e-3), np.zeros(len(x), dtype=int)
    for _ in range(most):
        live = np.flatnonzero(calm < _CALM)
        if not len(live):
            break
        slope, curve = derivatives(x[live], value[live])
        tried = _steps(x[live], slope, curve, damping[live, None] * _DAMPING, low, high)
        values = np.where(np.isnan(new := f(tried.reshape(-1, x.shape[1]))), np.inf, new).reshape(tried.shape[:2])
        best = values.argmin(axis=1)
        gain = value[live] - values[np.arange(len(live)), best]
        calm[live] = np.where(gain < _SETTLED * unit, calm[live] + 1, 0)
        won = gain > 0.0
        x[live[won]], value[live[won]] = tried[won, best[won]], values[won, best[won]]
        factor = np.where(won, np.maximum(0.1 * _DAMPING[best], 0.1), 1000.0)
        damping[live] = np.clip(damping[live] * factor, 1e-12, 1e12)
    return x, value


def by_slopes(f: Callable[[Array], Array]) -> Derivatives:
    """Curvatures as differences of slopes f, points [N, P] → [N, P]: exact for what is quadratic in each coordinate."""

    def derivatives(x: Array, value: Array) -> tuple[Array, Array]:
        S, P = x.shape
        h = _STEP * np.maximum(np.abs(x), _LEAST)
        shifts = np.eye(P) * h[:, None]
        slopes = f(np.concatenate([x, *(x + shifts.swapaxes(0, 1)), *(x - shifts.swapaxes(0, 1))]))
        up, down = np.moveaxis(slopes[S:].reshape(2, P, S, P), 1, 2)
        curve = (up - down) / (2.0 * h[:, :, None])
        return slopes[:S], (curve + curve.swapaxes(1, 2)) / 2.0

    return derivatives


def by_values(f: Values) -> Derivatives:
    """Both from f at x ± h_i and x ± (h_i + h_j): slopes are exact for what is quadratic in each coordinate."""

    def derivatives(x: Array, value: Array) -> tuple[Array, Array]:
        S, P = x.shape
        h = _STEP * np.maximum(np.abs(x), _LEAST)
        one = np.eye(P)[None] * h[:, None]
        row, column = np.triu_indices(P, 1)
        shifts = np.concatenate([one, one[:, row] + one[:, column]], axis=1)
        points = np.stack([x[:, None] + shifts, x[:, None] - shifts], axis=1)
        up, down = np.moveaxis(f(points.reshape(-1, P)).reshape(S, 2, -1), 1, 0)
        slope, bend = (up - down) / 2, (up + down) / 2 - value[:, None]  # bend: half of the second difference
        curve = np.zeros((S, P, P))
        curve[:, np.arange(P), np.arange(P)] = 2 * bend[:, :P]
        mixed = bend[:, P:] - bend[:, row] - bend[:, column]
        curve[:, row, column] = curve[:, column, row] = mixed
        return slope[:, :P] / h, curve / (h[:, :, None] * h[:, None, :])

    return derivatives


def _steps(x: Array, slope: Array, curve: Array, damping: Array, low: Array, high: Array) -> Array:
    """Points after a step for each damping, [S, D, P]; coordinates that their bound holds stay."""
    free = ~(((x <= low) & (slope > 0)) | ((x >= high) & (slope < 0)))
    slope = np.where(free, slope, 0.0)
    curve = np.where(free[:, :, None] & free[:, None, :], curve, 0.0)
    own = np.sqrt(np.abs(np.einsum("spp->sp", curve)))
    own = np.maximum(own, 1e-8 * own.max(axis=1, keepdims=True))
    own[own == 0.0] = 1.0
    scaled = np.where(np.isfinite(curve), curve, 0.0) / (own[:, :, None] * own[:, None, :])
    roots, vectors = np.linalg.eigh(scaled)
    roots = np.maximum(np.abs(roots), _CURVED * np.abs(roots).max(axis=1, keepdims=True) + 1e-300)
    along = np.einsum("spr,sp->sr", vectors, np.nan_to_num(slope) / own)
    step = np.einsum("spr,sdr->sdp", vectors, along[:, None] / (roots[:, None] + damping[:, :, None]))
    return np.clip(x[:, None] - step / own[:, None], low, high)
