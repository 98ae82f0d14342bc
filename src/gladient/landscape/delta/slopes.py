"""How the risk moves when small delta-rule steps are switched on: at the best weights, and at linear attention."""

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.delta.isotropic import is_isotropic, noise_share
from gladient.landscape.gates.reduced import Reduced

__all__ = ["delta_slope", "step_slope"]


def delta_slope(reduced: Reduced) -> float | None:
    r"""Slope in ε of $b \leftarrow b - \varepsilon\, \omega^*_j x x^\top b + \omega^*_j y x$ for Σ = I, gaussian keys.

    $$\frac{dL}{d\varepsilon} = -2 d (d+1) \sum_{i<j} \omega^*_i R_{ij} (\omega^*_j)^2,
      \quad \omega^* = (R + (d + \sigma^2 + 1) I)^{-1} r,$$

    over examples, with the sign of ω* such that it is ≥ 0. None if ω* has both signs (a step cannot be negative), or Σ
    is not a multiple of I. Steps in the units of Σ = I.

    Source: derived.
    """
    if reduced.F is not None or not is_isotropic(reduced):
        return None
    n, scale, d = reduced.n, float(reduced.s.mean()), len(reduced.s)
    D = d + noise_share(reduced.sigma2, scale) + 1.0
    omega = np.linalg.solve(reduced.R * n + D * np.eye(len(n)), reduced.r)
    omega = omega * np.sign(omega.sum())
    if (omega < -1e-12 * np.abs(omega).max()).any():  # below 0 by more than rounding
        return None
    # pairs i < j of examples: n_k n_l between tasks, n (n - 1) / 2 within one, where R is 1
    earlier = np.triu(reduced.R * n[:, None] * n, 1) + np.diag(n * (n - 1.0) / 2.0)
    return float(-2.0 * scale * d * (d + 1.0) * (omega @ earlier @ omega**2))


def step_slope(reduced: Reduced) -> float | None:
    r"""Slope of the delta rule's risk at a constant step of 0, gaussian keys; None for Σ not ∝ I.

    $$\frac{dL}{d\beta} = -\frac{2 d S\, (S G - W a_0)}{a_0^2}, \quad S = 1^\top r, \quad W = \sum_{i<j} r_i, \quad
      a_0 = 1^\top R 1 + N (d + 1 + \sigma^2),$$

    $G = \sum_{i<j} [(R 1)_i + d + 1 + \sigma^2 + (d + 1) R_{ij}]$, over the N examples; steps in the units of Σ = I.

    Source: derived.
    """
    if reduced.F is not None or not is_isotropic(reduced):
        return None
    n, R, scale, d = reduced.n, reduced.R, float(reduced.s.mean()), len(reduced.s)
    D = d + noise_share(reduced.sigma2, scale) + 1.0
    later = np.append(np.cumsum(n[:0:-1])[::-1], 0.0)
    pairs: Float[Array, " K"] = n * (n - 1.0) / 2.0 + n * later  # pairs i < j whose i is of task k
    rows = R @ n
    a0, S, W = float(n @ rows + n.sum() * D), float(n @ reduced.r), float(pairs @ reduced.r)
    same = float(np.sum(n * (n - 1.0) / 2.0) + np.sum(np.triu(R * n[:, None] * n, 1)))
    G = float(pairs @ (rows + D)) + (d + 1.0) * same
    return -2.0 * d * scale * (S / a0) * (S * G / a0 - W)  # a0² would overflow for 10¹² examples and much noise
