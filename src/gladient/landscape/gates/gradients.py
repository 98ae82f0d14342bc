"""Derivatives of the optimal risk by the envelope theorem: what would lower it most?"""

from dataclasses import dataclass

import numpy as np

from gladient._types import Array, Float
from gladient.landscape.gates.reduced import Reduced, reduce
from gladient.landscape.gates.weights import best_free
from gladient.prompts import MultitaskSetting

__all__ = ["Gradients", "gradients", "value_of_example"]


@dataclass(frozen=True, eq=False)
class Gradients:
    """Derivatives of the optimal risk L*; `dL = n·dn + r·dr + ΣR∘dR + ΣSigma∘dSigma + sigma2 dσ²`.

    Attributes:
        n: per example of each task (as if counts were real numbers), [K].
        R: per entry, [K, K], symmetric, zero diagonal; a correlation is two entries.
        r: per entry, [K].
        Sigma: per entry, [d, d], symmetric.
        sigma2: per unit of noise variance.
    """

    n: Float[Array, " K"]
    R: Float[Array, "K K"]
    r: Float[Array, " K"]
    Sigma: Float[Array, "d d"]
    sigma2: float


def gradients(setting: MultitaskSetting | Reduced) -> Gradients:
    r"""Derivatives of the optimal risk with respect to the setting.

    At the optimum the risk is stationary in (P, ω), so its total derivative is its partial one at fixed (P*, ω*)
    (envelope theorem). Where two minima tie, L* has a kink; the derivatives are then those of the minimum returned.

    Source: derived.

    >>> print(gradients(MultitaskSetting.isotropic(n=[25, 25], r=[0.2, 0.8], d=10)).n.round(6))
    [-0.003395 -0.054321]
    """
    reduced = reduce(setting)
    return _partial(reduced, best_free(reduced)[0])


def value_of_example(setting: MultitaskSetting | Reduced) -> Float[Array, " K"]:
    """How much one more example of each task lowers the optimal risk, to first order, [K].

    Source: derived.

    >>> value_of_example(MultitaskSetting.isotropic(n=[5, 500], r=[0.6, 0.7], d=10)).round(6)
    array([0.154687, 0.000206])
    """
    return -gradients(setting).n


def _partial(reduced: Reduced, omega: Array) -> Gradients:
    """Partial derivatives of L(P, ω) = M - 2 (ωᵀr) tr(PΣ²) + (ωᵀRω + ‖ω‖²) tr(PᵀΣPΣ²) + M ‖ω‖² tr(PᵀΣPΣ)."""
    # In shares of M (share = s/M, pM = p M), so that no scale of Σ makes a product overflow: tr(PΣ²) is Σ ps · s.
    m, s = reduced.moments(omega), reduced.s
    share = s / reduced.M
    pM = m.signal / (m.energy * (1.0 + share * (1.0 + m.t)))  # eigenvalues of P times M
    ps = pM * share
    sums, quadratic = reduced.n * omega, m.energy * (1.0 + m.t)
    V = reduced.maps[0]
    linear, cubic, square = np.sum(ps * s), np.sum(ps**2 * s), np.sum(ps**2)
    # M = σ² + tr Σ stands in L itself and before ‖ω‖² tr(PᵀΣPΣ): σ² and every s move the risk by it
    per_M = 1.0 + m.energy * square
    R = cubic * np.outer(sums, sums)
    np.fill_diagonal(R, 0.0)  # a task's correlation with itself is 1 and cannot move
    per_s = per_M - 4.0 * m.signal * ps + 3.0 * quadratic * ps**2 + 2.0 * m.energy * ps * pM
    return Gradients(
        n=omega * (-2.0 * linear * reduced.r + cubic * (2.0 * reduced.R @ sums + omega) + reduced.M * square * omega),
        R=R,
        r=-2.0 * linear * sums,
        Sigma=np.asarray((V * per_s) @ V.T),
        sigma2=float(per_M),
    )
