"""Searches over the delta rule's steps: a scan of one number, and coordinates from several starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from gladient._types import Array
from gladient.landscape._delta_diagonal import Diagonal
from gladient.landscape._delta_gates import clearly_above
from gladient.landscape._delta_isotropic import Isotropic

__all__ = ["Found", "Score", "scan", "search"]

Score: TypeAlias = Callable[[Array], tuple[Array, Array]]  # steps, [G] or [G, K] → risks [G] and decays [G, K]

_DENSITY = 10  # steps of the grid per factor e
_MINIMA = 6  # minima of the grid that are refined
_FINE = 17  # steps of one refinement
_WHOLE = 41  # points along the whole range of a coordinate
_MOVES = np.array([-1.0, -0.7, -0.45, -0.25, -0.12, 0.12, 0.25, 0.45, 0.7, 1.0])  # along a line, times its reach


@dataclass(frozen=True)
class Found:
    """A risk, its steps [K] and its decays [K], in the units of the model."""

    risk: float
    steps: Float[Array, " K"]
    decays: Float[Array, " K"]


def scan(model: Isotropic | Diagonal, score: Score, K: int) -> tuple[Found, int, tuple[float, float]]:
    """Best constant step, how many steps the grid has, and the bracket; `score` takes steps [G]."""
    grid = _grid(model)
    risks, decays = score(grid)
    fenced = np.concatenate(([np.inf], risks, [np.inf]))
    minima = np.flatnonzero((risks < fenced[:-2]) & (risks <= fenced[2:]))
    minima = minima[np.argsort(risks[minima], kind="stable")[:_MINIMA]]
    minima = minima[risks[minima] <= clearly_above(model, float(risks[minima[0]]))]
    low, high = grid[np.maximum(minima - 1, 0)], grid[np.minimum(minima + 1, len(grid) - 1)]
    best, least, gates = grid[minima], risks[minima], decays[minima]
    rows = np.arange(len(minima))
    for _ in range(40):
        fine = np.linspace(low, high, _FINE)  # not the best itself: beside its double a bracket would lose one side
        found, ways = score(fine.T.reshape(-1))
        found, ways = found.reshape(len(minima), -1), ways.reshape(len(minima), len(fine), -1)
        i = found.argmin(axis=1)
        better = found[rows, i] <= least
        best, least = np.where(better, fine[i, rows], best), np.where(better, found[rows, i], least)
        gates = np.where(better[:, None], ways[rows, i], gates)
        low, high = fine[np.maximum(i - 1, 0), rows], fine[np.minimum(i + 1, len(fine) - 1), rows]
        if (high - low <= 2e-7 * high + 1e-14 * grid[1]).all():
            break
    i = int(least.argmin())
    return Found(float(least[i]), np.full(K, best[i]), gates[i]), len(grid), (float(low[i]), float(high[i]))


def _grid(model: Isotropic | Diagonal) -> Float[Array, " G"]:
    """0, all scales of small steps up to the critical one, and from there to the bound of stability."""
    total, d = float(np.sum(model.n)), (model.d if isinstance(model, Isotropic) else len(model.s))
    start = 1e-3 / (total + d + 2.0)
    count = int(np.ceil(_DENSITY * -np.log(start))) + 1
    up = np.geomspace(start, 1.0, count)
    down = np.geomspace(1e-3, 1.0, 3 * _DENSITY)
    return model.critical * np.concatenate(([0.0], up, 2.0 - down[-2::-1], [2.0]))


def search(
    value: Callable[[Array], Array], start: Float[Array, " m"], low: Array, high: Array, joint: int, most: int
) -> tuple[Float[Array, " m"], float, int]:
    """Minimum by line searches along each coordinate, the first `joint` ones together, and the sweep's own move.

    The first sweep looks along the whole range of each coordinate, the later ones near the best point alone.

    Args:
        value: [G, m] → [G].
        start: where it begins, [m].
        low: least value of each coordinate, [m].
        high: largest value of each coordinate, [m].
        joint: how many coordinates also move together.
        most: how many points it may look at, about.

    Returns:
        The point [m], its value, and how many points were looked at.
    """
    best, least, points = start, float(value(start[None])[0]), 1
    directions = np.vstack((np.eye(len(start)), np.arange(len(start)) < joint, np.zeros(len(start))))
    reach = np.full(len(directions), 0.25)
    for i, line in enumerate(np.linspace(low, high, _WHOLE).T):
        tried = np.repeat(best[None], _WHOLE, axis=0)
        tried[:, i] = line
        values = value(tried)
        points += _WHOLE
        if values.min() < least:
            best, least = tried[values.argmin()], float(values.min())
    while reach[:-1].max() > 1e-5 and points < most:
        before = best
        for i, direction in enumerate(directions):
            if i == len(directions) - 1:
                direction, reach[i] = best - before, 4.0
            if not direction.any():
                continue
            moves = reach[i] * _MOVES
            tried = np.clip(best + moves[:, None] * direction, low, high)
            values = value(tried)
            points += len(moves)
            j = int(values.argmin())
            if values[j] < least:
                best, least = tried[j], float(values[j])
                reach[i] = min(2.0 * abs(moves[j]), 4.0)
            else:
                reach[i] /= 8.0
    return best, least, points
