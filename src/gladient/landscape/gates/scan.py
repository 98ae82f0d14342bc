"""The lowest point of functions of one number: a grid over all scales, its lowest minima refined together."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gladient._types import Array, Float

__all__ = ["Scanned", "scan_rows"]

RowScore: TypeAlias = Callable[[NDArray[np.integer], Array], tuple[Array, Array]]

# Minima of the grid that are refined. In some 700 random settings the lowest one always led to the lowest minimum; the
# others are for minima whose order the grid mistakes, and are refined in the same calls.
_MINIMA = 6
_FINE = 17  # points of one refinement, which makes the bracket 8 times narrower; 5, 9 and 33 take longer
_ROUNDING = 1e-14  # relative difference of two risks that is rounding


@dataclass(frozen=True, eq=False)
class Scanned:
    """The lowest point of each of B functions.

    Attributes:
        risk: its value, [B].
        at: where it is, [B]; 0 if no point is better than 0 by more than rounding.
        extra: what the score gave beside the risk there, [B, K].
        low, high: the grid points or refined points on either side of it, [B] each.
    """

    risk: Float[Array, " B"]
    at: Float[Array, " B"]
    extra: Float[Array, "B K"]
    low: Float[Array, " B"]
    high: Float[Array, " B"]


def scan_rows(grid: Float[Array, " G"], score: RowScore, count: int) -> Scanned:
    """Lowest point of `count` functions at once.

    Args:
        grid: points, ascending; the first is 0.
        score: which functions [N] and points [N] → risks [N] and whatever belongs to them [N, K].
        count: how many functions there are.
    """
    which = np.arange(count)
    risks, extra = score(np.repeat(which, len(grid)), np.tile(grid, count))
    risks, extra = risks.reshape(count, -1), extra.reshape(count, len(grid), -1)
    fenced = np.pad(risks, ((0, 0), (1, 1)), constant_values=np.inf)
    # < on one side only: a flat stretch is one minimum, at its left end
    dips = np.where((risks < fenced[:, :-2]) & (risks <= fenced[:, 2:]), risks, np.inf)
    chosen = np.argsort(dips, axis=1, kind="stable")[:, :_MINIMA]
    row, rank = np.nonzero(np.isfinite(np.take_along_axis(dips, chosen, axis=1)))
    i = chosen[row, rank]
    low, high, best = grid[np.maximum(i - 1, 0)], grid[np.minimum(i + 1, len(grid) - 1)], grid[i]
    least, besides, each = risks[row, i], extra[row, i], np.arange(len(row))
    # 7 rounds are usual, and 14 where a minimum is at 0 or rounding blurs it: 40 are a bound that nothing meets.
    for _ in range(40):
        # The best point so far is not added. It often falls on a point of the new row, and of two equal neighbours the
        # one would end the other's bracket: half of it would be lost, with the minimum.
        fine = np.linspace(low, high, _FINE)
        found, more = score(np.repeat(row, _FINE), fine.T.ravel())
        found, more = found.reshape(len(row), -1), more.reshape(len(row), _FINE, -1)
        i = found.argmin(axis=1)
        better = found[each, i] <= least
        best, least = np.where(better, fine[i, each], best), np.where(better, found[each, i], least)
        besides = np.where(better[:, None], more[each, i], besides)
        low, high = fine[np.maximum(i - 1, 0), each], fine[np.minimum(i + 1, _FINE - 1), each]
        # A risk is flat at its minimum: half the digits of the point give all digits of the risk. The second term ends
        # brackets that shrink towards 0.
        if (high - low <= 2e-7 * high + 1e-14 * grid[1]).all():
            break
    order = np.lexsort((least, row))
    first = order[np.searchsorted(row[order], which)]  # every row has a minimum, if only at an end of the grid
    limit = risks[:, 0]
    none = least[first] >= limit - _ROUNDING * np.abs(limit)  # points near 0 differ from it by rounding alone
    return Scanned(
        risk=np.where(none, limit, least[first]),
        at=np.where(none, 0.0, best[first]),
        extra=np.where(none[:, None], extra[:, 0], besides[first]),
        low=np.where(none, 0.0, low[first]),
        high=np.where(none, grid[1], high[first]),
    )
