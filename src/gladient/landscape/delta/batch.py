"""The best delta rules of thousands of settings that differ in r: heat maps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gladient._types import Array, ArrayLike, Bool, Float
from gladient.landscape.delta.decays import best_decays
from gladient.landscape.delta.isotropic import Isotropic, noise_share, task_factors
from gladient.landscape.delta.keys import key_moments
from gladient.landscape.delta.search import step_grid
from gladient.landscape.gates.batch import broadcast, is_valid
from gladient.landscape.gates.scan import Scanned, scan_rows

__all__ = ["DeltaBatch", "delta_rule_batch"]

_ROWS = 200_000  # risks computed at once: some megabytes for each array of a few tasks


@dataclass(frozen=True, eq=False)
class DeltaBatch:
    """Best delta rules of many settings.

    Attributes:
        risk: [B]; NaN where not valid.
        steps: β, the same for all tasks, [B]; 0: the limit of small steps. NaN where not valid.
        decays: what each task's delimiter leaves of the state, [B, K]; 1 without gates, NaN where not valid.
        valid: whether the correlations are possible: the joint matrix [[R, r], [rᵀ, 1]] is positive semidefinite.
    """

    risk: Float[Array, " B"]
    steps: Float[Array, " B"]
    decays: Float[Array, "B K"]
    valid: Bool[np.ndarray, " B"]


def delta_rule_batch(
    n: ArrayLike,
    R: ArrayLike,
    r: ArrayLike,
    d: int,
    sigma2: float = 0.0,
    *,
    gated: bool = False,
    keys: str = "gaussian",
) -> DeltaBatch:
    """`delta_rule`, or `gated_delta_rule`, of many settings with Σ = I that differ in r, vectorised.

    The scan and its limits are those of `delta_rule`; the decays are exact for each step.

    Args:
        n: examples per task, [K].
        R: task correlations, [K, K].
        r: correlations with the query's task, [B, K].
        d: number of features.
        sigma2: noise variance.
        gated: whether delimiters decay the state.
        keys: as in `delta_risk`.

    Raises:
        ValueError: if shapes do not agree, a number is not finite or out of the range of `MultitaskSetting`, or the
            keys are unknown. Impossible correlations are not an error: they are marked in `valid`.

    Source: derived.

    >>> found = delta_rule_batch([50, 50], np.eye(2), [[0.2, 0.8], [0.8, 0.2], [0.9, 0.9]], d=10, gated=True)
    >>> print(found.risk.round(6), found.steps.round(5), found.valid)
    [3.663549 5.901639      nan] [0.04625 0.           nan] [ True  True False]
    """
    shapes = [np.shape(value) for value in (n, R, r, sigma2)]
    if d < 1 or [len(shape) for shape in shapes] != [1, 2, 2, 0]:
        raise ValueError(f"n, R, r, sigma2 have shapes {shapes}, d is {d}; give [K], [K, K], [B, K], one number, d ≥ 1")
    arrays = broadcast(n, R, r, np.ones(1), sigma2, np.array([d]))
    counts, correlations, r = arrays[0][0], arrays[1][0], arrays[2]
    valid, nan = is_valid(arrays[1], r), np.full(len(r), np.nan)
    found = DeltaBatch(nan, nan.copy(), np.full(r.shape, np.nan), valid)
    model = Isotropic(
        n=counts,
        d=d,
        sigma2=noise_share(sigma2, 1.0),
        scale=1.0,
        offset=sigma2,
        moments=key_moments(keys, d),
        factor=task_factors(correlations, r[valid]),
        R=correlations,
        r=r[valid],
        step_unit=1.0,
    )
    rows, grid = np.flatnonzero(valid), step_grid(model)
    block = max(1, _ROWS // len(grid))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        best = _scanned(model.take(np.arange(start, start + len(part))), grid, gated, len(part))
        found.risk[part], found.steps[part], found.decays[part] = best.risk, best.at, best.extra
    return found


def _scanned(model: Isotropic, grid: Array, gated: bool, count: int) -> Scanned:
    def score(which: NDArray[np.integer], size: Array) -> tuple[Array, Array]:
        one, steps = model.take(which), np.repeat(size[:, None], len(model.n), axis=1)
        if gated:
            return best_decays(one, steps)
        ones = np.ones_like(steps)
        return one.risks(steps, ones), ones

    return scan_rows(grid, score, count)
