"""Searches over the delta rule's steps: a scan of one number, and coordinates from several starts."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.model import Model, Score
from gladient.landscape.gates.scan import scan_rows

__all__ = ["Found", "cloud", "scan", "search", "step_grid"]

# Steps of the grid per factor e. In 340 random settings one per factor finds all that eighty find; ten take no longer,
# as refining takes most of the time, and leave room for a dip narrower than any seen.
_DENSITY = 10
# Points along the whole range of a coordinate, where brute force had found minima that descent missed. On a dozen
# random settings 3 and 81 end alike.
_WHOLE = 41
# Multiples of a quasi-Newton step, all tried in one call, which takes little longer than a call with one point.
_SIZES = np.concatenate(([4.0, 2.0], np.geomspace(1.0, 1e-5, 10)))
# In a cloud: the mean distance of a coordinate from its largest value, and the distance of two starts. Both in
# logarithms.
_DECAY, _APART = 2.0, 0.5
_DIFFERENCE = 1e-5  # for a slope: near the cube root of rounding, which is best for central differences


@dataclass(frozen=True)
class Found:
    """A risk, its steps [K] and its decays [K], in the units of the model."""

    risk: float
    steps: Float[Array, " K"]
    decays: Float[Array, " K"]


def scan(model: Model, score: Score, line: Float[Array, " K"]) -> tuple[Found, int, tuple[float, float]]:
    """Best multiple of `line`, largest entry 1, as steps; how many steps the grid has; the bracket of the multiple."""
    grid = step_grid(model)
    best = scan_rows(grid, lambda _, size: score(size[:, None] * line), 1)
    found = Found(float(best.risk[0]), best.at[0] * line, best.extra[0])
    return found, len(grid), (float(best.low[0]), float(best.high[0]))


def step_grid(model: Model) -> Float[Array, " G"]:
    """0, all scales of small steps up to half the bound of stability, and from there to the bound."""
    # Steps far below 1/N, for N examples, add up to nothing: from a thousandth down the risk is that of step 0 to three
    # digits.
    start = 1e-3 / (float(np.sum(model.n)) + model.d + 2.0)
    count = int(np.ceil(_DENSITY * -np.log(start))) + 1
    up = np.geomspace(start, 1.0, count)
    down = np.geomspace(1e-3, 1.0, 3 * _DENSITY)
    # above half the bound ever denser towards the bound, where the variance starts to grow with every token
    return model.bound / 2.0 * np.concatenate(([0.0], up, 2.0 - down[-2::-1], [2.0]))


def cloud(value: Callable[[Array], Array], low: Array, high: Array, count: int, most: int) -> list[Float[Array, " m"]]:
    """The lowest of `count` random points, at most `most`, each some way from those below it.

    Coordinates are logarithms, dense near their largest value; one in eight is at each end of its range.
    """
    rng = np.random.default_rng(0)  # the same cloud for the same setting: answers do not change from call to call
    x = np.maximum(high - rng.exponential(_DECAY, (count, len(low))), low)
    end = rng.integers(0, 8, x.shape)
    x = np.where(end == 0, low, np.where(end == 1, high, x))
    found: list[Array] = []
    for point in x[np.argsort(value(x), kind="stable")]:
        if all(np.abs(point - other).max() > _APART for other in found):
            found.append(point)
            if len(found) == most:
                break
    return found


def search(
    value: Callable[[Array], Array], start: Float[Array, " m"], low: Array, high: Array, most: int
) -> tuple[Float[Array, " m"], float, int]:
    """Minimum near `start`: each coordinate along its whole range once, then quasi-Newton steps within the bounds.

    Args:
        value: [G, m] → [G].
        start: where it begins, [m].
        low: least value of each coordinate, [m].
        high: largest value of each coordinate, [m].
        most: how many points it may look at, about.

    Returns:
        The point [m], its value, and how many points were looked at.
    """
    best, least = start, float(value(start[None])[0])
    for i, line in enumerate(np.linspace(low, high, _WHOLE).T):
        # _WHOLE copies of the best point, with the i-th coordinate from low to high
        best, least = _lowest(value, np.where(np.arange(len(start)) == i, line[:, None], best), best, least)
    points, inverse, before = 1 + _WHOLE * len(start), np.zeros((len(start),) * 2), None
    while points < most:
        slope = _slope(value, best, low, high)
        if before is not None:
            inverse = _updated(inverse, best - before[0], slope - before[1])
        # a coordinate at a bound stays there if the slope presses it against the bound
        free = ~((best <= low) & (slope > 0.0) | (best >= high) & (slope < 0.0))
        fresh = not inverse.any()
        if fresh:  # steepest descent, at most 1 in any logarithm
            inverse = np.eye(len(start)) / max(float(np.abs(slope[free]).max(initial=0.0)), 1e-300)
        direction = -(inverse * free * free[:, None]) @ slope
        before = (best, slope)
        best, found = _lowest(value, np.clip(best + _SIZES[:, None] * direction, low, high), best, least)
        points += 2 * len(start) + len(_SIZES)
        if found >= least - 1e-14 * abs(least):  # no gain but rounding: once more from steepest descent, then the end
            if fresh:
                break
            inverse, before = np.zeros_like(inverse), None
        least = found
    return best, least, points


def _lowest(value: Callable[[Array], Array], tried: Array, best: Array, least: float) -> tuple[Array, float]:
    """The lowest of the points tried and of the best one so far."""
    values = value(tried)
    i = int(values.argmin())
    return (tried[i], float(values[i])) if values[i] < least else (best, least)


def _slope(value: Callable[[Array], Array], x: Array, low: Array, high: Array) -> Float[Array, " m"]:
    """Central differences, one-sided at a bound."""
    moves = _DIFFERENCE * np.eye(len(x))
    ends = np.clip(np.vstack((x + moves, x - moves)), low, high)
    values = value(ends).reshape(2, -1)
    return np.asarray((values[0] - values[1]) / np.sum(ends[: len(x)] - ends[len(x) :], axis=1))


def _updated(inverse: Array, move: Array, change: Array) -> Array:
    """The BFGS update of the inverse curvature; none where the curvature along the move is not positive."""
    along = float(move @ change)
    if along <= 0.0:
        return inverse
    left = np.eye(len(move)) - np.outer(move, change) / along
    return np.asarray(left @ inverse @ left.T + np.outer(move, move) / along)
